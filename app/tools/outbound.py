"""The one way out: HTTP to addresses that callers or configuration name.

A host is resolved once, each of its addresses is checked, and the connection goes to a checked one, so that a name cannot lead
elsewhere a moment later. No redirect is followed, no proxy of the environment is used, and nothing is decompressed.
Connections are not kept: one that was opened for a name must not serve another name on the same address.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import httpx2

from app.tools.addresses import NOTHING_INSIDE, Address, Inside, is_public

MAX_REQUEST_BYTES: Final = 1024 * 1024
MAX_RESPONSE_BYTES: Final = 4 * 1024 * 1024
CONNECT_SECONDS: Final = 10.0  # for each address of a host
HTTPS_PORT: Final = 443
HTTP_PORT: Final = 80

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]


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
        self._policy = policy
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._transport: _Checked | None = None

    async def request(
        self, method: str, url: str, *, content: bytes = b"", headers: Mapping[str, str], timeout_seconds: float
    ) -> Answer:
        """Make one request and read its whole answer, whatever its status; a redirect is an answer too.

        Args:
            timeout_seconds: for everything together, from finding the host to the last byte.

        Raises:
            OutboundError: the address may not be reached, there was no answer in time, or a body is too large.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._answer(_request(method, url, content, headers))
        except TimeoutError as error:
            raise OutboundError(f"There was no complete answer within {timeout_seconds:g} s.") from error
        except OutboundError:
            raise
        except (httpx2.TransportError, ssl.SSLError, OSError) as error:
            raise OutboundError("The connection failed or ended before the answer was complete.") from error

    async def check(self, url: str) -> None:
        """Find out whether an address may be reached now; each request checks again.

        Raises:
            OutboundError: it may not.
        """
        await _checked_addresses(_url(url), self._policy, self._resolver)

    def client(self, *, headers: Mapping[str, str], timeout_seconds: float) -> httpx2.AsyncClient:
        """Make a client for a library that wants one; it obeys the same policy and is closed by whoever asked for it.

        Args:
            timeout_seconds: longest silence; the caller bounds the whole.
        """
        return httpx2.AsyncClient(
            transport=_Checked(self._policy, self._resolver, self._tls()),
            headers=dict(headers) | {"accept-encoding": "identity"},
            timeout=timeout_seconds,
            follow_redirects=False,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close what is open."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _answer(self, request: httpx2.Request) -> Answer:
        if self._transport is None:
            self._transport = _Checked(self._policy, self._resolver, self._tls())
        response = await self._transport.handle_async_request(request)
        try:
            body = await response.aread()
        finally:
            await response.aclose()
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Answer(response.status_code, kind, body)

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = httpx2.create_ssl_context(trust_env=False)
        return self._ssl_context


class _Checked(httpx2.AsyncBaseTransport):
    """Connects to addresses that were checked, and bounds bodies both ways."""

    def __init__(self, policy: Policy, resolver: Resolver, ssl_context: ssl.SSLContext) -> None:
        self._policy = policy
        self._resolver = resolver
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._transport = httpx2.AsyncHTTPTransport(verify=ssl_context, trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        if len(content) > self._policy.max_request_bytes:
            raise OutboundError(f"The request is over the limit of {self._policy.max_request_bytes} bytes.")
        response = await self._sent(request, content)
        try:
            return _bounded(response, self._policy.max_response_bytes)
        except BaseException:
            await response.aclose()
            raise

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _sent(self, request: httpx2.Request, content: bytes) -> httpx2.Response:
        failure: httpx2.TransportError | None = None
        for address in await _checked_addresses(request.url, self._policy, self._resolver):
            try:
                return await self._transport.handle_async_request(_addressed(request, content, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:  # nothing was sent; the next may be reachable
                failure = error
        raise OutboundError("No connection could be made.") from failure


class _Bounded(httpx2.AsyncByteStream):
    """A body that may not be longer than so many bytes."""

    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._max_bytes
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                raise _too_large(self._max_bytes)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def _bounded(response: httpx2.Response, max_bytes: int) -> httpx2.Response:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise OutboundError("The answer is compressed, which was not asked for.")
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    return httpx2.Response(
        response.status_code,
        headers=response.headers,
        stream=_Bounded(response.stream, max_bytes),
        extensions=response.extensions,
    )


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


def _addressed(request: httpx2.Request, content: bytes, address: Address) -> httpx2.Request:
    """Return the request as it goes to one address: the host's name stays in its header, and in the certificate's check."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        content=content,
        extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")},
    )


async def _checked_addresses(url: httpx2.URL, policy: Policy, resolver: Resolver) -> Sequence[Address]:
    """Resolve a URL's host, once.

    Raises:
        OutboundError: the URL is not of an allowed form, its host is not found, or one of its addresses may not be reached.
    """
    if url.scheme != "https" and not (url.scheme == "http" and policy.allows_http):
        raise OutboundError("The address has to begin with https://.")
    if not url.host or url.userinfo:
        raise OutboundError("The address needs a host, and may have no user or password in it.")
    host = url.raw_host.decode("ascii").lower()
    try:
        addresses = await resolver(host, url.port or (HTTPS_PORT if url.scheme == "https" else HTTP_PORT))
    except (OSError, UnicodeError, ValueError) as error:
        raise OutboundError("The address's host was not found.") from error
    if not all(policy.inside.has(host, address) or is_public(address) for address in addresses):
        raise OutboundError("The address may not be reached from here: it is not on the public internet.")
    return addresses
