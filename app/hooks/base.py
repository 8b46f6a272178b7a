"""What a hook is: the points at which one can be asked, what it may answer there, and the seam to whatever answers."""

from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from app import redaction

Point: TypeAlias = Literal[
    "turn_started",
    "pre_model_request",
    "post_model_response",
    "pre_tool_execution",
    "post_tool_execution",
    "step_boundary",
    "turn_completed",
    "turn_failed",
]
Capability: TypeAlias = Literal["observe", "guardrail", "rewrite"]
"""An observer only watches, and its failure changes nothing. The others may deny, and a rewriter may also change; if one of
them fails, so does the turn."""
Mode: TypeAlias = Literal["foreground", "background"]
"""The turn waits for a hook in the foreground; one in the background neither delays nor changes it."""

MAX_BODY_BYTES: Final = 128 * 1024  # of what a hook is given, and of what it answers
MAX_TIMEOUT_MS: Final = 5_000
REWRITABLE: Final[frozenset[Point]] = frozenset({
    "pre_model_request", "post_model_response", "pre_tool_execution", "post_tool_execution", "turn_completed",
})  # fmt: skip
"""Points at which there is something to change; `app/hooks/decisions.py` says what."""


class HookFault(Exception):
    """A hook gave no decision, or one that it may not give; the message is for the log of the session and holds no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(redaction.redacted(message))


class Answerer(Protocol):
    """Whatever answers for a hook."""

    async def answer(self, body: bytes) -> bytes:
        """Return the answer to a payload, both JSON texts; the caller bounds the time.

        Raises:
            HookFault: there is none.
        """


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook.

    Args:
        id: unique among the hooks of a session.
        points: where it is asked.
        priority: lower is asked first; among equals the order of registration holds.
        timeout_ms: longest wait for its answer, in all.
        is_required: whether a session's override may not disable it.
    """

    id: str
    points: frozenset[Point]
    answerer: Answerer
    capability: Capability
    mode: Mode = "foreground"
    priority: int = 0
    timeout_ms: int = MAX_TIMEOUT_MS
    is_required: bool = False
