"""The one way out: HTTP to addresses that callers or configuration name.

A host is resolved once, each of its addresses is checked, and the connection goes to a checked one, so that a name cannot lead
elsewhere a moment later. No redirect is followed, no proxy of the environment is used, and nothing is decompressed. Connections
are not kept: each is checked anew, and none stays open at a stranger's pleasure.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

import httpx2

from app.outbound.addresses import NOTHING_INSIDE, Address, Inside, is_public
from app.outbound.transport import DEFAULT_PORTS, Transport
from app.pace import UNHURRIED, Pace

MAX_REQUEST_BYTES: Final = 1024 * 1024
MAX_RESPONSE_BYTES: Final = 4 * 1024 * 1024
CONNECT_SECONDS: Final = 10.0  # for each address of a host
CHECK_SECONDS: Final = 5.0  # of a caller who waits

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]
_T = TypeVar("_T")


class OutboundError(httpx2.TransportError):
    """A request was not made or not answered; the message names no address and may be shown to a model or a caller."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Where the door leads.

    Args:
        inside: places that are not public and may be reached all the same.
        allows_http: whether plain `http` is spoken; otherwise only `https`.
        max_request_bytes: largest body that is sent.
        max_response_bytes: largest body that is read; whatever exceeds it is an error.
    """

    inside: Inside = NOTHING_INSIDE
    allows_http: bool = False
    max_request_bytes: int = MAX_REQUEST_BYTES
    max_response_bytes: int = MAX_RESPONSE_BYTES


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response; `content_type` is without parameters, in lower case, empty where none was given."""

    status: int
    content_type: str
    body: bytes

    @property
    def text(self) -> str:
        """The body as UTF-8, with marks where it is none."""
        return self.body.decode("utf-8", "replace")


async def resolved(host: str, port: int) -> Sequence[Address]:
    """Return a host's addresses as the system knows them; never none.

    Raises:
        OSError, UnicodeError: there is no such host.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(place[4][0]) for place in found))


class Door:
    """Makes requests under one policy.

    Args:
        resolver: finds the addresses of hosts, and reads those that are written as numbers.
        ssl_context: for https; by default one that trusts the system's certificates.
    """

    def __init__(self, policy: Policy, *, resolver: Resolver = resolved, ssl_context: ssl.SSLContext | None = None) -> None:
        self.policy = policy
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._transport = self.transport()

    async def request(
        self, method: str, url: str, *, content: bytes = b"", headers: Mapping[str, str], timeout_seconds: float
    ) -> Answer:
        """Make one request and read its whole answer, whatever its status; a redirect is an answer too.

        Args:
            timeout_seconds: for everything together, from finding the host to the last byte.

        Raises:
            OutboundError: the address may not be reached, there was no answer in time, or a body is too large.
        """
        request = _request(method, url, content, headers)
        return await self._answer(request, timeout_seconds, self.policy.max_response_bytes)

    async def get(self, url: str, *, limit_bytes: int, seconds: float) -> bytes:
        """Fetch a document and return its bytes.

        Args:
            limit_bytes: the largest that is taken.
            seconds: for everything together.

        Raises:
            OutboundError: as `request`, and for any status but 200.
        """
        answer = await self._answer(_request("GET", url, b"", {"accept": "*/*"}), seconds, limit_bytes)
        if answer.status != httpx2.codes.OK:
            raise OutboundError(f"The answer has the status {answer.status}, not 200.")
        return answer.body

    async def check(self, url: str) -> None:
        """Find out whether an address may be reached now; each request checks again.

        Raises:
            OutboundError: it may not, or its host was not found in time.
        """
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._places(_url(url))
        except TimeoutError as error:
            raise OutboundError("The address's host was not found in time.") from error

    def client(self, *, headers: Mapping[str, str], timeout_seconds: float) -> httpx2.AsyncClient:
        """Make a client for a library that wants one; it obeys the same policy and is closed by whoever asked for it.

        Args:
            timeout_seconds: longest silence; the caller bounds the whole.
        """
        return httpx2.AsyncClient(
            transport=_Guarded(self.transport(), self.policy.max_request_bytes, self.policy.max_response_bytes),
            headers=dict(headers) | {"accept-encoding": "identity"},
            timeout=timeout_seconds,
            follow_redirects=False,
            trust_env=False,
        )

    def transport(self, *, pace: Pace = UNHURRIED) -> Transport:
        """Make a transport whose connections go through this door; whoever asked for it closes it, and bounds what it reads."""
        return Transport(self._ssl_context, places=self._places, pace=pace, max_idle=0)

    async def aclose(self) -> None:
        """Close what is open."""
        await self._transport.aclose()

    async def _answer(self, request: httpx2.Request, timeout_seconds: float, limit_bytes: int) -> Answer:
        guarded = _Guarded(self._transport, self.policy.max_request_bytes, limit_bytes)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await _read(await guarded.handle_async_request(request))
        except TimeoutError as error:
            raise OutboundError(f"There was no complete answer within {timeout_seconds:g} s.") from error
        except OutboundError:
            raise
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise OutboundError("No connection could be made.") from error
        except (httpx2.TransportError, ssl.SSLError, OSError) as error:
            raise OutboundError("The connection failed or ended before the answer was complete.") from error

    async def _places(self, url: httpx2.URL) -> Sequence[str]:
        """Resolve a URL's host, once, and check every address of it.

        Raises:
            OutboundError: the URL is not of an allowed form, its host is not found, or one of its addresses may not be reached.
        """
        if url.scheme != "https" and not (url.scheme == "http" and self.policy.allows_http):
            raise OutboundError("The address has to begin with https://.")
        if not url.host or url.userinfo:
            raise OutboundError("The address needs a host, and may have no user or password in it.")
        host = url.raw_host.decode("ascii").lower()
        try:
            addresses = await self._resolver(host, url.port or DEFAULT_PORTS[url.scheme])
        except (OSError, UnicodeError, ValueError) as error:
            raise OutboundError("The address's host was not found.") from error
        if not all(self.policy.inside.has(host, address) or is_public(address) for address in addresses):
            raise OutboundError("The address may not be reached from here: it is not on the public internet.")
        return [str(address) for address in addresses]


class _Guarded(httpx2.AsyncBaseTransport):
    """Bounds bodies both ways, and silence where the request says how long it may last."""

    def __init__(self, transport: Transport, max_request_bytes: int, max_response_bytes: int) -> None:
        self._transport = transport
        self._max_request_bytes = max_request_bytes
        self._max_response_bytes = max_response_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if len(await request.aread()) > self._max_request_bytes:
            raise OutboundError(f"The request is over the limit of {self._max_request_bytes} bytes.")
        silence = request.extensions.get("timeout", {}).get("read")
        response = await _within(silence, self._transport.handle_async_request(request))
        try:
            return _bounded(response, self._max_response_bytes, silence)
        except BaseException:
            await response.aclose()
            raise

    async def aclose(self) -> None:
        await self._transport.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """A body that may not be longer than so many bytes, nor silent for so long."""

    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int, silence: float | None) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._silence = silence

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left, pieces = self._max_bytes, aiter(self._stream)
        while (piece := await _within(self._silence, anext(pieces, None))) is not None:
            left -= len(piece)
            if left < 0:
                raise _too_large(self._max_bytes)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _within(seconds: float | None, answer: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError as error:
        raise httpx2.ReadTimeout("nothing came in time") from error


async def _read(response: httpx2.Response) -> Answer:
    try:
        body = await response.aread()
    finally:
        await response.aclose()
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Answer(response.status_code, kind, body)


def _bounded(response: httpx2.Response, max_bytes: int, silence: float | None) -> httpx2.Response:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise OutboundError("The answer is compressed, which was not asked for.")
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    stream = _Bounded(response.stream, max_bytes, silence)
    return httpx2.Response(response.status_code, headers=response.headers, stream=stream)


def _too_large(max_bytes: int) -> OutboundError:
    return OutboundError(f"The answer is over the limit of {max_bytes} bytes.")


def _url(text: str) -> httpx2.URL:
    try:
        return httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError) as error:
        raise OutboundError("The address is not a valid URL.") from error


def _request(method: str, url: str, content: bytes, headers: Mapping[str, str]) -> httpx2.Request:
    return httpx2.Request(
        method,
        _url(url),
        headers=dict(headers) | {"accept-encoding": "identity"},
        content=content,
        extensions={"timeout": {"connect": CONNECT_SECONDS}},
    )
