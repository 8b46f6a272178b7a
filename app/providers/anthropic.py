"""Anthropic's Messages API, and servers that speak it."""

from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import httpx2
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from app.providers import anthropic_schema, provider_params
from app.providers.anthropic_answer import AnswerReader
from app.providers.anthropic_messages import LEAST_THINKING_TOKENS, write_request
from app.providers.base import ModelChunk, ModelRequest, NativeSchema
from app.providers.calls import Caller
from app.providers.deadlines import Deadlines

BASE_URL: Final = "https://api.anthropic.com"
VERSION: Final = "2023-06-01"
LEAST_TOP_P_WITH_THINKING: Final = 0.95


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class BudgetedThinking(provider_params.Strict):
    """Thinking within a budget, in tokens of the output."""

    type: Literal["enabled"]
    budget_tokens: int = Field(ge=LEAST_THINKING_TOKENS, lt=2**31)
    display: Literal["summarized", "omitted"] | None = None


class AdaptiveThinking(provider_params.Strict):
    """Thinking as much as the model finds right."""

    type: Literal["adaptive"]
    display: Literal["summarized", "omitted"] | None = None


class PlainThinking(provider_params.Strict):
    """No thinking, or only between the calls of tools."""

    type: Literal["disabled", "between_tools"]


Thinking: TypeAlias = Annotated[BudgetedThinking | AdaptiveThinking | PlainThinking, Field(discriminator="type")]


class Metadata(provider_params.Strict):
    """Who uses the service, as an opaque id that says nothing of the person."""

    user_id: str | None = Field(default=None, max_length=256)


class Params(provider_params.Strict):
    """What a session's `provider_params` may hold; null ones are left out.

    Each is sent under its own name, except `effort`, which stands in `output_config`, and `disable_parallel_tool_use`, which
    stands in `tool_choice`. With thinking the vendor fixes how it samples, so that is refused here.
    """

    thinking: Thinking | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    stop_sequences: Annotated[
        list[Annotated[str, Field(pattern=r"\S", max_length=1024)]], BeforeValidator(_as_list), Field(max_length=64)
    ] | None = None  # fmt: skip
    disable_parallel_tool_use: bool | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    inference_geo: str | None = Field(default=None, pattern=r"^[a-z0-9_-]{1,32}$")
    metadata: Metadata | None = None

    @field_validator("temperature", "top_p", "top_k")
    @classmethod
    def _fits_thinking(cls, value: float | None, info: ValidationInfo) -> float | None:
        thinking = info.data.get("thinking")
        if value is None or thinking is None or thinking.type == "disabled":
            return value
        if info.field_name == "temperature" and value != 1:
            raise ValueError("with thinking it can only be 1")
        if info.field_name == "top_p" and value < LEAST_TOP_P_WITH_THINKING:
            raise ValueError(f"with thinking it is at least {LEAST_TOP_P_WITH_THINKING}")
        if info.field_name == "top_k":
            raise ValueError("it cannot be given with thinking")
        return value


class Anthropic:
    """The vendor's API under one base URL.

    Args:
        base_url: what `/v1/messages` is appended to; `BASE_URL` is the vendor's own.
        api_key: sent as `x-api-key`; None sends none.
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
        headers = {"anthropic-version": VERSION} | ({"x-api-key": api_key} if api_key else {})
        self._caller = Caller(base_url, headers, deadlines=deadlines, transport=transport)

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Accept a session's `provider_params`.

        Raises:
            InvalidRequest: a key is unknown or a value out of range; `loc` is `provider_params.<key>`.
        """
        provider_params.parse(Params, params)

    def native_schema(self, schema: Mapping[str, Any]) -> NativeSchema | None:
        """Return a caller's schema as the vendor's JSON outputs take it; None where they cannot hold its meaning."""
        return anthropic_schema.adapted(schema)

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        """Make one model call and yield its chunks, `Finish` last. Closing the generator closes the connection.

        Raises:
            ProviderError: with a contract reason.
        """
        return self._caller.stream("/v1/messages", write_request(request), AnswerReader())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._caller.aclose()
