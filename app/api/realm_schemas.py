"""The wire's objects of a realm's configuration; its keys are those of `app.realms.Config`."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas import Strict
from app.realms import Config

Generation = Annotated[int, Field(ge=0)]


class PutConfig(Strict):
    """A whole configuration in place of the one there is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"config": {"default_model": "scripted", "system_prompt": "Answer in one sentence."}, "expected_generation": 0},
                {"config": {}},
            ]
        }
    )
    config: Config
    expected_generation: Generation | None = None


class PatchConfig(Strict):
    """A merge patch (RFC 7396) of the configuration: null removes a key, absent leaves it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"config": {"max_tokens": 500, "system_prompt": None}}]})
    config: dict[str, Any]
    expected_generation: Generation | None = None


class RealmConfig(BaseModel):
    """A realm's configuration, with the keys that are set, and how often it has changed."""

    config: Config
    generation: int
