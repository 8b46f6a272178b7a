"""The hooks of one session, asked one after the other at a point of its turn.

Nothing is written here: what happened is returned, and the loop tells it, applies the patch, and ends the turn or answers the
call. Each hook sees the payload as those before it have left it. A deny, or a failure of one that may deny, stops the rest.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, assert_never

import orjson
import structlog

from app import clock, redaction
from app.errors import AgentError, InvalidRequest
from app.hooks import decisions
from app.hooks.background import Background
from app.hooks.base import MAX_BODY_BYTES, Hook, HookFault, Point
from app.hooks.decisions import Allow, Decision, Deny, Rewrite
from app.journal.asides import HookCompleted, HookDenied, HookFailed, HookRewriteApplied, HookStarted
from app.journal.event import Event

log: structlog.stdlib.BoundLogger = structlog.get_logger()

Check: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Accepts a payload as a patch has made it, or raises InvalidRequest."""


@dataclass(frozen=True, slots=True)
class Denial:
    """A hook said no."""

    hook_id: str
    point: Point
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A hook that may deny or change gave no decision."""

    hook_id: str
    point: Point
    error: str


@dataclass(slots=True)
class Outcome:
    """What came of asking.

    Args:
        events: what to tell, in order.
        patch: what to go on with instead, by the payload's names; empty where nothing changes. Void where there is a stop.
        stop: why not to go on; None goes on.
    """

    events: list[Event] = field(default_factory=list)
    patch: Mapping[str, Any] = field(default_factory=dict)
    stop: Denial | Failure | None = None

    @property
    def tool_refusal(self) -> str | None:
        """What a model reads as the error result of a tool call that was denied; None where none was."""
        if isinstance(self.stop, Denial) and self.stop.point == "pre_tool_execution":
            return f"The call was denied: {self.stop.reason}"
        return None

    def check(self) -> None:
        """Let the turn go on, also where only a tool call was denied.

        Raises:
            AgentError: `HOOK_DENIED` or `HOOK_FAILED`; the turn ends with it, after `events` were told.
        """
        if isinstance(self.stop, Failure):
            raise AgentError("HOOK_FAILED", f"The hook {self.stop.hook_id} failed at {self.stop.point}: {self.stop.error}")
        if self.stop is not None and self.tool_refusal is None:
            raise AgentError("HOOK_DENIED", f"The hook {self.stop.hook_id} denied at {self.stop.point}: {self.stop.reason}")


class Hooks:
    """Asks the hooks that hold for a session; has no state of its own, so that points may overlap.

    Args:
        hooks: in order of registration.
        background: where those run that the turn does not wait for.
    """

    def __init__(self, hooks: Sequence[Hook], background: Background) -> None:
        self._hooks = sorted(hooks, key=lambda hook: hook.priority)
        self._background = background

    def has(self, point: Point) -> bool:
        """Tell whether anyone is asked at a point; building a payload for no one is not worth it."""
        return any(point in hook.points for hook in self._hooks)

    async def run(self, point: Point, payload: Mapping[str, Any], check: Check | None = None) -> Outcome:
        """Ask the hooks of a point.

        Args:
            payload: JSON; what may be changed at the point stands in it under the name that patches use. `point` and
                `hook_id` are added.
            check: of a payload that was changed; a patch that it refuses is the failure of its hook.
        """
        outcome = Outcome()
        for hook in self._hooks:
            if point in hook.points:
                now = decisions.merge(payload, outcome.patch)
                if hook.mode == "background":
                    self._background.start(hook.id, _watch(hook, point, now))
                else:
                    await _ask(hook, point, now, check, outcome)
            if outcome.stop is not None:
                break
        return outcome

    def tell(self, point: Point, payload: Mapping[str, Any]) -> None:
        """Let the hooks of a point know, in the background all of them: nothing waits for what they say."""
        for hook in self._hooks:
            if point in hook.points:
                self._background.start(hook.id, _watch(hook, point, payload))


async def _ask(hook: Hook, point: Point, payload: Mapping[str, Any], check: Check | None, outcome: Outcome) -> None:
    """Ask one hook, and add to the outcome what came of it."""
    outcome.events.append(HookStarted(hook.id, point))
    began = clock.monotonic()
    try:
        decision = await _decision(hook, point, payload)
        if isinstance(decision, Rewrite) and check is not None:
            _checked(check, decisions.merge(payload, decision.patch))
    except HookFault as fault:
        outcome.events.append(HookFailed(hook.id, point, str(fault)))
        if hook.capability != "observe":
            outcome.stop = Failure(hook.id, point, str(fault))
        return
    outcome.events.append(HookCompleted(hook.id, point, round((clock.monotonic() - began) * 1000)))
    match decision:
        case Allow():
            pass
        case Deny():
            reason = redaction.redacted(decision.reason)
            outcome.events.append(HookDenied(hook.id, point, reason))
            outcome.stop = Denial(hook.id, point, reason)
        case Rewrite():
            outcome.events.append(HookRewriteApplied(hook.id, point, decisions.changed(decision.patch)))
            outcome.patch = decisions.merge(outcome.patch, decision.patch)
        case _:
            assert_never(decision)


async def _watch(hook: Hook, point: Point, payload: Mapping[str, Any]) -> None:
    """Ask a hook that nobody waits for; a failure is logged alone."""
    try:
        await _decision(hook, point, payload)
    except HookFault as fault:
        log.warning("background_hook_failed", hook_id=hook.id, point=point, error=str(fault))


async def _decision(hook: Hook, point: Point, payload: Mapping[str, Any]) -> Decision:
    body = _body(hook, point, payload)
    limit = asyncio.timeout(hook.timeout_ms / 1000)
    try:
        async with limit:
            answer = await hook.answerer.answer(body)
    except TimeoutError:
        raise HookFault(f"The hook did not answer within {hook.timeout_ms} ms.") from None
    return decisions.read(hook, point, answer)


def _body(hook: Hook, point: Point, payload: Mapping[str, Any]) -> bytes:
    try:
        body = orjson.dumps(dict(payload) | {"point": point, "hook_id": hook.id})
    except TypeError:  # e.g. a number of a tool call's arguments beyond 64 bits
        raise HookFault("What the hook is to be asked about cannot be written as JSON.") from None
    if len(body) > MAX_BODY_BYTES:
        raise HookFault(f"What the hook is to be asked about is larger than {MAX_BODY_BYTES} bytes.")
    return body


def _checked(check: Check, payload: Mapping[str, Any]) -> None:
    try:
        check(payload)
    except InvalidRequest:
        raise HookFault("The hook's patch was refused: the values are not valid here.") from None
