"""Points of a turn: which are asked again by a later attempt, and an override that does not fit any more."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, get_args

import orjson
import pytest

from app.agent.emissions import Discard, Emission, Tell
from app.agent.hooks import Hooks
from app.agent.loop import Limits, Loop, Task
from app.agent.points import Panel, Points
from app.errors import AgentError
from app.hooks import background
from app.hooks.background import Background
from app.hooks.base import Hook, Point
from app.hooks.configuration import NO_HOOKS
from app.hooks.registry import Registry as HookRegistry
from app.providers.transport import Transport
from app.tools.registry import Registry
from tests.agent.doubles import AT_ONCE, Played, brief, task_of

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


async def test_override_that_does_not_fit_any_more_fails_the_turn(beside: Background) -> None:
    async with Transport() as transport:
        panel = Panel(HookRegistry(NO_HOOKS, transport), beside)

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
