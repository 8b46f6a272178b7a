"""Points of a turn: which are asked again by a later attempt, and an override that does not fit any more."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, get_args

import orjson
import pytest

from app.agent.calls import MOST_AT_ONCE
from app.agent.emissions import Discard, Emission, Tell
from app.agent.hooks import Hooks
from app.agent.loop import Limits, Loop, Task
from app.agent.points import Panel, Points
from app.agent.transcript import Call
from app.errors import AgentError
from app.hooks import background
from app.hooks.background import Background
from app.hooks.base import Hook, Point
from app.hooks.configuration import NO_HOOKS
from app.hooks.registry import Registry as HookRegistry
from app.journal.types import ToolResultReceived
from app.messages import Message, Text, ToolResult, ToolUse
from app.outbound.door import Door, Policy
from app.tools.external import External
from app.tools.registry import Registry
from tests.agent.doubles import AT_ONCE, Acting, Book, Played, assert_valid, brief, call, carried_out, echo, task_of

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 5.0


class Watch:
    """Answers for a hook of all points, and notes where it was asked; denies at one of them."""

    def __init__(self, denies_at: str | None = None) -> None:
        self.asked: list[str] = []
        self._denies_at = denies_at

    async def answer(self, body: bytes) -> bytes:
        """Note the point, and decide."""
        self.asked.append(orjson.loads(body)["point"])
        is_denied = self.asked[-1] == self._denies_at
        return orjson.dumps({"decision": "deny", "reason": "No."} if is_denied else {"decision": "allow"})


@dataclass(frozen=True)
class Heard:
    """What an attempt said, and with what it stopped."""

    emissions: Sequence[Emission]
    error: AgentError | None


@pytest.fixture
async def beside() -> AsyncIterator[Background]:
    async with background.opened() as opened:
        yield opened


async def heard(task: Task, watch: Watch, beside: Background) -> Heard:
    """Carry out an attempt that calls no tool."""
    points = Points(Hooks([Hook("watch", frozenset(get_args(Point)), watch, "guardrail")], beside))
    limits = Limits(step_limit=10, tool_timeout_seconds=30, retries=AT_ONCE)
    emissions: list[Emission] = []

    def spawn(_work: Any) -> Any:
        raise AssertionError("no tool is called")

    try:
        async with aclosing(Loop(task, Registry([]), limits, spawn, points).run()) as said:
            async for emission in said:
                emissions.append(emission)  # noqa: PERF401 - what was said before an error counts
    except AgentError as error:
        return Heard(emissions, error)
    return Heard(emissions, None)


@pytest.mark.parametrize(
    ("progress", "first"),
    [({}, "turn_started"), ({"is_new": False}, "pre_model_request"), ({"is_new": False, "steps": 1}, "step_boundary")],
)
async def test_attempt_asks_for_the_beginning_only_where_no_step_has_begun(
    progress: dict[str, Any], first: str, beside: Background
) -> None:
    watch = Watch()

    await heard(task_of(Played([brief("Paris.")]), **progress), watch, beside)

    assert watch.asked[0] == first
    assert watch.asked.count("turn_started") == (first == "turn_started")


@pytest.mark.parametrize("point", ["post_model_response", "turn_completed"])
async def test_refused_answer_is_discarded_after_its_denial_is_told(point: str, beside: Background) -> None:
    said = await heard(task_of(Played([brief("Paris.")])), Watch(point), beside)

    told, discard = said.emissions[-2:]
    assert isinstance(told, Tell)
    assert told.events[-1].type == "hook_denied"
    assert discard == Discard(1, "HOOK_DENIED")
    assert said.error is not None


async def test_denial_before_an_answer_discards_nothing(beside: Background) -> None:
    said = await heard(task_of(Played([])), Watch("pre_model_request"), beside)

    assert [type(emission) for emission in said.emissions] == [Tell]


@dataclass
class Meeting:
    """Answers for a hook that allows a call once so many are asked about, and denies or fails others by their arguments."""

    size: int
    asked: list[dict[str, Any]] = field(default_factory=list)
    are_all: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, body: bytes) -> bytes:
        """Wait for the others, and answer with the call's own word."""
        payload = orjson.loads(body)
        self.asked.append(payload)
        if len(self.asked) == self.size:
            self.are_all.set()
        await self.are_all.wait()
        return orjson.dumps({"decision": payload["args"].get("say", "allow")})

    def points(self, point: Point, beside: Background) -> Points:
        """Return an attempt's points with this hook."""
        return Points(Hooks([Hook("meeting", frozenset({point}), self, "guardrail")], beside))


def calls(*args: str) -> Played:
    """Make a model that asks for calls of one tool, and is content."""
    return Played([brief(*(call(args=one, index=place) for place, one in enumerate(args))), brief("Done.")])


@pytest.mark.parametrize("point", ["pre_tool_execution", "post_tool_execution"])
async def test_calls_of_a_step_are_asked_about_side_by_side(point: Point, beside: Background) -> None:
    meeting = Meeting(MOST_AT_ONCE)

    book = await carried_out(task_of(calls(*["{}"] * MOST_AT_ONCE)), [Acting(echo)], points=meeting.points(point, beside))

    assert book.types[-1] == "turn_completed"
    assert book.types.count("hook_completed") == MOST_AT_ONCE
    assert [event.id for event in book.of(ToolResultReceived)] == [f"call-{place}" for place in range(MOST_AT_ONCE)]
    assert_valid(book.messages)


async def test_failed_question_ends_the_turn_once_all_have_been_asked_about_and_no_call_runs(beside: Background) -> None:
    meeting, tool, book = Meeting(2), Acting(echo), Book()
    provider = calls('{"say": "nonsense"}', "{}")

    with pytest.raises(AgentError, match="meeting failed"):
        await carried_out(task_of(provider), [tool], book=book, points=meeting.points("pre_tool_execution", beside))

    assert (tool.runs, book.types.count("hook_failed"), book.types.count("hook_completed")) == ([], 1, 1)


@pytest.mark.parametrize(("pending", "asked"), [(None, 1), ("approval", 0)])
async def test_call_that_has_waited_for_leave_was_decided_before(pending: Any, asked: int, beside: Background) -> None:
    meeting, tool = Meeting(1), Acting(echo)
    history = [Message("user", (Text("Hello"),)), Message("assistant", (ToolUse("a", "echo", {"n": 1}),), "tool_use")]
    left = [Call("a", "echo", {"n": 2}, pending=pending, is_allowed=True)]
    task = task_of(Played([brief("Done.")]), history, open_calls=left, steps=1, is_new=False)

    await carried_out(task, [tool], points=meeting.points("pre_tool_execution", beside))

    assert (len(meeting.asked), tool.runs) == (asked, [{"n": 2}])


async def test_callers_call_that_was_denied_before_has_no_result_to_ask_about(beside: Background) -> None:
    meeting = Meeting(1)
    history = [Message("user", (Text("Hello"),)), Message("assistant", (ToolUse("a", "echo", {}),), "tool_use")]
    left = [Call("a", "echo", {}, result=ToolResult("a", "Denied.", is_error=True))]
    task = task_of(Played([brief("Done.")]), history, open_calls=left, steps=1, is_new=False)
    tools = [External.of({"name": "echo", "description": "Echoes.", "input_schema": {"type": "object"}})]

    await carried_out(task, tools, points=meeting.points("post_tool_execution", beside))

    assert meeting.asked == []


async def test_override_that_does_not_fit_any_more_fails_the_turn(beside: Background) -> None:
    door = Door(Policy())
    panel = Panel(HookRegistry(NO_HOOKS, door, door), beside)

    with pytest.raises(AgentError) as caught:
        panel.points({"disable": ["gone"]}, {})

    assert caught.value.reason == "HOOK_FAILED"


async def test_hooks_that_are_still_asked_are_cancelled_when_the_house_closes() -> None:
    began, was_cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled.set()

    async with asyncio.timeout(LIMIT_SECONDS), background.opened() as opened:
        opened.start("slow", work())
        await began.wait()

    assert was_cancelled.is_set()
