"""A session's own changes to the server's hooks: `hooks_override`.

It can leave hooks out and name URLs on hosts that the operator allows; it can never name code.
"""

from typing import Any, Final

from pydantic import Field, ValidationError, model_validator

from app.errors import InvalidRequest
from app.hooks.base import Point
from app.hooks.configuration import HookId, Role, Strict, Url

FIELD: Final = "hooks_override"
MOST_ENTRIES: Final = 16
MOST_DISABLED: Final = 64


class Added(Role):
    """A hook of a session."""

    point: Point
    url: Url

    @model_validator(mode="after")
    def _has_a_role(self) -> "Added":
        self.check_role(frozenset({self.point}))
        return self


class Override(Strict):
    """Which of the server's hooks are not asked in this session, and which others are, after them among equals."""

    disable: list[HookId] = Field(default_factory=list, max_length=MOST_DISABLED)
    entries: list[Added] = Field(default_factory=list, max_length=MOST_ENTRIES)


NO_OVERRIDE: Final = Override()


def read(value: Any) -> Override:
    """Read an override as a caller sent it, or as it was kept; None is none.

    Raises:
        InvalidRequest: it breaks the schema; each `loc` begins with `hooks_override`.
    """
    if value is None:
        return NO_OVERRIDE
    try:
        return Override.model_validate(value)
    except ValidationError as error:
        found = [{"loc": _loc(fault["loc"]), "msg": fault["msg"]} for fault in error.errors(include_input=False)]
    raise InvalidRequest("The request is not valid.", errors=found)


def _loc(path: tuple[int | str, ...]) -> str:
    return ".".join([FIELD, *(str(step)[:64] for step in path)])
