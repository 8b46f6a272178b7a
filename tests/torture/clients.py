"""The clients of a run: all acts of the contract on a moving set of sessions, each request at a random node.

    python -m tests.torture.clients --folder F --node n1=http://… --node n2=http://… --seed S --clients C [--rate R]

At the line `settle` on stdin they begin nothing new and only answer calls that wait; when stdin closes they end.
"""

import argparse
import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeAlias

import uvloop

from app import clock, ids
from tests.torture import acts, lines, outside, plans, reads
from tests.torture.caller import Act, Caller, Told
from tests.torture.plan import Plan
from tests.torture.pool import SESSIONS, Known, Pool
from tests.torture.records import Book

HAS_KEY = 0.9
CHANGES_ITS_MIND = 0.3
SETTLING_PAUSE_SECONDS = 0.3
SETTLING_CLIENTS = 2  # of their own, since the others may still be in the middle of something
ON_BUSY = {"queue": 4, "reject": 2, "steer": 2, "interrupt": 1}
WAYS = {"async": 6, "plain": 1, "wait": 1, "stream": 2}

Draws: TypeAlias = Callable[[str, random.Random], Plan]


class Client:
    """One of them: an act after the other, drawn by weight."""

    def __init__(self, number: int, given: argparse.Namespace, draws: Draws, book: Book, pool: Pool) -> None:
        self._rng = random.Random(f"{given.seed} {number}")
        self._prefix = f"{given.seed}c{number}"
        self._caller = Caller(f"c{number}", dict(given.node), book, self._rng)
        self._draws = draws
        self._pool = pool
        self._count = 0
        self._acts: dict[Callable[[Known], Awaitable[object]], float] = {
            self._start: 34, self._answer: 14, self._read: 30, self._interrupt: 7, self._edit: 1, self._cancel: 1,
            self._change: 4, self._archive: 0.7, self._compact: 1, self._fork: 0.7, self._bring_in: 0.2, self._erase: 0.3,
        }  # fmt: skip

    async def work(self, is_settling: asyncio.Event, seconds_an_act: float) -> None:
        """Act until the run settles."""
        while not is_settling.is_set():
            began = clock.monotonic()
            if self._pool.is_short:
                await self._create()
            else:
                [act] = self._rng.choices(list(self._acts), list(self._acts.values()))
                await self._on(act)
            await asyncio.sleep(max(0.0, began + seconds_an_act - clock.monotonic()))

    async def settle(self) -> None:
        """Answer what waits until cancelled."""
        while True:
            await self._answer_waiting(lambda _waiting: True)
            await asyncio.sleep(SETTLING_PAUSE_SECONDS)

    async def _on(self, act: Callable[[Known], Awaitable[object]]) -> None:
        known = self._pool.pick()
        if known.is_archived and self._rng.random() < 0.5:
            if (await self._do(acts.unarchive(known, self._key()))).outcome == "ok":
                known.is_archived = False
            return
        await act(known)

    async def _create(self) -> None:
        has_plan = self._rng.random() < 0.6
        plan = self._plan() if has_plan else None
        told = await self._do(acts.create(self._key(), plan, is_kept=not has_plan and self._rng.random() < 0.3))
        self._take_in(told)

    async def _start(self, known: Known) -> None:
        plan, on_busy, [way] = self._plan(), self._draw(ON_BUSY), self._rng.choices(list(WAYS), list(WAYS.values()))
        self._pool.started(known)
        if {"ask", "guarded"} & {tool for step in plan.calls for tool in step} and way != "stream":
            way = "async"  # nobody is to wait for what it may have to answer itself
        told = await self._do(acts.start(known, self._key(), plan, on_busy, way))
        if told.facts.get("turn_status") == "queued" and self._rng.random() < CHANGES_ITS_MIND:
            await self._rng.choice([self._edit, self._cancel])(known)

    async def _answer(self, _known: Known) -> None:
        await self._answer_waiting(lambda waiting: self._rng.random() < 3 / len(waiting))

    async def _answer_waiting(self, takes: Callable[[Sequence[Any]], bool]) -> None:
        """Answer calls of some of the sessions that wait: all at once, or one by one."""
        listed = await self._do(reads.listed("status=waiting", reads.MOST_LISTED))
        if listed.outcome != "ok":
            return
        waiting = listed.body["sessions"]
        for one in [one for one in waiting if takes(waiting)]:
            known = self._pool.find(one["session_id"])
            found = await self._do(reads.turns(known, "status=waiting"))
            for turn in found.body["turns"] if found.outcome == "ok" else ():
                await self._give(known, turn["pending_tool_calls"])

    async def _give(self, known: Known, pending: Sequence[Any]) -> None:
        mine = [call["id"] for call in pending if call["kind"] == "external"]
        if mine and self._rng.random() < 0.3:
            mine = mine[:1]
        if mine:
            key = self._key()
            await self._do(acts.answer(known, key, {call_id: f"{self._prefix} answers {call_id}" for call_id in mine}))
        for call in pending:
            if call["kind"] == "approval":
                decision = "allow" if self._rng.random() < 0.8 else "deny"
                await self._do(acts.decide(known, self._key(), call["id"], decision))

    async def _read(self, known: Known) -> None:
        kinds = {"session": 4, "events": 3, "messages": 2, "turns": 2, "list": 1, "export": 0.2}
        match self._draw(kinds):
            case "session":
                await self._do(reads.session(known))
            case "events":
                await self._do(reads.events(known, self._rng.randint(0, known.seen_seq)))
            case "messages":
                await self._do(reads.messages(known))
            case "turns":
                await self._do(reads.turns(known))
            case "list":
                await self._do(reads.listed(self._rng.choice(["", "order=-created_at", "status=running"]), 20))
            case _:
                await self._do(reads.export(known))

    async def _interrupt(self, known: Known) -> None:
        await self._do(acts.interrupt(known, self._key(), "now" if self._rng.random() < 0.75 else "after_step"))

    async def _edit(self, known: Known) -> None:
        if known.queued:
            await self._do(acts.edit(known, known.queued[-1], self._plan()))

    async def _cancel(self, known: Known) -> None:
        if known.queued:
            await self._do(acts.cancel(known, known.queued.pop()))

    async def _change(self, known: Known) -> None:
        self._count += 1
        await self._do(acts.change(known, f"{self._prefix} titles {self._count}"))

    async def _archive(self, known: Known) -> None:
        if (await self._do(acts.archive(known, self._key()))).outcome == "ok":
            known.is_archived = True

    async def _compact(self, known: Known) -> None:
        await self._do(acts.compact(known, self._key()))

    async def _fork(self, known: Known) -> None:
        self._take_in(await self._do(acts.fork(known, self._key())))

    async def _bring_in(self, known: Known) -> None:
        told = await self._do(reads.export(known))
        if told.outcome == "ok":
            self._take_in(await self._do(acts.bring_in(told.body, ids.session_id(), self._key())))

    async def _erase(self, known: Known) -> None:
        self._pool.doom(known)
        await self._do(acts.erase(known))

    async def _do(self, act: Act) -> Told:
        return await self._caller.do(act)

    def _take_in(self, told: Told) -> None:
        if told.outcome == "ok":
            self._pool.add(told.facts["session_id"])

    def _draw(self, weights: Mapping[str, float]) -> str:
        [drawn] = self._rng.choices(list(weights), list(weights.values()))
        return drawn

    def _key(self) -> str | None:
        self._count += 1
        return f"{self._prefix}k{self._count}" if self._rng.random() < HAS_KEY else None

    def _plan(self) -> Plan:
        self._count += 1
        return self._draws(f"{self._prefix}n{self._count}", self._rng)


async def _run(given: argparse.Namespace) -> None:
    pool, is_settling = Pool(random.Random(given.seed), given.sessions), asyncio.Event()
    seconds_an_act = given.clients / given.rate if given.rate else 0
    with ExitStack() as stack:
        all_numbers = range(given.clients + SETTLING_CLIENTS)
        books = [stack.enter_context(Book(given.folder / f"operations-c{number}.jsonl")) for number in all_numbers]
        draws = partial(plans.drawn, calling=given.calling, faulty=given.faulty)
        clients = [Client(number, given, draws, book, pool) for number, book in enumerate(books)]
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(client.work(is_settling, seconds_an_act)) for client in clients[: given.clients]]
            async for line in lines.heard():
                if line == "settle" and not is_settling.is_set():
                    is_settling.set()
                    working += [tasks.create_task(client.settle()) for client in clients[given.clients :]]
            for task in working:
                task.cancel()


def main() -> None:
    """Work until stdin closes."""
    parser = outside.parser("clients", __doc__)
    parser.add_argument("--seed", type=int, default=1, help="what is drawn follows from it")
    parser.add_argument("--clients", type=int, default=40, help="requests at once")
    parser.add_argument("--rate", type=float, default=0, help="acts a second of all clients together; 0: as many as go")
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="that they work on at a time")
    parser.add_argument("--calling", type=float, default=plans.HAS_CALLS, help="share of plans that call tools")
    parser.add_argument("--faulty", type=float, default=plans.HAS_FAULTS, help="share of plans that have the provider fail")
    uvloop.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
