"""The whole of a run: everything is started, loaded, broken, healed, brought to rest, probed, copied, and judged."""

import asyncio
import dataclasses
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import asyncpg
import orjson

from app import clock
from tests.torture import checker, fleet
from tests.torture.evidence import CIRCUMSTANCES
from tests.torture.fleet import Fleet
from tests.torture.nemesis import Nemesis
from tests.torture.plans import HAS_CALLS, HAS_FAULTS
from tests.torture.pool import SESSIONS
from tests.torture.processes import ROOT, Child, kept
from tests.torture.records import Book
from tests.torture.verdict import Verdict

DISK = Path("/var/tmp")  # where systems keep what is large and on a disk
PROGRESS_SECONDS = 10.0
LOOK_SECONDS = 0.5
SETTLE_SLACK_SECONDS = 60.0  # for what is queued: each turn of it has a lease and more
READ_ON_SECONDS = 3.0  # for watchers, to see what came last
WORK_SECONDS = 900.0  # for the probe, and for the copy
LIVE = "SELECT count(*) FROM turns WHERE status IN ('queued', 'running', 'waiting')"
EVENTS = "SELECT coalesce(sum(last_seq), 0)::bigint FROM sessions"

Say: TypeAlias = Callable[[str], None]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to be.

    Args:
        seconds: for which things are broken.
        rate: acts a second of all clients together; 0 is as many as go.
        sessions: on which clients work at a time.
        calling, faulty: shares of plans that call tools, and that have the provider fail.
        kinds, links: what is broken, as the nemesis takes them.
        code: the folder whose `app` is tortured.
    """

    folder: Path
    seconds: float
    seed: int = 1
    nodes: int = 3
    clients: int = 40
    watchers: int = 16
    rate: float = 0
    lease_seconds: float = 3
    sessions: int = SESSIONS
    calling: float = HAS_CALLS
    faulty: float = HAS_FAULTS
    kinds: Collection[str] | None = None
    links: str = ""
    code: Path = ROOT


@dataclass(slots=True)
class Tally:
    """Counts the requests that clients have written down, reading on where it stopped."""

    folder: Path
    requests: int = 0
    acknowledged: int = 0
    _read: dict[Path, int] = field(default_factory=dict)

    def count(self) -> None:
        """Count what is new."""
        for path in self.folder.glob("operations-*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                written = file.read()
            self._read[path] = self._read.get(path, 0) + len(written)
            self.requests += written.count(b"\n")
            self.acknowledged += written.count(b'"outcome":"ok"')


def fresh_folder() -> Path:
    """Make a folder for a run, with a short name, since sockets lie in it."""
    return Path(tempfile.mkdtemp(prefix="torture-", dir=DISK if DISK.is_dir() else None))


def to_its_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Do something, and heal and end everything also where a signal ends this process."""

    async def do() -> _T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    return asyncio.run(do())


async def torture(options: Options, say: Say) -> Verdict:
    """Do it all.

    Returns:
        The checker's verdict, and as violations also what ended without being told to.
    """
    async with fleet.running(
        options.folder, nodes=options.nodes, lease_seconds=options.lease_seconds, code=options.code
    ) as broken:
        told = dataclasses.asdict(options) | {"runners": broken.runners}
        (options.folder / CIRCUMSTANCES).write_bytes(orjson.dumps(told, default=str))
        say(f"{len(broken.members)} servers, {len(broken.network.names)} links, in {options.folder}")
        await _break(broken, options, say)
        await _work(broken, "probe", *_at(broken))
        await _work(broken, "collect", "--database-url", broken.postgres.dsn)
        deaths = [*broken.deaths, *(f"Postgres ended by itself: {tail}" for tail in broken.postgres.deaths)]
    say("checking")
    verdict = checker.check(options.folder)
    for death in deaths:
        verdict.add("nobody_ends_by_itself", death)
    return verdict


async def _break(broken: Fleet, options: Options, say: Say) -> None:
    """Load the fleet and break it for its time; return when it is healed and at rest."""
    with Book(options.folder / "faults.jsonl") as book:
        nemesis = Nemesis(broken, book, options.seed, kinds=options.kinds, links=options.links)
        async with _load(broken, options) as (clients, watchers), asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(_look_after(broken, clients, watchers)),
                tasks.create_task(_tell_progress(broken, nemesis, say)),
            ]
            await nemesis.run(options.seconds)
            say("healed; settling")
            await clients.say("settle")
            await _settle(broken, say)
            await asyncio.sleep(READ_ON_SECONDS)
            for task in beside:
                task.cancel()


@asynccontextmanager
async def _load(broken: Fleet, options: Options) -> AsyncIterator[tuple[Child, Child]]:
    common = (*_at(broken), "--folder", str(options.folder), "--seed", str(options.seed))
    load = {name: getattr(options, name) for name in ("clients", "rate", "sessions", "calling", "faulty")}
    of_clients = ("-m", "tests.torture.clients", *common, *(f"--{name}={value}" for name, value in load.items()))
    of_watchers = ("-m", "tests.torture.watchers", *common, "--watchers", str(options.watchers))
    async with (
        kept(await Child.start("clients", *of_clients, folder=options.folder)) as clients,
        kept(await Child.start("watchers", *of_watchers, folder=options.folder)) as watchers,
    ):
        yield clients, watchers


def _at(broken: Fleet) -> list[str]:
    return [word for name, url in broken.urls.items() for word in ("--node", f"{name}={url}")]


async def _look_after(broken: Fleet, *load: Child) -> None:
    """Start again who has ended, and give up where those that look on have."""
    while True:
        await broken.look_after()
        for child in load:
            if child.exit_status is not None:
                raise RuntimeError(f"{child.name} ended by itself; {child.log} says why")
        await asyncio.sleep(LOOK_SECONDS)


async def _tell_progress(broken: Fleet, nemesis: Nemesis, say: Say) -> None:
    began, tally, events = clock.monotonic(), Tally(broken.folder), 0
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        tally.count()
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            events = await broken.ask(EVENTS)
        say(
            f"{clock.monotonic() - began:6.0f} s  {tally.requests:>9,} requests  {tally.acknowledged:>9,} acknowledged"
            f"  {events:>10,} events  {nemesis.bitten.total()}/{nemesis.struck.total()} faults bit"
        )


async def _settle(broken: Fleet, say: Say) -> None:
    """Wait until no turn is live any more, or the time for it is over: then the checker finds those that are."""
    began = clock.monotonic()
    with suppress(TimeoutError):
        async with asyncio.timeout(broken.lease_seconds + 10 + SETTLE_SLACK_SECONDS):
            while await broken.ask(LIVE):
                await asyncio.sleep(LOOK_SECONDS)
    say(f"settled after {clock.monotonic() - began:.1f} s, {await broken.ask(LIVE)} turns live")


async def _work(broken: Fleet, part: str, *arguments: str) -> None:
    """Run a part of the run to its end."""
    command = ("-m", f"tests.torture.{part}", "--folder", str(broken.folder), *arguments)
    child = await Child.start(part, *command, folder=broken.folder)
    async with kept(child), asyncio.timeout(WORK_SECONDS):
        if await child.wait():
            raise RuntimeError(f"{part} failed; {child.log} says why")
