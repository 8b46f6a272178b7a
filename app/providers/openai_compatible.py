"""Any server that speaks OpenAI's Chat Completions: vLLM, Ollama, llama.cpp, gateways, OpenAI itself.

One call is one streaming POST. No redirect is followed, no proxy of the environment is used, and no word of the vendor and
no key enters an error. An answer is complete when its finish marker has come and then the stream ends, says `[DONE]`,
breaks or falls silent: only the usage may still come after the marker, and a whole answer is not thrown away for it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Any, Final, Literal

import httpx2
from pydantic import BeforeValidator, Field

from app.errors import ProviderError, StartupError
from app.providers import provider_params, refusals
from app.providers.base import ModelChunk, ModelRequest, NativeSchema
from app.providers.chat_completions import AnswerReader, write_request
from app.providers.deadlines import Deadlines, Watch
from app.providers.sse import SseParser
from app.providers.transport import Transport

MAX_ERROR_BODY_BYTES: Final = 64 * 1024  # read to tell one refusal from another; real ones are under 1 KiB
ERROR_BODY_SECONDS: Final = 5.0
AFTER_FINISH_SECONDS: Final = 5.0  # how long the usage may take after the finish marker
AFTER_DONE_SECONDS: Final = 0.05  # how long the end may take after `[DONE]`, so that the connection can be used again
NO_STREAM: Final = ("text/html", "application/json")  # a 200 of these types is a wrong address, not a broken stream


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
    """One server under one base URL; its transport is shared by all calls.

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
        self._url = _url(base_url)
        self._headers = _headers(api_key)
        self._deadlines = deadlines or Deadlines()
        self._transport = transport or Transport()

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Accept a session's `provider_params`.

        Raises:
            InvalidRequest: a key is unknown or a value out of range; `loc` is `provider_params.<key>`.
        """
        provider_params.parse(Params, params)

    def native_schema(self, schema: Mapping[str, Any]) -> NativeSchema | None:
        """Return None: the answer is asked for in words, and validated."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        """Make one model call and yield its chunks, `Finish` last. Closing the generator closes the connection.

        Raises:
            ProviderError: with a contract reason.
        """
        async with AsyncExitStack() as stack:
            watch = stack.enter_context(Watch(self._deadlines.total_seconds))
            response = await stack.enter_async_context(aclosing(await self._send(write_request(request), watch)))
            await _check_is_answer(response, watch)
            reader, parser, body = AnswerReader(), SseParser(), aiter(_body(response))
            while not reader.is_done and (piece := await self._next(body, watch, reader)) is not None:
                for chunk in reader.read(parser.feed(piece)):
                    yield chunk
            if reader.is_done:
                await _read_to_end(body, watch)
            for chunk in reader.finish():
                yield chunk

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def _send(self, content: bytes, watch: Watch) -> httpx2.Response:
        timeout = {"timeout": {"connect": self._deadlines.connect_seconds}}
        request = httpx2.Request("POST", self._url, headers=self._headers, content=content, extensions=timeout)
        try:
            answer = self._transport.handle_async_request(request)
            return await watch.wait(answer, self._deadlines.first_byte_seconds)
        except TimeoutError as error:
            raise refusals.unavailable("The provider did not begin to answer in time.") from error
        except httpx2.TransportError as error:
            raise refusals.unavailable("The provider cannot be reached, or hung up before it answered.") from error

    async def _next(self, body: AsyncIterator[bytes], watch: Watch, reader: AnswerReader) -> bytes | None:
        """Read the next piece; None at the stream's end, or where nothing that matters can still come."""
        has_finished = reader.stop_reason is not None
        seconds = self._deadlines.idle_seconds
        try:
            return await watch.wait(anext(body, None), min(seconds, AFTER_FINISH_SECONDS) if has_finished else seconds)
        except (TimeoutError, httpx2.TransportError) as error:
            if has_finished:
                return None
            raise _broken_off(error, watch) from error


async def _read_to_end(body: AsyncIterator[bytes], watch: Watch) -> None:
    """Give the end of a complete answer a moment to come, so that its connection can be used again."""
    try:
        await watch.wait(anext(body, None), AFTER_DONE_SECONDS)
    except (TimeoutError, httpx2.TransportError):
        return


def _broken_off(error: Exception, watch: Watch) -> ProviderError:
    if not isinstance(error, TimeoutError):
        return refusals.unavailable("The provider's stream broke off.")
    if watch.is_over:
        return refusals.unavailable("The provider's answer took longer than a whole call may.")
    return refusals.unavailable("The provider fell silent in the middle of its answer.")


async def _check_is_answer(response: httpx2.Response, watch: Watch) -> None:
    """Raise where there is something else than a stream of events."""
    headers = response.headers
    if response.status_code != httpx2.codes.OK:
        raise refusals.from_status(response.status_code, headers, await _error_body(response, watch))
    if headers.get("content-type", "").startswith(NO_STREAM) or headers.get("content-encoding", "identity") != "identity":
        raise ProviderError("PROVIDER_PROTOCOL", "The provider answered 200 with no event stream; is its URL right?")


async def _error_body(response: httpx2.Response, watch: Watch) -> bytes:
    content = b""
    body = aiter(_body(response))
    try:
        while len(content) < MAX_ERROR_BODY_BYTES and (piece := await watch.wait(anext(body, None), ERROR_BODY_SECONDS)):
            content += piece
    except (TimeoutError, httpx2.TransportError):
        return content  # the status alone says enough
    return content


def _body(response: httpx2.Response) -> httpx2.AsyncByteStream:
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    return stream


def _url(base_url: str) -> httpx2.URL:
    try:
        url = httpx2.URL(base_url.rstrip("/") + "/chat/completions")
    except httpx2.InvalidURL:
        raise StartupError("The provider's base URL is not a URL.") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise StartupError("The provider's base URL must begin with http:// or https:// and name a host.")
    return url


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "suricate",
    }
    if api_key:
        if not (api_key.isascii() and api_key.isprintable()):
            raise StartupError("The provider's API key has characters that cannot stand in a header.")
        headers["authorization"] = f"Bearer {api_key}"
    return headers
