"""One life of a session, played over HTTP: all that a commit can be about.

What its caller was told is kept, so that it can be held against what there is in the end.
"""

import asyncio
import itertools
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.service import Frame, read_frames
from tests.torture.asker import Asker
from tests.torture.plan import Plan

STAGE_SECONDS = 12.0  # for a turn to come so far: a short lease, and the ten seconds after it that are promised
PAUSE_SECONDS = 0.02
ENDED = frozenset({"completed", "failed", "interrupted", "cancelled"})
ASK = {"name": "ask", "description": "Asks the caller.", "input_schema": {"type": "object"}}
SESSION = {"model": "double", "provider": "openai_compatible", "system_prompt": "Be brief.", "external_tools": [ASK],
           "approval_tools": ["guarded"]}  # fmt: skip


@dataclass
class Kept:
    """A turn that was acknowledged.

    Args:
        plans: ids of the plans that its prompts hold, in their order.
        ends: the statuses that it may end with.
    """

    plans: list[str]
    ends: frozenset[str]


@dataclass
class Told:
    """What a caller was told of one session.

    Args:
        turns: by their ids.
        copied_turns: how many it has from another session.
        frames: what a reader was shown.
    """

    session_id: str
    turns: dict[str, Kept] = field(default_factory=dict)
    copied_turns: int = 0
    compactions: int = 0
    frames: list[Frame] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The session's route."""
        return f"/v1/sessions/{self.session_id}"


class Scenario:
    """Plays a session's life and that of its copy, which `told` has."""

    def __init__(self, asker: Asker) -> None:
        self.told: list[Told] = []
        self._asker = asker
        self._plans = itertools.count()

    async def play(self) -> None:
        """Play all of it, with a reader."""
        session = await self._create()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(session))
            await self._answer_calls(session)
            await self._queue_and_interrupt(session)
            await self._steer(session)
            await self._stop_after_step(session)
            await self._sum_up(session)
            await self._archive(session)
            await self._copy(session)
            await self._run(session, self._plan())
            await self._asker.patch(session.path, {"title": "The end"})

    def _plan(self, **said: Any) -> Plan:
        return Plan(f"{self._asker.mark}n{next(self._plans)}", **{"tokens": 4, **said})

    async def _create(self) -> Told:
        plan = self._plan(calls=[["effect", "lookup"]])
        created = await self._asker.post("/v1/sessions", {**SESSION, "prompt": plan.prompt}, prefer="respond-async")
        session = Told(created["session_id"])
        self.told.append(session)
        session.turns[created["turn"]["turn_id"]] = Kept([plan.id], frozenset({"completed"}))
        await self._until(created["turn"], ENDED)
        return session

    async def _answer_calls(self, session: Told) -> None:
        turn = await self._start(session, self._plan(calls=[["ask"]]))
        [call] = (await self._until(turn, {"waiting"}))["pending_tool_calls"]
        results = [{"tool_call_id": call["id"], "content": "yes"}]
        await self._asker.post(f"{session.path}/tool_results", {"results": results})
        await self._until(turn, ENDED)
        turn = await self._start(session, self._plan(calls=[["guarded", "effect"]]))
        [call] = (await self._until(turn, {"waiting"}))["pending_tool_calls"]
        await self._asker.post(f"{session.path}/approvals/{call['id']}", {"decision": "allow"})
        await self._until(turn, ENDED)

    async def _queue_and_interrupt(self, session: Told) -> None:
        live = await self._start(session, self._plan(tokens=99, rate=2), "interrupted")
        edited, removed = [
            await self._start(session, self._plan(), status, on_busy="queue") for status in ("completed", "cancelled")
        ]
        other = self._plan()
        await self._asker.patch(_path(edited), {"prompt": other.prompt})
        session.turns[edited["turn_id"]].plans = [other.id]
        await self._asker.delete(_path(removed), gone=409)
        await self._spoken(live)
        ended = await self._asker.post(f"{session.path}/interrupt", {"reason": "Enough."})
        assert (ended["turn_id"], ended["status"]) == (live["turn_id"], "interrupted")
        await self._until(edited, ENDED)

    async def _steer(self, session: Told) -> None:
        """Say more to a live turn; said too late it is a turn of its own."""
        live = await self._start(session, self._plan(tokens=4, rate=8))
        more = self._plan()
        steered = await self._asker.post(
            f"{session.path}/turns", {"prompt": more.prompt, "on_busy": "steer"}, prefer="respond-async"
        )
        if steered["turn_id"] == live["turn_id"]:
            session.turns[live["turn_id"]].plans.append(more.id)
        else:
            session.turns[steered["turn_id"]] = Kept([more.id], frozenset({"completed"}))
        await self._until(live, ENDED)
        await self._until(steered, ENDED)

    async def _stop_after_step(self, session: Told) -> None:
        live = await self._start(session, self._plan(reasoning=4, rate=8, calls=[["lookup"]]), "interrupted", "completed")
        ended = await self._asker.post(f"{session.path}/interrupt", {"mode": "after_step"})
        assert ended["turn_id"] == live["turn_id"]
        assert ended["status"] in {"interrupted", "completed"}

    async def _sum_up(self, session: Told) -> None:
        await self._asker.post(f"{session.path}/compact")
        session.compactions += 1

    async def _archive(self, session: Told) -> None:
        live = await self._start(session, self._plan(tokens=99, rate=2), "interrupted")
        await self._start(session, self._plan(), "cancelled", on_busy="queue")
        await self._spoken(live)
        await self._asker.post(f"{session.path}/archive")
        await self._asker.post(f"{session.path}/unarchive")

    async def _copy(self, session: Told) -> None:
        """Fork, export the fork, erase it, and resume it from its document."""
        fork = Told((await self._asker.post(f"{session.path}/fork"))["session_id"])
        document = await self._asker.read(f"{fork.path}/export")
        await self._asker.delete(fork.path, gone=404)
        resumed = await self._asker.post("/v1/sessions", {"resume_session": document})
        assert resumed["session_id"] == fork.session_id
        fork.copied_turns = len(session.turns)
        self.told.append(fork)
        await self._run(fork, self._plan(calls=[["effect"]]))

    async def _run(self, session: Told, plan: Plan) -> None:
        """Take a turn and wait for its end in one request."""
        turn = await self._asker.post(f"{session.path}/turns", {"prompt": plan.prompt})
        session.turns[turn["turn_id"]] = Kept([plan.id], frozenset({"completed"}))
        await self._until(turn, ENDED)

    async def _start(self, session: Told, plan: Plan, *ends: str, **fields: str) -> dict[str, Any]:
        turn = await self._asker.post(f"{session.path}/turns", {"prompt": plan.prompt, **fields}, prefer="respond-async")
        session.turns[turn["turn_id"]] = Kept([plan.id], frozenset(ends or {"completed"}))
        return turn

    async def _until(self, turn: dict[str, Any], statuses: "set[str] | frozenset[str]") -> dict[str, Any]:
        """Return a turn once it has one of these statuses."""
        async with asyncio.timeout(STAGE_SECONDS):
            while (view := await self._asker.read(_path(turn)))["status"] not in statuses:
                await asyncio.sleep(PAUSE_SECONDS)
        found: dict[str, Any] = view
        return found

    async def _spoken(self, turn: dict[str, Any]) -> None:
        """Return once a turn has said something."""
        async with asyncio.timeout(STAGE_SECONDS):
            while not (await self._asker.read(f"{_path(turn)}/events?types=text_delta"))["events"]:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _follow(self, session: Told) -> None:
        """Read the session's events to the last, coming back whenever a connection ends."""
        while not (session.frames and session.frames[-1].event == "session_updated"):
            with suppress(httpx2.TransportError):
                await self._read_on(session)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _read_on(self, session: Told) -> None:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(session.frames[-1].id or 0 if session.frames else 0)}
        [node, *_] = self._asker.nodes()
        async with node.client.stream("GET", f"{session.path}/events", headers=headers) as answer:
            if answer.status_code != 200:
                return
            async for frame in read_frames(answer):
                if frame.id is not None:
                    session.frames.append(frame)
                if frame.event == "session_updated":
                    return


def _path(turn: dict[str, Any]) -> str:
    return f"/v1/sessions/{turn['session_id']}/turns/{turn['turn_id']}"
