"""Strict `provider_params`: a vendor's model of them, and refusals that name each key."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from app.errors import InvalidRequest

LOC_CHARACTERS: Final = 64


class Strict(BaseModel):
    """Knows its keys, coerces nothing, takes no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Params = TypeVar("Params", bound=Strict)


def parse(model: type[Params], params: Mapping[str, Any]) -> Params:
    """Read `provider_params`.

    Raises:
        InvalidRequest: keys are unknown or values out of range; `loc` is `provider_params.<key>`, once for each.
    """
    try:
        return model.model_validate(dict(params))
    except ValidationError as error:
        found = [{"loc": _loc(entry["loc"]), "msg": entry["msg"]} for entry in error.errors(include_input=False)]
    raise InvalidRequest("The request is not valid.", errors=found)


def _loc(path: tuple[int | str, ...]) -> str:
    return ".".join(["provider_params", *(str(step)[:LOC_CHARACTERS] for step in path)])
