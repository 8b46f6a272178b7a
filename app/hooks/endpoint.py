"""A hook behind HTTP: one signed POST, no redirect, no proxy of the environment, and an answer of a bounded size.

The receiver checks `X-Suricate-Signature: t=<unix seconds>,v1=<hex>`, where the hex is the HMAC-SHA256 of `<t>.<body>` under
the secret that both sides know, and refuses old times.
"""

import hashlib
import hmac
from contextlib import aclosing
from typing import Final

import httpx2

from app import clock
from app.hooks.base import MAX_BODY_BYTES, HookFault

SIGNATURE_HEADER: Final = "x-suricate-signature"
MAX_PORT: Final = 65_535
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Endpoint:
    """Asks a URL.

    Args:
        secret: what requests are signed with.
        transport: shared by all endpoints; whoever made it closes it.
    """

    def __init__(self, url: httpx2.URL, secret: str, transport: httpx2.AsyncBaseTransport) -> None:
        self._url = url
        self._secret = secret
        self._transport = transport

    async def answer(self, body: bytes) -> bytes:
        """Post the payload and return the body of a 200.

        Raises:
            HookFault: it cannot be reached, hung up, or answered with another status, compressed, or too much.
        """
        headers = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": "suricate",
            SIGNATURE_HEADER: signature(self._secret, body, at=clock.epoch_milliseconds() // 1000),
        }
        try:
            response = await self._transport.handle_async_request(
                httpx2.Request("POST", self._url, headers=headers, content=body)
            )
            async with aclosing(response):
                return await _content(response)
        except (httpx2.TransportError, UnicodeError) as error:  # the latter of a name that the resolver cannot take
            raise HookFault("The hook cannot be reached, or hung up before its answer was whole.") from error


def signature(secret: str, body: bytes, *, at: int) -> str:
    """Return the signature's header for a body that is sent at a time, in Unix seconds."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def url_of(text: str) -> httpx2.URL:
    """Read a hook's URL.

    Raises:
        ValueError: it is not http(s), names no host, or has a user, a password or a fragment.
    """
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        raise ValueError("not a URL") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("must begin with http:// or https:// and name a host")
    if url.userinfo or url.fragment:
        raise ValueError("must have no user, password or fragment")
    if not 0 < port_of(url) <= MAX_PORT:
        raise ValueError("must have a port from 1 to 65535")
    return url


def port_of(url: httpx2.URL) -> int:
    """Return the port that a URL leads to."""
    return url.port if url.port is not None else DEFAULT_PORTS[url.scheme]


async def _content(response: httpx2.Response) -> bytes:
    if response.status_code != httpx2.codes.OK:
        raise HookFault(f"The hook answered {response.status_code}.")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise HookFault("The hook's answer is compressed, though that was not asked for.")
    stream, content = response.stream, bytearray()
    assert isinstance(stream, httpx2.AsyncByteStream)
    async for piece in stream:
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise HookFault(f"The hook's answer is larger than {MAX_BODY_BYTES} bytes.")
    return bytes(content)
