"""Any server that speaks OpenAI's Chat Completions: vLLM, Ollama, llama.cpp, gateways, OpenAI itself."""

from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, Literal

import httpx2
from pydantic import BeforeValidator, Field

from app.providers import provider_params
from app.providers.base import ModelChunk, ModelRequest, NativeSchema
from app.providers.calls import Caller
from app.providers.chat_completions import AnswerReader, write_request
from app.providers.deadlines import Deadlines


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Params(provider_params.Strict):
    """What a session's `provider_params` may hold; each is sent under its own name, null ones are left out."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[str], BeforeValidator(_as_list), Field(max_length=4)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    parallel_tool_calls: bool | None = None
    top_k: int | None = Field(default=None, ge=-1, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    chat_template_kwargs: dict[str, Any] | None = None


class OpenAICompatible:
    """One server under one base URL.

    Args:
        base_url: what `/chat/completions` is appended to, e.g. `http://127.0.0.1:8000/v1`.
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
        """Return None: servers differ too much, so the answer is asked for in words, and validated."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        """Make one model call and yield its chunks, `Finish` last. Closing the generator closes the connection.

        Raises:
            ProviderError: with a contract reason.
        """
        return self._caller.stream("/chat/completions", write_request(request), AnswerReader())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._caller.aclose()
