"""Google's Gemini models, through generateContent as a stream."""

from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import httpx2
from pydantic import Field, ValidationInfo, field_validator

from app.providers import gemini_schema, provider_params
from app.providers.base import ModelChunk, ModelRequest, NativeSchema
from app.providers.calls import Caller
from app.providers.deadlines import Deadlines
from app.providers.gemini_contents import AnswerReader, tool_names, write_request

BASE_URL: Final = "https://generativelanguage.googleapis.com/v1beta"
COLLECTIONS: Final = ("models", "tunedModels")


class Params(provider_params.Strict):
    """What a session's `provider_params` may hold; null ones are left out.

    Args:
        thinking_budget: most tokens of reasoning; 0 is none, -1 leaves it to the model. Not together with `thinking_level`.
        include_thoughts: whether summaries of the reasoning are streamed.
    """

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=1, lt=2**31)
    seed: int | None = Field(default=None, ge=-(2**31), lt=2**31)
    stop_sequences: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=5)] | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, lt=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, lt=2)
    thinking_budget: int | None = Field(default=None, ge=-1, le=32_768)
    thinking_level: Literal["minimal", "low", "medium", "high"] | None = None
    include_thoughts: bool | None = None

    @field_validator("thinking_level")
    @classmethod
    def _stands_alone(cls, level: str | None, info: ValidationInfo) -> str | None:
        if level is not None and info.data.get("thinking_budget") is not None:
            raise ValueError("thinking_level and thinking_budget exclude each other")
        return level


class Gemini:
    """The vendor, or a gateway that speaks its wire, under one base URL.

    Args:
        base_url: what `/models/…` is appended to, e.g. `BASE_URL`.
        api_key: sent as `x-goog-api-key`; None sends none.
        transport: closed with the provider; by default one of its own.

    Raises:
        StartupError: the URL is not http(s), or the key cannot stand in a header.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        *,
        deadlines: Deadlines | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"x-goog-api-key": api_key} if api_key else {}
        self._caller = Caller(base_url, headers, deadlines=deadlines, transport=transport)

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Accept a session's `provider_params`.

        Raises:
            InvalidRequest: a key is unknown or a value out of range; `loc` is `provider_params.<key>`.
        """
        provider_params.parse(Params, params)

    def native_schema(self, schema: Mapping[str, Any]) -> NativeSchema | None:
        """Return a caller's schema in the part of JSON Schema that the vendor knows, and say what was left out."""
        return gemini_schema.adapt(schema)

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        """Make one model call and yield its chunks, `Finish` last. Closing the generator closes the connection.

        Raises:
            ProviderError: with a contract reason.
        """
        path = f"/{_resource(request.model)}:streamGenerateContent?alt=sse"
        return self._caller.stream(path, write_request(request), AnswerReader(tool_names(request.tools)))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._caller.aclose()


def _resource(model: str) -> str:
    """Return a model's place under the base URL; no character of its name can lead elsewhere."""
    collection, _, name = model.partition("/")
    if collection in COLLECTIONS and name:
        return f"{collection}/{quote(name, safe='')}"
    return f"models/{quote(model, safe='')}"
