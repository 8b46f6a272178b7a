"""What only NATS has: servers to choose from, passwords, encryption, and other deployments beside ours."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from app.db.engine import Database
from app.errors import StartupError
from app.journal.nats import Nats
from app.main import rooms
from app.settings import Settings
from tests import nats_server
from tests.journal.ledger import LIMIT_SECONDS
from tests.nats_server import NatsServer

pytestmark = pytest.mark.anyio

NOBODY = "127.0.0.1:9"


@asynccontextmanager
async def speaking(words: bytes) -> AsyncIterator[tuple[str, "asyncio.Queue[bytes]"]]:
    """Serve something that greets each client; the address, and what each client said to it."""
    said: asyncio.Queue[bytes] = asyncio.Queue()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        with suppress(ConnectionResetError):
            said.put_nowait(await reader.read())
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", said


@pytest.fixture
async def server(nats_program: str) -> AsyncIterator[NatsServer]:
    """A server that asks for a user and a password."""
    async with nats_server.running(nats_program, "--user", "node", "--pass", "p@ss:/1") as running:
        yield running


async def reached(database: Database, url: str) -> bool:
    """Connect, and send something."""
    async with Nats(database, url).connected(lambda _: None) as send:
        await send(["one,a:1"])
    return True


async def test_user_and_password_stand_in_the_url_and_servers_that_are_away_are_passed_over(
    database: Database, server: NatsServer
) -> None:
    assert await reached(database, f"nats://node:p%40ss%3A%2F1@{NOBODY},127.0.0.1:{server.port}")


@pytest.mark.parametrize("credentials", ["", "node:wrong@", "token@"])
async def test_refusal_is_told_in_the_servers_words(database: Database, server: NatsServer, credentials: str) -> None:
    with pytest.raises(ConnectionError, match="Authorization Violation"):
        await reached(database, f"nats://{credentials}127.0.0.1:{server.port}")


async def test_subject_that_may_not_be_used_is_told(
    database: Database, nats_program: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = tmp_path_factory.mktemp("nats") / "nats.conf"
    config.write_text('authorization {users = [{user: node, password: x, permissions: {publish: "other", subscribe: ">"}}]}')
    async with nats_server.running(nats_program, "--config", str(config)) as server:
        with pytest.raises(ConnectionError, match=r"permissions violation for publish to .suricate\.wakeups\."):
            await reached(database, f"nats://node:x@127.0.0.1:{server.port}")


async def test_server_without_tls_is_told_nothing_where_tls_was_asked_for(database: Database) -> None:
    async with speaking(b'INFO {"server_id":"x","version":"2.9.0","max_payload":1048576}\r\n') as (address, said):
        with pytest.raises(ConnectionError):
            await reached(database, f"tls://node:secret@{address}")
        async with asyncio.timeout(LIMIT_SECONDS):
            assert await said.get() == b""


@pytest.mark.parametrize(
    "words", [b"", b"SSH-2.0-x\r\n", b"INFO no json\r\n", b"INFO []\r\n", b"x" * 1_000_000, b"\xff\x00\r\n"]
)
async def test_something_that_is_no_nats_is_a_lost_connection(
    database: Database, words: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.journal.nats.CONNECT_SECONDS", 0.2)
    async with speaking(words) as (address, _):
        with pytest.raises(OSError):  # noqa: PT011 - a timeout, or whatever else is caught as one
            await reached(database, f"nats://{address}")


async def test_nodes_of_another_database_on_the_same_server_hear_nothing(
    database: Database, postgres: str, nats_program: str
) -> None:
    elsewhere = Database(postgres, pool_size=2)
    await elsewhere.connect()
    here: list[str] = []
    there: list[str] = []
    async with nats_server.running(nats_program) as server:
        ours, theirs = Nats(database, server.url), Nats(elsewhere, server.url)
        async with ours.connected(here.append) as send, theirs.connected(there.append) as send_elsewhere:
            await send_elsewhere(["other,a:1"])
            await send(["one,b:2"])
    await elsewhere.aclose()

    assert [payload for payload in here if "," in payload] == ["one,b:2"]
    assert [payload for payload in there if "," in payload] == ["other,a:1"]


async def test_start_without_the_library_says_what_to_install(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "nats"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "app.journal.nats")
    monkeypatch.setitem(sys.modules, "nats", None)

    with pytest.raises(StartupError, match=r"pip install 'suricate\[nats\]'"):
        rooms._carrier(Settings(nats_url="nats://127.0.0.1:4222"), database)
