"""The commands. They read the settings, build the house, and say what a person needs to know."""

import asyncio
import gc
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from app import audit, redaction, telemetry
from app import settings as settings_module
from app.audit import Act
from app.credentials import keys
from app.credentials.caller import Scope
from app.credentials.gate import BELIEVED_SECONDS
from app.credentials.keys import NewKey
from app.db.engine import Connection
from app.errors import KeyNotFound, StartupError, StoreUnavailable, Unsealable
from app.sessions import DEFAULT_REALM
from app.settings import Settings

_T = TypeVar("_T")

cli = typer.Typer(
    name="suricate",
    help="Durable LLM agent sessions over HTTP and Server-Sent Events, on Postgres alone.",
    epilog="Settings come from the environment: SURICATE_… as listed in the README.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

keys_cli = typer.Typer(help="API keys: who may use the service from elsewhere.", no_args_is_help=True)
cli.add_typer(keys_cli, name="keys")

realms_cli = typer.Typer(help="Realms: the tenants.", no_args_is_help=True)
cli.add_typer(realms_cli, name="realms")

MOST_CONNECTIONS = 20_000
OTHER_FILES = 256  # beside connections of clients, of live turns and of the pool: tools, hooks, those that are being refused
COLLECT_EVERY = 50_000  # new containers; at Python's 700, looking for cycles takes a tenth of a busy server's time

COMMAND = "command"  # who acts, on the record

Host = Annotated[str | None, typer.Option(help="Address to listen on; SURICATE_HOST.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; SURICATE_PORT.", show_default="8000")]


Realm = Annotated[str, typer.Option(help="The tenant.")]
KeyId = Annotated[str, typer.Argument(help="As `keys list` shows it.")]


def main() -> None:
    """Run the command line."""
    cli()


@cli.command()
def serve(host: Host = None, port: Port = None) -> None:
    """Bring the database up to date, then serve HTTP and run turns until stopped."""
    settings = _settings(host=host, port=port)
    from app.api.protocol import Config, Limits  # the web framework is for this command alone
    from app.api.server import Server, listen
    from app.main.service import create_app

    try:
        app = create_app(settings)
        room = _room(settings)
        sock = listen(settings.host, settings.port)
    except StartupError as error:
        _refuse(error)
    address = _address(sock.getsockname()[:2])
    _collect_seldom()
    limits = Limits(
        request_seconds=settings.request_timeout_seconds,
        send_seconds=settings.sse_send_timeout_seconds,
        header_bytes=settings.max_header_bytes,
        connections=room,
    )
    server = Server(
        Config(app, limits),
        on_ready=lambda: _greet(address),
        on_stop=lambda: app.state.rooms.pool.close() if hasattr(app.state, "rooms") else None,
    )
    try:
        server.run(sockets=[sock])
    except SystemExit:
        if not hasattr(app.state, "startup_error"):
            raise
        _refuse(app.state.startup_error)


@cli.command()
def migrate() -> None:
    """Bring the database up to date, and stop."""
    settings = _settings()
    from app.main.rooms import migrate_only

    try:
        is_changed = asyncio.run(migrate_only(settings))
    except (StartupError, StoreUnavailable) as error:
        _refuse(error)
    typer.echo("The database was brought up to date." if is_changed else "The database is up to date.")


@cli.command()
def reseal() -> None:
    """Seal the secrets of all realms anew, with the first key of SURICATE_SEAL_KEYS; the others can be taken away then."""
    settings = _settings()
    from app.main.rooms import reseal_all

    try:
        count = asyncio.run(reseal_all(settings))
    except (StartupError, StoreUnavailable, Unsealable) as error:
        _refuse(error)
    typer.echo(f"Secrets sealed anew: {count}.")


@cli.command()
def worker() -> None:
    """Run turns without serving HTTP, until stopped."""
    settings = _settings()
    import uvloop

    _collect_seldom()
    try:
        _room(settings)
        uvloop.run(_work(settings))
    except (StartupError, StoreUnavailable) as error:
        _refuse(error)


@keys_cli.command("create")
def create_key(
    scope: Annotated[Scope, typer.Option(help="What it may: read, write (and read), or admin (everything).")],
    name: Annotated[str, typer.Option(help="What people call it.")] = "unnamed",
    realm: Realm = DEFAULT_REALM,
    days: Annotated[float | None, typer.Option(help="When it ends by itself; never otherwise.", min=0)] = None,
) -> None:
    """Make a key and print it, this once; from the first one on, the service asks everyone for a key."""

    async def act(db: Connection) -> dict[str, Any]:
        return await keys.create(db, NewKey(name, [scope], keys.in_days(days)), by=COMMAND)

    typer.echo(_keys(realm, "create", act)["key"])


@keys_cli.command("list")
def list_keys(realm: Realm = DEFAULT_REALM) -> None:
    """List a realm's keys, one a line, without their secrets."""
    for key in _keys(realm, None, keys.find):
        state = "revoked" if key["revoked_at"] else f"until {key['expires_at']}" if key["expires_at"] else "good"
        typer.echo(f"{key['key_id']}  {key['hint']}…  {','.join(key['scopes']):<6}  {state:<10}  {key['name']}")


@keys_cli.command("revoke")
def revoke_key(key_id: KeyId, realm: Realm = DEFAULT_REALM) -> None:
    """End a key for good; its streams end within thirty seconds."""
    _keys(realm, "revoke", lambda db: keys.revoke(db, key_id))
    typer.echo("The key is revoked.")


@keys_cli.command("rotate")
def rotate_key(
    key_id: KeyId,
    realm: Realm = DEFAULT_REALM,
    overlap: Annotated[float, typer.Option(help="Seconds for which the old one goes on to work.", min=0)] = 86_400,
) -> None:
    """Make a key that takes another's place, and print it."""
    made = _keys(realm, "rotate", lambda db: keys.rotate(db, key_id, overlap_seconds=overlap, by=COMMAND))
    typer.echo(made["key"])


@realms_cli.command("erase")
def erase_realm(
    realm: Annotated[str, typer.Argument(help="The tenant.")],
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase everything of a realm: sessions, keys, configuration, audit trail. Nothing brings it back."""
    if not is_sure:
        typer.confirm(f"Erase everything of the realm {realm!r} for good?", abort=True)
    _await(_erase(_settings(), realm))


async def _erase(settings: Settings, realm: str) -> None:
    from app import erasure
    from app.main.rooms import database_alone

    total = 0
    async with database_alone(settings) as database:
        async for rows in erasure.erase(database, realm, believed_seconds=BELIEVED_SECONDS):
            total += rows
            typer.echo(f"{total} rows", err=True)
        async with database.transaction(DEFAULT_REALM) as db:
            await audit.record(db, Act(COMMAND, "realms erase", {"realm": realm}))
    typer.echo(f"Nothing is left of the realm {realm}: {total} rows were erased.")


def _keys(realm: str, command: str | None, act: Callable[[Connection], Awaitable[_T]]) -> _T:
    """Do something with a realm's keys, on the record where it changes them."""
    settings = _settings()
    from app.main.rooms import database_alone

    async def work() -> _T:
        async with database_alone(settings) as database, database.transaction(realm) as db:
            done = await act(db)
            if command is not None:
                await audit.record(db, Act(COMMAND, f"keys {command}", {}))
            return done

    return _await(work())


def _await(work: Coroutine[Any, Any, _T]) -> _T:
    """Do a command's work, or say in a line why it cannot be done."""
    try:
        return asyncio.run(work)
    except ValueError:
        _refuse(StartupError("A realm's name is of a-z, 0-9, - and _, 63 characters at most."))
    except (StartupError, StoreUnavailable, KeyNotFound) as error:
        _refuse(error)


async def _work(settings: Settings) -> None:
    from app.main.rooms import open_rooms

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with open_rooms(settings, "worker"):
        typer.echo("Suricate runs turns. Ctrl-C stops it.")
        await stopped.wait()


def _room(settings: Settings) -> int:
    """Raise the limit of open files as far as it may and need be, and tell how many clients there is room for.

    Raises:
        StartupError: there is none for as many as the setting says.
    """
    soft, hard = (sys.maxsize if one == resource.RLIM_INFINITY else one for one in resource.getrlimit(resource.RLIMIT_NOFILE))
    others = settings.pool_size + settings.max_live_turns + OTHER_FILES
    needed = others + (settings.max_connections or MOST_CONNECTIONS)
    if soft < needed:
        soft = min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.RLIM_INFINITY if hard == sys.maxsize else hard))
    if settings.max_connections is None:
        return min(MOST_CONNECTIONS, max(soft - others, soft // 2))
    if soft < needed:
        raise StartupError(
            f"SURICATE_MAX_CONNECTIONS={settings.max_connections} needs {needed} open files, and the limit is {soft}. "
            "Raise it (ulimit -Hn, LimitNOFILE=), or lower the setting."
        )
    return settings.max_connections


def _collect_seldom() -> None:
    """Keep the garbage collector off what is there for good, and let it look for new cycles less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)


def _settings(**given: object) -> Settings:
    try:
        settings = settings_module.read()
    except StartupError as error:
        _refuse(error)
    redaction.learn(settings.secrets)
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    telemetry.configure_logging(threshold=settings.log_threshold, style=settings.log_format)
    return settings


def _greet(address: str) -> None:
    example = "-H 'Content-Type: application/json' -H 'Accept: text/event-stream' -d '{\"prompt\": \"Hello!\"}'"
    typer.echo(f"Suricate listens on {address}\nStream a first turn:\n\n  curl -N {address}/v1/sessions {example}\n")
    sys.stdout.flush()


def _address(name: tuple[str, int]) -> str:
    host, port = name
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refuse(error: Exception) -> NoReturn:
    typer.echo(redaction.redacted(f"suricate: {error}"), err=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
