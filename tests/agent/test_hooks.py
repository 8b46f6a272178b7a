"""Asking the hooks of a point: order, denials, rewrites, failures, and those that nobody waits for."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from app.agent.hooks import Denial, Failure, Hooks, Outcome
from app.errors import AgentError, InvalidRequest
from app.hooks.background import Background
from app.hooks.base import MAX_BODY_BYTES, Capability, Hook, Point
from app.hooks.endpoint import Endpoint, url_of
from app.hooks.plugin import Plugin
from app.journal.asides import HookCompleted, HookDenied, HookFailed, HookRewriteApplied, HookStarted
from app.outbound.addresses import EVERYWHERE
from app.outbound.door import Door, Policy
from tests.hooks.receiver import SECRET, Received, deciding, receiving, whole

pytestmark = pytest.mark.anyio

ALLOW: dict[str, Any] = {"decision": "allow"}
DENY: dict[str, Any] = {"decision": "deny", "reason": "No."}


class Scribe:
    """Hooks in Python that note what they are asked, and answer as they are told to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def hook(self, hook_id: str, answer: Any, capability: Capability = "guardrail", **fields: Any) -> Hook:
        """Make one, for all points unless `points` is given."""

        async def function(payload: dict[str, Any]) -> Any:
            self.asked.append(payload)
            if isinstance(answer, Exception):
                raise answer
            return answer

        points = frozenset(fields.pop("points", ("turn_started", "pre_model_request", "pre_tool_execution", "turn_completed")))
        return Hook(hook_id, points, Plugin(function), capability, **fields)

    @property
    def ids(self) -> list[str]:
        """The hooks that were asked, in order."""
        return [payload["hook_id"] for payload in self.asked]


@pytest.fixture
def scribe() -> Scribe:
    return Scribe()


@pytest.fixture
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """Where hooks in the background run."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        yield group


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door(Policy(EVERYWHERE, allows_http=True))
    yield door
    await door.aclose()


async def run(
    *hooks: Hook, point: Point = "turn_started", payload: Mapping[str, Any] | None = None, check: Any = None
) -> Outcome:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        return await Hooks(hooks, Background(group)).run(point, payload or {}, check)
    raise AssertionError("cut off")


def names(outcome: Outcome) -> list[tuple[str, str]]:
    return [(event.type, getattr(event, "hook_id", "")) for event in outcome.events]


def rewriting(patch: Any) -> dict[str, Any]:
    return {"decision": "rewrite", "patch": patch}


async def test_hooks_are_asked_by_priority_and_then_in_order_of_registration(scribe: Scribe) -> None:
    outcome = await run(
        scribe.hook("c", ALLOW, priority=1), scribe.hook("b", ALLOW), scribe.hook("d", ALLOW, priority=1),
        scribe.hook("a", ALLOW, priority=-1),
    )  # fmt: skip

    assert scribe.ids == ["a", "b", "c", "d"]
    assert names(outcome)[:4] == [
        ("hook_started", "a"),
        ("hook_completed", "a"),
        ("hook_started", "b"),
        ("hook_completed", "b"),
    ]
    assert outcome.stop is None
    outcome.check()


async def test_only_hooks_of_the_point_are_asked(scribe: Scribe) -> None:
    hooks = [
        scribe.hook("a", ALLOW, points=["turn_completed"]),
        scribe.hook("b", ALLOW, points=["turn_started", "step_boundary"]),
    ]

    await run(*hooks, point="step_boundary", payload={"step": 3})

    assert scribe.asked == [{"step": 3, "point": "step_boundary", "hook_id": "b"}]


async def test_point_without_hooks_is_known_beforehand_and_changes_nothing(scribe: Scribe, tasks: asyncio.TaskGroup) -> None:
    hooks = Hooks([scribe.hook("a", ALLOW, points=["turn_completed"])], Background(tasks))

    assert (hooks.has("turn_completed"), hooks.has("turn_failed")) == (True, False)
    assert await hooks.run("turn_failed", {}) == Outcome([], {}, None)


async def test_deny_stops_the_rest_and_ends_the_turn(scribe: Scribe) -> None:
    outcome = await run(scribe.hook("a", ALLOW), scribe.hook("b", DENY), scribe.hook("c", ALLOW))

    assert scribe.ids == ["a", "b"]
    assert names(outcome)[2:] == [("hook_started", "b"), ("hook_completed", "b"), ("hook_denied", "b")]
    assert outcome.events[-1] == HookDenied("b", "turn_started", "No.")
    assert outcome.stop == Denial("b", "turn_started", "No.")
    assert outcome.tool_refusal is None
    with pytest.raises(AgentError, match=r"denied at turn_started: No\.") as caught:
        outcome.check()
    assert caught.value.reason == "HOOK_DENIED"


async def test_denied_tool_is_an_error_result_and_the_turn_goes_on(scribe: Scribe) -> None:
    outcome = await run(scribe.hook("a", DENY), point="pre_tool_execution", payload={"args": {}})

    assert outcome.tool_refusal == "The call was denied: No."
    outcome.check()


async def test_each_hook_sees_what_those_before_it_have_changed(scribe: Scribe) -> None:
    payload = {"max_tokens": None, "provider_params": {"temperature": 1}}
    first, second = {"provider_params": {"top_p": 1}}, {"max_tokens": 9, "provider_params": {"temperature": 0}}
    hooks = [
        scribe.hook("a", rewriting(first), "rewrite"),
        scribe.hook("b", rewriting(second), "rewrite"),
        scribe.hook("c", ALLOW),
    ]

    outcome = await run(*hooks, point="pre_model_request", payload=payload)

    assert [asked["provider_params"] for asked in scribe.asked] == [
        {"temperature": 1}, {"temperature": 1, "top_p": 1}, {"temperature": 0, "top_p": 1},
    ]  # fmt: skip
    assert outcome.patch == {"max_tokens": 9, "provider_params": {"top_p": 1, "temperature": 0}}
    assert HookRewriteApplied("b", "pre_model_request", ["max_tokens", "provider_params.temperature"]) in outcome.events
    assert payload == {"max_tokens": None, "provider_params": {"temperature": 1}}


async def test_hook_in_python_cannot_change_the_payload_by_hand() -> None:
    async def tamper(payload: dict[str, Any]) -> Any:
        payload["args"]["path"] = "/etc"
        return ALLOW

    payload = {"args": {"path": "/tmp"}}
    await run(
        Hook("a", frozenset({"pre_tool_execution"}), Plugin(tamper), "guardrail"), point="pre_tool_execution", payload=payload
    )

    assert payload == {"args": {"path": "/tmp"}}


@pytest.mark.parametrize("answer", [ValueError("canary"), None, {"decision": "maybe"}, rewriting({"text": "x"})])
@pytest.mark.parametrize("capability", ["guardrail", "rewrite"])
async def test_guardrail_and_rewriter_fail_closed(scribe: Scribe, capability: Capability, answer: Any) -> None:
    outcome = await run(scribe.hook("a", answer, capability), scribe.hook("b", ALLOW))

    assert names(outcome) == [("hook_started", "a"), ("hook_failed", "a")]
    assert isinstance(outcome.stop, Failure)
    with pytest.raises(AgentError) as caught:
        outcome.check()
    assert caught.value.reason == "HOOK_FAILED"
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("answer", [ValueError("canary"), None, {"decision": "maybe"}, DENY, rewriting({"text": "x"})])
async def test_observer_fails_open_and_can_neither_deny_nor_change(scribe: Scribe, answer: Any) -> None:
    outcome = await run(
        scribe.hook("a", answer, "observe"), scribe.hook("b", ALLOW), point="turn_completed", payload={"text": "t"}
    )

    assert names(outcome) == [("hook_started", "a"), ("hook_failed", "a"), ("hook_started", "b"), ("hook_completed", "b")]
    assert (outcome.stop, outcome.patch) == (None, {})
    outcome.check()


async def test_failed_guardrail_before_a_tool_ends_the_turn_too(scribe: Scribe) -> None:
    outcome = await run(scribe.hook("a", None), point="pre_tool_execution", payload={"args": {}})

    assert outcome.tool_refusal is None
    with pytest.raises(AgentError, match="pre_tool_execution"):
        outcome.check()


async def test_patch_that_the_loop_refuses_is_the_failure_of_its_hook(scribe: Scribe) -> None:
    def check(payload: Mapping[str, Any]) -> None:
        if payload["provider_params"] != {"temperature": 1}:
            raise InvalidRequest.at("provider_params.temperature", "canary")

    payload = {"provider_params": {"temperature": 1}}
    hook = scribe.hook("a", rewriting({"provider_params": {"temperature": 99}}), "rewrite")
    outcome = await run(hook, point="pre_model_request", payload=payload, check=check)

    assert names(outcome) == [("hook_started", "a"), ("hook_failed", "a")]
    assert outcome.patch == {}


@pytest.mark.parametrize("payload", [{"result": "x" * MAX_BODY_BYTES}, {"args": {"n": 2**80}}, {"text": "\ud800"}])
async def test_payload_that_no_hook_can_take_fails_before_it_is_sent(scribe: Scribe, payload: Any) -> None:
    outcome = await run(scribe.hook("a", ALLOW), payload=payload)

    assert scribe.asked == []
    assert names(outcome) == [("hook_started", "a"), ("hook_failed", "a")]


@pytest.mark.parametrize(
    ("answer", "hangs"),
    [(b"", True), (b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{", True), (whole(b"{}", status="503 No"), False)],
    ids=["silence", "a broken-off answer", "503"],
)
async def test_endpoint_that_does_not_answer_in_time_or_well_fails_closed(door: Door, answer: bytes, hangs: bool) -> None:
    async with receiving(answer, hangs=hangs) as receiver:
        asked = Endpoint(url_of(receiver.url), SECRET, door)
        outcome = await run(Hook("a", frozenset({"turn_started"}), asked, "guardrail", timeout_ms=100))

    (failed,) = [event for event in outcome.events if isinstance(event, HookFailed)]
    assert failed.error in {"The hook did not answer within 100 ms.", "The hook answered 503."}
    assert isinstance(outcome.stop, Failure)


async def test_endpoint_is_asked_and_its_rewrite_applied(door: Door) -> None:
    def shout(request: Received) -> bytes:
        return deciding(rewriting({"text": request.payload["text"].upper()}))

    async with receiving(shout) as receiver:
        asked = Endpoint(url_of(receiver.url), SECRET, door)
        hook = Hook("loud", frozenset({"turn_completed"}), asked, "rewrite")
        outcome = await run(hook, point="turn_completed", payload={"text": "paris", "session_id": "s"})

    assert receiver.requests[0].payload == {"text": "paris", "session_id": "s", "point": "turn_completed", "hook_id": "loud"}
    started, completed, applied = outcome.events
    assert started == HookStarted("loud", "turn_completed")
    assert isinstance(completed, HookCompleted)
    assert applied == HookRewriteApplied("loud", "turn_completed", ["text"])
    assert outcome.patch == {"text": "PARIS"}


async def test_hook_in_the_background_neither_delays_nor_changes_nor_is_told(tasks: asyncio.TaskGroup) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_payload: Any) -> Any:
        asked.set()
        await go_on.wait()
        return DENY

    hooks = Hooks([Hook("a", frozenset({"turn_started"}), Plugin(slow), "observe", "background")], Background(tasks))
    outcome = await hooks.run("turn_started", {})

    assert outcome == Outcome([], {}, None)
    await asked.wait()
    go_on.set()


async def test_cancelling_the_turn_cancels_its_hook(tasks: asyncio.TaskGroup) -> None:
    asked = asyncio.Event()

    async def slow(_payload: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    hooks = Hooks([Hook("a", frozenset({"turn_started"}), Plugin(slow), "observe")], Background(tasks))
    turn = tasks.create_task(hooks.run("turn_started", {}))
    await asked.wait()
    turn.cancel()

    with pytest.raises(asyncio.CancelledError):
        await turn
