"""The sweep: a session's life, cut before and after every commit that it makes, one cut a life.

    ./run torture sweep            breaks the connection to Postgres there; the node lives on
    ./run torture sweep --kill     kills the node there; another takes over

A dry run lists the points. Those of the life itself are taken each, by name and count; reads, and what nodes do in the
background (renewals, polls, sweeps), once for each name, in the first quarter of a life. What comes minutes apart is not
among them. A point that did not come again, in three lives, has not been reached: that is counted apart, and is no survival.
"""

import argparse
import asyncio
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import orjson
import uvloop

from app import clock
from app.db import embedded
from tests.service import ROOT, Service
from tests.torture import inspection, tools
from tests.torture.asker import Asker
from tests.torture.processes import Mark
from tests.torture.scenario import Scenario
from tests.torture.wire import Point, Side, Trap, Wire, wire_to

Fate: TypeAlias = Literal["survived", "not reached", "failed"]

LEASE_SECONDS = 1.2
IDLE_SECONDS = 6.0  # in which all that nodes do by themselves comes at least once
LIVES_A_POINT = 3  # until a point counts as not reached
SIDES: Sequence[Side] = ("before", "after")
OF_THE_DRIVER = re.compile(r": read #|read pg_")  # what is asked of a connection because it is new


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one point.

    Args:
        why: of a failure: where it was noticed.
    """

    point: Point
    side: Side
    fate: Fate
    why: str = ""

    def __str__(self) -> str:
        return f"{self.fate}: {self.side} {self.point.name} ({self.point.nth})"


class Node:
    """A server behind a wire of its own, which is killed and started again."""

    def __init__(self, folder: Path, settings: Mapping[str, str], wire: Wire) -> None:
        self.wire = wire
        self.service: Service | None = None
        self._folder = folder
        self._settings = {**settings, "SURICATE_DATABASE_URL": wire.dsn}
        self._open = AsyncExitStack()

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self.service = await self._open.enter_async_context(Service.started(self._folder, self._settings))
        self._mark = Mark.of(self.service.process.pid)

    def kill(self) -> None:
        """End it as `kill -9` does, at once."""
        self.service = None
        self._mark.send(signal.SIGKILL)

    async def close(self) -> None:
        """See its end."""
        self.service = None
        await self._open.aclose()


class Ground:
    """The nodes, one of which is asked first and cut."""

    def __init__(self, folder: Path, nodes: Sequence[Node]) -> None:
        self._folder = folder
        self._nodes = nodes
        self._lives = 0

    async def idle(self, seconds: float) -> set[str]:
        """Return the names of what nodes do by themselves."""
        wire = self._nodes[0].wire
        wire.count_anew()
        await asyncio.sleep(seconds)
        return set(wire.counted)

    def turn_round(self) -> Node:
        """Begin a life; return who is asked first in it, each node in its turn."""
        self._lives += 1
        self._nodes = [*self._nodes[1:], self._nodes[0]]
        return self._nodes[0]

    def asker(self) -> Asker:
        """Give an asker for this life."""
        nodes = list(self._nodes)
        return Asker(lambda: [node.service for node in nodes if node.service], f"s{self._lives}")

    @property
    def counted(self) -> Counter[str]:
        """The points that the last life has passed."""
        return Counter(self._nodes[0].wire.counted)

    async def dry(self, lives: int) -> dict[str, int]:
        """Live so often without a cut; return the points that every life passes which has one of that name."""
        passed: list[Counter[str]] = []
        for _ in range(lives):
            why = await self._live(self.turn_round(), None)
            assert not why, why
            passed.append(self.counted)
        return {name: min(life[name] for life in passed if name in life) for name in set().union(*passed)}

    async def cut(self, point: Point, side: Side, *, is_kill: bool, lives: int = LIVES_A_POINT) -> Finding:
        """Cut lives at a point until one was, and tell what came of it."""
        for _ in range(lives):
            first = self.turn_round()
            trap = Trap(point, side, first.kill if is_kill else lambda: None)
            async with asyncio.TaskGroup() as tasks:
                reviving = tasks.create_task(_revive(first, trap)) if is_kill else None
                why = await self._live(first, trap)
                if reviving and not trap.has_sprung.is_set():
                    reviving.cancel()
            if why:
                return Finding(point, side, "failed", why)
            if trap.has_sprung.is_set():
                return Finding(point, side, "survived")
        return Finding(point, side, "not reached")

    async def _live(self, first: Node, trap: Trap | None) -> str:
        """Live one life; return why it is not as promised, or nothing."""
        asker = self.asker()
        scenario = Scenario(asker)
        first.wire.count_anew(trap)
        try:
            await scenario.play()
            first.wire.hold()
            for told in scenario.told:
                await inspection.inspect(asker, told)
            inspection.assert_doubles_saw_nothing_wrong(self._folder, f"{asker.mark}n")
        except Exception:  # noqa: BLE001 - whatever goes wrong in a life is a finding
            return f"{[told.session_id for told in scenario.told]}\n{traceback.format_exc()}"
        finally:
            first.wire.hold()
        return ""


async def _revive(node: Node, trap: Trap) -> None:
    await trap.has_sprung.wait()
    await node.close()
    await node.start()


@asynccontextmanager
async def opened(dsn: str, folder: Path, nodes: int) -> AsyncIterator[Ground]:
    """Start nodes on a database, each behind a wire, with the provider and the tools of a run."""
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(_double("provider", folder))
        described = tools.described(await stack.enter_async_context(_double("tools", folder)))
        (folder / "tools.json").write_bytes(orjson.dumps(described))
        settings = {
            "SURICATE_LEASE_SECONDS": str(LEASE_SECONDS),
            "SURICATE_OPENAI_COMPATIBLE_BASE_URL": f"{provider}/v1",
            "SURICATE_TOOLS_FILE": str(folder / "tools.json"),
            "SURICATE_OUTBOUND_INSIDE": '["127.0.0.1"]',
            "SURICATE_OUTBOUND_HTTP": "true",
        }
        started = [Node(folder, settings, await stack.enter_async_context(wire_to(dsn))) for _ in range(nodes)]
        for node in started:
            stack.push_async_callback(node.close)
        await asyncio.gather(*(node.start() for node in started))
        yield Ground(folder, started)


@asynccontextmanager
async def _double(name: str, folder: Path) -> AsyncIterator[str]:
    """Run a double, and tell where it listens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"tests.torture.{name}", "--folder", str(folder), "--until-stdin-closes",
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


def points_of(counted: Mapping[str, int], background: set[str]) -> list[Point]:
    """Choose what is cut: each commit of the life; reads and the background once."""
    return [
        Point(name, nth)
        for name, count in sorted(counted.items())
        if not OF_THE_DRIVER.search(name)
        for nth in ([(count + 3) // 4] if name in background or ": read" in name else range(1, count + 1))
    ]


async def sweep(given: argparse.Namespace, folder: Path) -> list[Finding]:
    """Cut at all the points that were asked for, telling of each."""
    async with (
        embedded.running(folder / "postgres") as server,
        opened(server.dsn, folder, nodes=2 if given.kill else 1) as ground,
    ):
        points = points_of(await ground.dry(lives=3), await ground.idle(IDLE_SECONDS))
        cuts = [(point, side) for point in points for side in SIDES if given.only in point.name]
        if given.sample:
            cuts = random.Random(given.seed).sample(cuts, min(given.sample, len(cuts)))
        findings: list[Finding] = []
        for number, (point, side) in enumerate(cuts, 1):
            began = clock.monotonic()
            finding = await ground.cut(point, side, is_kill=given.kill)
            print(f"{number}/{len(cuts)} {finding} [{clock.monotonic() - began:.1f} s]", flush=True)
            if finding.why:
                print(finding.why, flush=True)
            findings.append(finding)
    return findings


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run torture sweep", description="Cut a session's life at every commit.")
    parser.add_argument("--kill", action="store_true", help="kill the node there instead of cutting its connection")
    parser.add_argument("--only", default="", help="points whose names hold this, as a finding prints them")
    parser.add_argument("--sample", type=int, default=0, help="so many cuts, chosen at random; 0 takes all")
    parser.add_argument("--seed", type=int, default=0, help="of that choice")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep, print what came of it, and return 1 where a promise was broken."""
    given = _arguments(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # in order too, so that no process is left behind
    folder = Path(tempfile.mkdtemp(prefix="suricate-sweep-"))
    findings = uvloop.run(sweep(given, folder))
    fates = Counter(finding.fate for finding in findings)
    mode = "kill" if given.kill else "cut"
    reached = fates["survived"] + fates["failed"]
    print(f"{mode}: survived {fates['survived']} of {reached}, not reached {fates['not reached']}")
    for finding in findings:
        if finding.fate != "survived":
            print(f"  {finding}")
    if fates["failed"]:
        print(f"what nodes, provider and tools wrote is in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
