"""A hook's answer, read strictly: allow, deny, or a patch that its point knows.

A patch's fields have the names of the payload's: `max_tokens` and `provider_params` before a model call, `text` after it and at
the turn's end, `args` before a tool runs, `result` after it. Parameters merge key by key; everything else is replaced.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.hooks.base import MAX_BODY_BYTES, Capability, Hook, HookFault, Point

MAX_REASON_CHARACTERS: Final = 2_000
MERGED: Final = "provider_params"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Allow(_Strict):
    """Go on."""

    decision: Literal["allow"]


class Deny(_Strict):
    """Do not go on; `reason` is told to callers, and to the model where a tool was denied."""

    decision: Literal["deny"]
    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON_CHARACTERS)]


class Rewrite(_Strict):
    """Go on with something else."""

    decision: Literal["rewrite"]
    patch: dict[str, Any]


Decision: TypeAlias = Allow | Deny | Rewrite


class _Parameters(_Strict):
    max_tokens: int = Field(default=1, ge=1)
    provider_params: dict[str, Any] = Field(default_factory=dict, min_length=1)


class _Words(_Strict):
    text: str


class _Arguments(_Strict):
    args: dict[str, Any]


class _Result(_Strict):
    result: str


_PATCHES: Final[Mapping[Point, type[_Strict]]] = {
    "pre_model_request": _Parameters,
    "post_model_response": _Words,
    "pre_tool_execution": _Arguments,
    "post_tool_execution": _Result,
    "turn_completed": _Words,
}
_MAY: Final[Mapping[Capability, tuple[type[Decision], ...]]] = {
    "observe": (Allow,),
    "guardrail": (Allow, Deny),
    "rewrite": (Allow, Deny, Rewrite),
}
_DECISION: Final[TypeAdapter[Decision]] = TypeAdapter(Annotated[Decision, Field(discriminator="decision")])


def read(hook: Hook, point: Point, answer: bytes) -> Decision:
    """Read a hook's answer.

    Raises:
        HookFault: it is too large, no decision, not one that the hook's capability allows, or a patch that the point
            does not know.
    """
    if len(answer) > MAX_BODY_BYTES:
        raise HookFault(f"The hook's answer is larger than {MAX_BODY_BYTES} bytes.")
    try:
        decision = _DECISION.validate_python(orjson.loads(answer))
    except ValueError:  # of either; a ValidationError would repeat what the hook said
        raise HookFault("The hook's answer is no decision.") from None
    if not isinstance(decision, _MAY[hook.capability]):
        raise HookFault(f"A hook of capability {hook.capability} may not answer {decision.decision}.")
    if isinstance(decision, Rewrite):
        _check_patch(point, decision.patch)
    return decision


def merge(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload, or an earlier patch, with a patch applied to it."""
    merged = dict(old) | dict(patch)
    if MERGED in patch:
        merged[MERGED] = dict(old.get(MERGED) or {}) | patch[MERGED]
    return merged


def changed(patch: Mapping[str, Any]) -> list[str]:
    """Name what a patch changes, in order; parameters one by one."""
    plain = [name for name in patch if name != MERGED]
    return sorted([*plain, *(f"{MERGED}.{key}" for key in patch.get(MERGED, {}))])


def _check_patch(point: Point, patch: Mapping[str, Any]) -> None:
    known = _PATCHES.get(point)
    try:
        if known is None or not patch:
            raise HookFault(f"There is nothing to change at {point}, or the patch changes nothing.")
        known.model_validate(patch)
    except ValidationError:
        raise HookFault(f"The patch does not fit the point {point}.") from None
