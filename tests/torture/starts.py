"""Fifty callers start a turn in one session at the same moment, at all nodes, round after round; one of them must win.

./run torture starts [--rounds 1000] [--at-once 50] [--nodes 3] [--sessions 4]

The others are told that the session is busy, and the log shows the winner's turn and no other. An interrupt ends the round.
"""

import argparse
import asyncio
import itertools
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from tests.bench.wire import Answer, Connection, connect
from tests.torture import fleet, run
from tests.torture.fleet import Fleet
from tests.torture.plan import Plan

LEASE_SECONDS = 15.0
ROUND_SECONDS = 60.0
PROGRESS_ROUNDS = 100
JSON = {"accept": "application/json"}
AT_ONCE = JSON | {"prefer": "respond-async"}
LIVES = """SELECT coalesce(array_agg(type || ' ' || turn_id ORDER BY seq), '{}') FROM events
WHERE session_id = $1 AND type IN ('turn_started', 'turn_completed', 'turn_failed', 'turn_interrupted')"""


@dataclass(slots=True)
class Tally:
    """What came of it.

    Args:
        winners: rounds, by how many have won.
        answers: to starts and interrupts, by status and code.
        wrong_logs: sessions whose log shows other turns than those that won.
    """

    winners: Counter[int] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    wrong_logs: int = 0

    @property
    def is_right(self) -> bool:
        """Whether one has won each round, and all others were told so."""
        expected = {"202", "200", "409 SESSION_BUSY"}
        return self.winners.keys() == {1} and self.answers.keys() <= expected and not self.wrong_logs

    def lines(self) -> Iterator[str]:
        """Tell it."""
        yield f"{'rounds':<40} {self.winners.total():,}"
        yield f"{'requests':<40} {self.answers.total():,}"
        yield f"{'double winners':<40} {sum(rounds for winners, rounds in self.winners.items() if winners > 1):,}"
        yield f"{'rounds without a winner':<40} {self.winners[0]:,}"
        yield f"{'logs with other turns':<40} {self.wrong_logs:,}"
        for answer, times in sorted(self.answers.items()):
            yield f"  {answer:<38} {times:,}"


class Arena:
    """One session, and the connections of those who want its next turn."""

    def __init__(self, session_id: str, urls: Sequence[str], tally: Tally) -> None:
        self.session_id = session_id
        self.won: list[str] = []
        self._urls = urls
        self._tally = tally
        self._path = f"/v1/sessions/{session_id}"
        self._connections: dict[int, Connection] = {}

    async def play(self, plan: Plan) -> None:
        """Have all start at once, then stop the turn of who has won."""
        async with asyncio.timeout(ROUND_SECONDS):
            await self._connect()
            body = {"prompt": plan.prompt}
            callers = self._connections.values()
            answers = await asyncio.gather(
                *(one.request("POST", f"{self._path}/turns", body=body, headers=AT_ONCE) for one in callers)
            )
            won = [answer.json()["turn_id"] for answer in answers if answer.status < 300 and answer.is_complete]
            self.won += won
            if won:
                path = f"{self._path}/interrupt"
                answers.append(await self._connections[0].request("POST", path, body={}, headers=JSON))
        self._tally.answers.update(map(_told, answers))
        self._tally.winners[len(won)] += 1

    @property
    def lives(self) -> list[str]:
        """What the log is to show of its turns."""
        return [f"{kind} {turn_id}" for turn_id in self.won for kind in ("turn_started", "turn_interrupted")]

    async def _connect(self) -> None:
        """Open the connections that are not open, before the moment comes."""
        for place, url in enumerate(self._urls):
            if place not in self._connections or not self._connections[place].is_open:
                self._connections[place] = await connect(url)


def _told(answer: Answer) -> str:
    if not answer.is_complete:
        return "none"
    return str(answer.status) if answer.status < 300 else f"{answer.status} {orjson.loads(answer.body)['code']}"


async def race(given: argparse.Namespace, folder: Path) -> Tally:
    """Play all rounds on a fleet of their own, telling of each hundred."""
    tally, rounds = Tally(), iter(range(given.rounds))
    async with fleet.running(folder, nodes=given.nodes, lease_seconds=LEASE_SECONDS) as raced:
        nodes = [f"http://{raced.members[name].address}" for name in raced.urls]
        urls = list(itertools.islice(itertools.cycle(nodes), given.at_once))
        arenas = [Arena(await _create(nodes[0]), urls, tally) for _ in range(given.sessions)]

        async def play(arena: Arena) -> None:
            for number in rounds:
                await arena.play(Plan(f"r{number}", tokens=1000, rate=1))
                if tally.winners.total() % PROGRESS_ROUNDS == 0:
                    print(f"{tally.winners.total():>6,} rounds", flush=True)

        async with asyncio.TaskGroup() as tasks:
            for arena in arenas:
                tasks.create_task(play(arena))
        tally.wrong_logs = await _wrong_logs(raced, arenas)
    return tally


async def _create(url: str) -> str:
    connection = await connect(url)
    answer = await connection.request("POST", "/v1/sessions", body={"model": "double", "provider": "openai_compatible"})
    connection.close()
    return str(answer.json()["session_id"])


async def _wrong_logs(raced: Fleet, arenas: Sequence[Arena]) -> int:
    return sum([await raced.ask(LIVES, arena.session_id) != arena.lives for arena in arenas])


def main(arguments: Sequence[str] | None = None) -> int:
    """Race, print what came of it, and return 1 where a round had not one winner, or anything else was answered."""
    parser = argparse.ArgumentParser(prog="./run torture starts", description="Start turns at once; one must win each round.")
    parser.add_argument("--rounds", type=int, default=1000, help="of all sessions together")
    parser.add_argument("--at-once", type=int, default=50, help="starts in a round")
    parser.add_argument("--nodes", type=int, default=3, help="that serve; one worker comes with them")
    parser.add_argument("--sessions", type=int, default=4, help="side by side, each with rounds of its own")
    given, folder = parser.parse_args(arguments), run.fresh_folder()
    tally = run.to_its_end(race(given, folder))
    print("\n".join(tally.lines()))
    if tally.is_right:
        shutil.rmtree(folder)
        return 0
    print(f"all that was written down is in {folder}")
    return 1
