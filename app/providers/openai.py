"""OpenAI's own API, spoken as Responses: reasoning is handed back encrypted, and nothing is stored at the vendor."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, Literal

import httpx2
from pydantic import Field

from app.providers import openai_schemas, provider_params
from app.providers.base import ModelChunk, ModelRequest, NativeSchema
from app.providers.calls import Caller
from app.providers.deadlines import Deadlines
from app.providers.openai_responses import AnswerReader, write_request

BASE_URL: Final = "https://api.openai.com/v1"


class Params(provider_params.Strict):
    """What a session's `provider_params` may hold; null ones are left out.

    `reasoning_*`, `verbosity`, `prompt_cache_mode` and `prompt_cache_ttl` are sent inside the vendor's `reasoning`, `text`
    and `prompt_cache_options`, all others under their own names.
    """

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    reasoning_summary: Literal["auto", "concise", "detailed"] | None = None
    reasoning_context: Literal["auto", "current_turn", "all_turns"] | None = None
    reasoning_mode: Literal["standard", "pro"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    parallel_tool_calls: bool | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    prompt_cache_key: str | None = Field(default=None, min_length=1, max_length=64)
    prompt_cache_mode: Literal["implicit", "explicit"] | None = None
    prompt_cache_ttl: Literal["30m", "12h"] | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    safety_identifier: str | None = Field(default=None, min_length=1, max_length=128)
    truncation: Literal["auto", "disabled"] | None = None


class OpenAI:
    """The API under one base URL.

    Args:
        base_url: what `/responses` is appended to, e.g. `BASE_URL`.
        api_key: sent as a bearer token; None sends none.
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
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._caller = Caller(base_url, headers, deadlines=deadlines, transport=transport)

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Accept a session's `provider_params`.

        Raises:
            InvalidRequest: a key is unknown or a value out of range; `loc` is `provider_params.<key>`.
        """
        provider_params.parse(Params, params)

    def native_schema(self, schema: Mapping[str, Any]) -> NativeSchema | None:
        """Return a schema as the vendor takes it, strict where its subset allows; None where the root is no plain object."""
        return openai_schemas.adapt(schema)

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        """Make one model call and yield its chunks, `Finish` last. Closing the generator closes the connection.

        Raises:
            ProviderError: with a contract reason.
        """
        return self._caller.stream("/responses", write_request(request), AnswerReader())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._caller.aclose()
