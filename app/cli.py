"""The commands: `serve`, `migrate`, `worker`. They read the settings, build the house, and say what a person needs to know."""

import asyncio
import gc
import signal
import sys
from typing import Annotated, NoReturn

import typer

from app import settings as settings_module
from app import telemetry
from app.errors import StartupError, StoreUnavailable
from app.settings import Settings

cli = typer.Typer(
    name="suricate",
    help="Durable LLM agent sessions over HTTP and Server-Sent Events, on Postgres alone.",
    epilog="Settings come from the environment: SURICATE_… as listed in the README.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COLLECT_EVERY = 50_000  # new containers; at Python's 700, looking for cycles takes a tenth of a busy server's time

Host = Annotated[str | None, typer.Option(help="Address to listen on; SURICATE_HOST.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; SURICATE_PORT.", show_default="8000")]


def main() -> None:
    """Run the command line."""
    cli()


@cli.command()
def serve(host: Host = None, port: Port = None) -> None:
    """Bring the database up to date, then serve HTTP and run turns until stopped."""
    settings = _settings(host=host, port=port)
    from app.api.server import Config, Server, listen  # the web framework is for this command alone
    from app.main import create_app

    try:
        app = create_app(settings)
        sock = listen(settings.host, settings.port)
    except StartupError as error:
        _refuse(error)
    address = _address(sock.getsockname()[:2])
    _collect_seldom()
    server = Server(
        Config(app, send_timeout_seconds=settings.sse_send_timeout_seconds),
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
    from app.main import migrate_only

    try:
        is_changed = asyncio.run(migrate_only(settings))
    except (StartupError, StoreUnavailable) as error:
        _refuse(error)
    typer.echo("The database was brought up to date." if is_changed else "The database is up to date.")


@cli.command()
def worker() -> None:
    """Run turns without serving HTTP, until stopped."""
    settings = _settings()
    import uvloop

    _collect_seldom()
    try:
        uvloop.run(_work(settings))
    except (StartupError, StoreUnavailable) as error:
        _refuse(error)


async def _work(settings: Settings) -> None:
    from app.main import open_rooms

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with open_rooms(settings, "worker"):
        typer.echo("Suricate runs turns. Ctrl-C stops it.")
        await stopped.wait()


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
    typer.echo(f"suricate: {error}", err=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
