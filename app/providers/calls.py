"""One model call as one streaming POST, for every vendor that answers with Server-Sent Events.

No redirect is followed, no proxy of the environment is used, and no word of the vendor and no key enters an error. An answer is
complete when its finish marker has come and then the stream ends, says that it does, breaks or falls silent: only the usage
may still come after the marker, and a whole answer is not thrown away for it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Final, Protocol

import httpx2

from app.errors import ProviderError, StartupError
from app.outbound.door import OutboundError
from app.outbound.transport import Transport
from app.providers import refusals
from app.providers.base import ModelChunk
from app.providers.deadlines import Deadlines, Watch
from app.providers.sse import SseParser

MAX_ERROR_BODY_BYTES: Final = 64 * 1024  # read to tell one refusal from another; real ones are under 1 KiB
ERROR_BODY_SECONDS: Final = 5.0
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024  # of a stream; the longest real answers take a tenth of it
AFTER_FINISH_SECONDS: Final = 5.0  # how long the usage may take after the finish marker
AFTER_DONE_SECONDS: Final = 0.05  # how long the end may take after the last event, so that the connection can be used again
NO_STREAM: Final = ("text/html", "application/json")  # a 200 of these types is a wrong address, not a broken stream


class Reader(Protocol):
    """Reads one answer's events in one vendor's wire."""

    @property
    def is_finished(self) -> bool:
        """Whether the finish marker has come."""

    @property
    def is_done(self) -> bool:
        """Whether nothing more can come."""

    def read(self, events: Iterable[bytes]) -> Iterator[ModelChunk]:
        """Yield what events say, each the `data` of one.

        Raises:
            ProviderError: they are not of the wire, or say that something failed; raised after what came before.
        """

    def finish(self) -> Iterator[ModelChunk]:
        """Yield the last chunks, `Finish` among them.

        Raises:
            ProviderError: there was no finish marker, so this is no answer.
        """


class Caller:
    """Makes model calls at one base URL; its transport is shared by all of them.

    Args:
        base_url: what a call's path is appended to.
        headers: of every call, credentials among them.
        transport: closed with the caller; by default one of its own.

    Raises:
        StartupError: the URL is not http(s), or a header has characters that cannot stand in one.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        deadlines: Deadlines | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url = _checked(base_url)
        self._headers = _common_headers(headers)
        self._deadlines = deadlines or Deadlines()
        self._transport = transport or Transport()

    async def stream(self, path: str, content: bytes, reader: Reader) -> AsyncGenerator[ModelChunk, None]:
        """Make one call and yield its chunks, `Finish` last. Closing the generator closes the connection.

        Args:
            path: appended to the base URL, from `/` on, query included.
            content: the body, JSON.

        Raises:
            ProviderError: with a contract reason.
        """
        async with AsyncExitStack() as stack:
            watch = stack.enter_context(Watch(self._deadlines.total_seconds))
            response = await stack.enter_async_context(aclosing(await self._send(path, content, watch)))
            await _check_is_answer(response, watch)
            parser, body, left = SseParser(), aiter(_body(response)), MAX_ANSWER_BYTES
            while not reader.is_done and (piece := await self._next(body, watch, reader)) is not None:
                left -= len(piece)
                if left < 0:
                    raise ProviderError("PROVIDER_PROTOCOL", f"The provider's answer is over {MAX_ANSWER_BYTES} bytes.")
                for chunk in reader.read(parser.feed(piece)):
                    yield chunk
            if reader.is_done:
                await _read_to_end(body, watch)
            for chunk in reader.finish():
                yield chunk

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def _send(self, path: str, content: bytes, watch: Watch) -> httpx2.Response:
        timeout = {"timeout": {"connect": self._deadlines.connect_seconds}}
        request = httpx2.Request("POST", self._base_url + path, headers=self._headers, content=content, extensions=timeout)
        try:
            answer = self._transport.handle_async_request(request)
            return await watch.wait(answer, self._deadlines.first_byte_seconds)
        except TimeoutError as error:
            raise refusals.unavailable("The provider did not begin to answer in time.") from error
        except OutboundError as error:
            raise refusals.unavailable(f"The provider's URL was not asked. {error}") from error
        except httpx2.TransportError as error:
            raise refusals.unavailable("The provider cannot be reached, or hung up before it answered.") from error

    async def _next(self, body: AsyncIterator[bytes], watch: Watch, reader: Reader) -> bytes | None:
        """Read the next piece; None at the stream's end, or where nothing that matters can still come."""
        seconds = self._deadlines.idle_seconds
        try:
            return await watch.wait(anext(body, None), min(seconds, AFTER_FINISH_SECONDS) if reader.is_finished else seconds)
        except (TimeoutError, httpx2.TransportError) as error:
            if reader.is_finished:
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


def _checked(base_url: str) -> str:
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL:
        raise StartupError("The provider's base URL is not a URL.") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise StartupError("The provider's base URL must begin with http:// or https:// and name a host.")
    return base_url.rstrip("/")


def _common_headers(own: Mapping[str, str]) -> dict[str, str]:
    if not all(value.isascii() and value.isprintable() for value in own.values()):
        raise StartupError("The provider's API key has characters that cannot stand in a header.")
    return {
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "suricate",
    } | dict(own)
