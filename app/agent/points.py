"""The points of a turn at which its hooks are asked: what each hook is shown there, and what its patch changes.

What was asked is gathered, and told before the next thing that the loop says. An answer that a hook refuses is not kept: its
step is discarded, though its deltas were shown.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

from app.agent.emissions import Discard, Emission, Tell
from app.agent.hooks import Check, Hooks, Outcome
from app.agent.step import Ask, RetryPolicy, Step
from app.agent.transcript import Call
from app.errors import AgentError, InvalidRequest
from app.hooks.background import Background
from app.hooks.base import Point
from app.hooks.registry import Registry
from app.journal.event import Event
from app.messages import Message, ToolResult
from app.providers.base import ModelRequest, Provider
from app.traces import NO_SPAN, Span

VOIDING: Final[frozenset[Point]] = frozenset({"post_model_response", "turn_completed"})
"""Points at which an answer is whole and not on record yet."""


class Points:
    """One attempt's way of asking.

    Args:
        hooks: those of the session; None asks no one.
        about: what every hook is shown: which session and turn it is.
    """

    def __init__(self, hooks: Hooks | None = None, about: Mapping[str, Any] | None = None) -> None:
        self._hooks = hooks
        self._about = about or {}
        self._untold: list[Event] = []
        self._void_step: int | None = None

    async def telling(self, emissions: AsyncGenerator[Emission, None]) -> AsyncGenerator[Emission, None]:
        """Yield what the loop says, with what was asked in its place."""
        try:
            async with aclosing(emissions):
                async for emission in emissions:
                    for told in self._told():
                        yield told
                    yield emission
        except AgentError as error:
            for told in self._told():
                yield told
            if self._void_step is not None:
                yield Discard(self._void_step, error.reason)
            raise

    async def enter(self, steps: int, history: Sequence[Message], *, is_new: bool) -> None:
        """Ask when a turn begins, and when a step is over with its tools and another follows.

        Args:
            steps: how many are over.
            is_new: whether no step of the turn has ever begun.

        Raises:
            AgentError: the turn must not go on; so it is with all that follow.
        """
        if steps:
            await self._ask("step_boundary", {"step": steps})
        elif is_new:
            await self._ask("turn_started", {"prompt": history[-1].text if history else ""})

    async def request(self, request: ModelRequest, provider: Provider, step: int) -> ModelRequest:
        """Ask before a model call, and return the request that is to be made."""
        asked = {
            "step": step,
            "model": request.model,
            "max_tokens": request.max_tokens,
            "provider_params": dict(request.params),
        }
        patch = await self._ask("pre_model_request", asked, lambda changed: provider.check_params(changed["provider_params"]))
        params = {**request.params, **patch.get("provider_params", {})}
        return replace(request, max_tokens=patch.get("max_tokens", request.max_tokens), params=params)

    async def answer(
        self, step: Step, policy: RetryPolicy, fallbacks: Iterable[Ask] = (), span: Span = NO_SPAN
    ) -> AsyncGenerator[Emission, None]:
        """Run a step, and ask once its answer is whole; the text that is kept may then differ from what was streamed."""
        async with aclosing(step.run(policy, fallbacks, span)) as emissions:
            async for emission in emissions:
                yield emission
        if self._has("post_model_response"):
            uses = step.message.tool_uses if step.message else ()
            calls = [{"id": use.id, "name": use.name, "args": use.args} for use in uses]
            asked = {"step": step.number, "text": step.text, "stop_reason": step.finish.stop_reason, "tool_calls": calls}
            patch = await self._ask("post_model_response", asked)
            if "text" in patch:
                step.rewrite(patch["text"])

    async def call(self, call: Call, check: Check) -> str | None:
        """Ask before a tool runs, and change its arguments; return what the model reads where the call was denied.

        Args:
            check: of `args`.
        """
        asked = {"tool_call_id": call.id, "name": call.name, "args": call.args}
        outcome = await self._run("pre_tool_execution", asked, check)
        if outcome.tool_refusal is None:
            call.args = outcome.patch.get("args", call.args)
        return outcome.tool_refusal

    async def result(self, call: Call, result: ToolResult) -> str:
        """Ask after a tool has run, and return what the model reads."""
        asked = {
            "tool_call_id": call.id,
            "name": call.name,
            "args": call.args,
            "result": result.content,
            "is_error": result.is_error,
        }
        patch = await self._ask("post_tool_execution", asked)
        return str(patch.get("result", result.content))

    async def complete(self, text: str, *, step: int, tool_calls: int) -> str:
        """Ask before a turn ends well, and return its final text."""
        patch = await self._ask("turn_completed", {"text": text, "step": step, "tool_calls": tool_calls})
        return str(patch.get("text", text))

    async def failed(self, error: AgentError) -> Sequence[Event]:
        """Ask when a turn has failed, and return what there is to tell of it."""
        if not self._has("turn_failed"):
            return ()
        await self._ask("turn_failed", _of_failure(error))
        told, self._untold = self._untold, []
        return told

    def tell_failed(self, error: AgentError) -> None:
        """Let hooks know of a turn that has ended so already; nobody waits for them, and nothing of it is told."""
        if self._hooks is not None:
            self._hooks.tell("turn_failed", {**self._about, **_of_failure(error)})

    def _has(self, point: Point) -> bool:
        return self._hooks is not None and self._hooks.has(point)

    async def _ask(self, point: Point, asked: Mapping[str, Any], check: Check | None = None) -> Mapping[str, Any]:
        """Ask, and return the patch."""
        return (await self._run(point, asked, check)).patch

    async def _run(self, point: Point, asked: Mapping[str, Any], check: Check | None = None) -> Outcome:
        if self._hooks is None or not self._hooks.has(point):
            return Outcome()
        outcome = await self._hooks.run(point, {**self._about, **asked}, check)
        self._untold += outcome.events
        if outcome.stop is not None and point in VOIDING:
            self._void_step = asked["step"]
        outcome.check()
        return outcome

    def _told(self) -> list[Tell]:
        if not self._untold:
            return []
        told, self._untold = self._untold, []
        return [Tell(told)]


def _of_failure(error: AgentError) -> dict[str, Any]:
    return {"reason": error.reason, "message": error.detail}


NO_POINTS: Final = Points()


@dataclass(frozen=True, slots=True)
class Panel:
    """All hooks of a process, from which each attempt takes its own.

    Args:
        background: where those run that no turn waits for.
    """

    registry: Registry
    background: Background

    def points(self, override: Any, about: Mapping[str, Any]) -> Points:
        """Return the points of a session's turn.

        Args:
            override: the session's `hooks_override`, as it was kept.

        Raises:
            AgentError: `HOOK_FAILED`; the override was kept under another configuration and does not fit this one.
        """
        try:
            hooks = self.registry.hooks(override)
        except InvalidRequest as error:
            raise AgentError(
                "HOOK_FAILED", "The session's hooks_override does not fit this server's hooks any more."
            ) from error
        return Points(Hooks(hooks, self.background) if hooks else None, about)
