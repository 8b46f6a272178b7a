"""The command line, as a process of its own: what it says, and how it refuses."""

import asyncio
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import audit, realms
from app.audit import Act
from app.cli import cli
from app.db import migrate
from app.db.engine import EVERY_REALM, Database
from app.journal.journal import Journal, Transaction
from app.realms import Config
from app.seals import Seals
from app.sessions import DEFAULT_REALM, Options
from app.webhooks import webhook
from tests import nursery
from tests.journal.ledger import Node, open_session, start, writing
from tests.service import ROOT
from tests.worker.floor import ended

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LIMIT_SECONDS = 20


async def started(folder: Path, *arguments: str, **settings: str) -> asyncio.subprocess.Process:
    """Start `suricate` with settings."""
    env: Mapping[str, str] = {"PATH": os.defpath, "HOME": str(folder), "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **settings}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", *arguments, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def ran(folder: Path, *arguments: str, **settings: str) -> tuple[int | None, str, str]:
    """Run `suricate` to its end: status, output, errors."""
    env = {"PATH": os.defpath, "HOME": str(folder), "NO_COLOR": "1", **settings}
    with tempfile.NamedTemporaryFile() as errors:
        process = await nursery.born(arguments, env, cwd=folder, log=Path(errors.name))
        async with asyncio.timeout(LIMIT_SECONDS):
            output = await process.stdout.read()
            status = await process.wait()
        return status, output.decode(), Path(errors.name).read_text(encoding="utf-8")


async def test_help_names_every_command(tmp_path: Path) -> None:
    status, output, _ = await ran(tmp_path, "--help")

    assert status == 0
    for command in ("serve", "migrate", "reseal", "worker", "keys", "realms"):
        assert f" {command} " in output


async def test_setting_that_is_not_valid_is_named_in_one_line_without_a_trace(tmp_path: Path) -> None:
    status, output, errors = await ran(tmp_path, "migrate", SURICATE_PORT="x")

    assert (status, output) == (1, "")
    assert errors.startswith("suricate: Settings are not valid. SURICATE_PORT: ")
    assert errors.count("\n") == 1


async def test_key_that_cannot_stand_in_a_header_is_told_by_its_provider_and_not_shown(
    tmp_path: Path, database_url: str
) -> None:
    status, _, errors = await ran(
        tmp_path, "serve", SURICATE_DATABASE_URL=database_url, SURICATE_PORT="0", GEMINI_API_KEY="sk-canary\n"
    )

    assert status == 1
    assert "suricate: The provider gemini cannot be set up. The provider's API key has characters" in errors
    assert "canary" not in errors


@pytest.mark.parametrize(("command", "name"), [("serve", "SURICATE_HOOKS"), ("worker", "SURICATE_DEFAULT_MODEL")])
async def test_setting_that_is_found_wrong_with_the_embedded_database_open_is_told_as_any_other(
    tmp_path: Path, command: str, name: str
) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('{"mcp_servers": {}}')
    settings = {"SURICATE_DATA_DIR": str(tmp_path / "data"), "SURICATE_TOOLS_FILE": str(tools), "SURICATE_PORT": "0"}

    status, _, errors = await ran(tmp_path, command, **settings, **{name: "{}x"})

    assert (status, "Traceback" in errors) == (1, False)
    assert errors.splitlines()[-1].startswith("suricate: ")


async def test_address_that_is_not_loopback_is_refused_until_there_is_a_key(tmp_path: Path, database_url: str) -> None:
    settings = {"SURICATE_DATABASE_URL": database_url, "SURICATE_PORT": "0", "SURICATE_HOST": "0.0.0.0"}
    status, _, errors = await ran(tmp_path, "serve", **settings)
    made = await ran(tmp_path, "keys", "create", "--scope", "admin", **settings)
    open_to_all = await ran(tmp_path, "serve", **settings | {"SURICATE_AUTH": "off"})
    process = await started(tmp_path, "serve", **settings)
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT_SECONDS):
        greeting = await process.stdout.readline()
    process.terminate()
    await process.communicate()

    assert (status, errors.splitlines()[-1].startswith("suricate: Refusing to listen on '0.0.0.0' without")) == (1, True)
    assert "suricate keys create" in errors
    assert (made[0], made[1].startswith("sur_")) == (0, True)
    assert (open_to_all[0], "SURICATE_AUTH=off is for loopback" in open_to_all[2]) == (1, True)
    assert greeting.startswith(b"Suricate listens on ")


async def test_keys_are_made_listed_replaced_and_revoked(tmp_path: Path, database_url: str) -> None:
    settings = {"SURICATE_DATABASE_URL": database_url}
    _, first, _ = await ran(tmp_path, "keys", "create", "--scope", "read", "--name", "reader", "--realm", "acme", **settings)
    _, listed, _ = await ran(tmp_path, "keys", "list", "--realm", "acme", **settings)
    key_id = listed.split()[0]
    _, second, _ = await ran(tmp_path, "keys", "rotate", key_id, "--realm", "acme", "--overlap", "0", **settings)
    revoked = await ran(tmp_path, "keys", "revoke", key_id, "--realm", "acme", **settings)
    _, after, _ = await ran(tmp_path, "keys", "list", "--realm", "acme", **settings)
    others = await ran(tmp_path, "keys", "list", **settings)
    unknown = await ran(tmp_path, "keys", "revoke", key_id, **settings)
    nowhere = await ran(tmp_path, "keys", "list", "--realm", "A b", **settings)

    assert first.strip() != second.strip()
    assert (first[:12] in listed, first.strip() in listed) == (True, False)
    assert "reader" in listed
    assert revoked[:2] == (0, "The key is revoked.\n")
    assert [("revoked" in line, second[:12] in line) for line in after.splitlines()] == [(False, True), (True, False)]
    assert others[:2] == (0, "")
    assert (unknown[0], unknown[2].splitlines()[-1]) == (1, "suricate: No such key.")
    assert (nowhere[0], nowhere[2].splitlines()[-1].startswith("suricate: A realm's name")) == (1, True)


async def test_realm_is_erased_on_the_record_of_the_operator(tmp_path: Path, database: Database, database_url: str) -> None:
    settings = {"SURICATE_DATABASE_URL": database_url}
    for realm in ("acme", "default"):
        async with database.transaction(realm) as db:
            await audit.record(db, Act("open", "something", {}))

    done = await ran(tmp_path, "realms", "erase", "acme", "--yes", **settings)
    async with database.transaction(EVERY_REALM) as db:
        trail = await db.fetch("SELECT realm_id, action, target FROM audit_entries ORDER BY id")

    assert done == (0, "Nothing is left of the realm acme: 1 rows were erased.\n", "1 rows\n")
    assert [tuple(row) for row in trail] == [
        ("default", "something", "{}"),
        ("default", "realms erase", '{"realm":"acme"}'),
    ]


def test_realm_is_not_erased_where_the_answer_is_no() -> None:
    answer = CliRunner().invoke(cli, ["realms", "erase", "acme"], input="n\n")

    assert (answer.exit_code, "for good? [y/N]" in answer.output) == (1, True)


async def test_keys_are_made_beside_a_server_with_the_embedded_database(tmp_path: Path) -> None:
    settings = {"SURICATE_DATA_DIR": str(tmp_path / "data"), "SURICATE_PORT": "0"}
    process = await started(tmp_path, "serve", **settings)
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT_SECONDS):
        await process.stdout.readline()

    made = await ran(tmp_path, "keys", "create", "--scope", "admin", **settings)
    process.terminate()
    await process.communicate()
    alone = await ran(tmp_path, "keys", "list", **settings)

    assert made[0] == 0, made[2]
    assert made[1][:12] in alone[1]


async def test_connections_that_the_limit_of_open_files_has_no_room_for_are_refused(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is no limit")

    status, _, errors = await ran(tmp_path, "serve", SURICATE_MAX_CONNECTIONS=str(hard), SURICATE_PORT="0")

    assert status == 1
    assert errors.startswith(f"suricate: SURICATE_MAX_CONNECTIONS={hard} needs ")
    assert f"the limit is {hard}. Raise it (ulimit -Hn" in errors


async def test_database_that_cannot_be_reached_is_said_so(tmp_path: Path) -> None:
    for command in ("migrate", "worker", "serve"):
        status, _, errors = await ran(
            tmp_path, command, SURICATE_DATABASE_URL="postgresql://nobody:secret@127.0.0.1:1/x", SURICATE_PORT="0"
        )

        assert status == 1
        assert "suricate: Postgres cannot be reached: " in errors
        assert "Traceback" not in errors
        assert "secret" not in errors


async def test_migrate_brings_an_empty_database_up_to_date_and_then_finds_it_so(
    tmp_path: Path, empty_database_url: str
) -> None:
    first = await ran(tmp_path, "migrate", SURICATE_DATABASE_URL=empty_database_url)
    second = await ran(tmp_path, "migrate", SURICATE_DATABASE_URL=empty_database_url)

    assert first[:2] == (0, "The database was brought up to date.\n")
    assert second[:2] == (0, "The database is up to date.\n")


async def test_reseal_says_how_many_secrets_it_has_put_under_the_first_key(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    old = Seals({"old": bytes(32)})
    async with database.transaction(DEFAULT_REALM) as db:
        await webhook.create(db, old, url="https://example.com/", types=["turn_failed"], session_id=None)
        config = Config.model_validate({"providers": {"openai": {"api_key": "sk-canary"}, "gemini": {"api_key": "canary"}}})
        await realms.put(Transaction(db), config, expected_generation=None, seals=old)
    keys, new = f"new:{'B' * 43}=,old:{'A' * 43}=", f"new:{'B' * 43}="

    done = [await ran(tmp_path, "reseal", SURICATE_DATABASE_URL=database_url, SURICATE_SEAL_KEYS=keys) for _ in range(2)]
    refused = [
        await ran(tmp_path, "reseal", SURICATE_DATABASE_URL=database_url, **given)
        for given in ({}, {"SURICATE_SEAL_KEYS": f"other:{'B' * 43}="})
    ]

    assert done == [(0, f"Secrets sealed anew: {count}.\n", "") for count in (3, 0)]
    assert [(status, "Traceback" in errors) for status, _, errors in refused] == [(1, False)] * 2
    async with database.transaction(DEFAULT_REALM) as db:
        brought = (await realms.get(db)).config.brought
    assert {Seals.parse(new).open(one.sealed_key or "", realm="default") for one in brought.values()} == {"sk-canary", "canary"}


async def test_migrate_refuses_a_database_that_lacks_what_it_needs(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    async with database.dedicated("test", role="none") as db:
        await db.execute("UPDATE alembic_version SET version_num = '9999'")
        await db.execute("UPDATE schema_floor SET revision = '9000'")

    status, _, errors = await ran(tmp_path, "migrate", SURICATE_DATABASE_URL=database_url)

    assert status == 1
    assert errors == (
        "suricate: The database is at revision 9999, which code before 9000 cannot use; "
        f"this is {migrate.head()}. Upgrade the code.\n"
    )


async def test_mistake_that_keeps_the_service_from_starting_is_logged(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    async with database.dedicated("break", role="none") as db:
        await db.execute("DROP TABLE nodes")

    status, output, errors = await ran(tmp_path, "serve", "--port", "0", SURICATE_DATABASE_URL=database_url)

    assert status not in {0, None}
    assert "service_crashed" in output + errors
    assert "nodes" in output + errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_worker_runs_turns_without_http_and_stops_in_order(
    tmp_path: Path, database: Database, database_url: str, number: signal.Signals
) -> None:
    worker = await started(tmp_path, "worker", SURICATE_DATABASE_URL=database_url, SURICATE_SCRIPTED_TOKENS_PER_SECOND="0")
    try:
        async with writing(database) as journal:
            session_id, turn_id = await _scripted_turn(journal)
            async with asyncio.timeout(LIMIT_SECONDS):
                assert worker.stdout is not None
                said = await worker.stdout.readline()
            found = await ended(database, session_id, turn_id)
        worker.send_signal(number)
        async with asyncio.timeout(LIMIT_SECONDS):
            status = await worker.wait()
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()

    assert said == b"Suricate runs turns. Ctrl-C stops it.\n"
    assert found.status == "completed"
    assert status == 0


async def _scripted_turn(journal: Journal) -> tuple[str, str]:
    session_id = await open_session(journal, Options("scripted", "scripted"))
    return session_id, await start(journal, session_id, Node(room=0))
