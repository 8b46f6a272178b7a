"""A hook behind HTTP: one signed POST through the door that is given, whose answer is bounded.

The receiver checks `X-Suricate-Signature: t=<unix seconds>,v1=<hex>`, where the hex is the HMAC-SHA256 of `<t>.<body>` under
the secret that both sides know, and refuses old times.
"""

import hashlib
import hmac
from typing import Final

import httpx2

from app import clock
from app.hooks.base import MAX_TIMEOUT_MS, HookFault
from app.outbound.door import Door, OutboundError
from app.outbound.transport import DEFAULT_PORTS

SIGNATURE_HEADER: Final = "x-suricate-signature"
MAX_PORT: Final = 65_535


class Endpoint:
    """Asks a URL.

    Args:
        secret: what requests are signed with.
        door: where it may lead, and how much it may answer; whoever made it closes it.
    """

    def __init__(self, url: httpx2.URL, secret: str, door: Door) -> None:
        self._url = url
        self._secret = secret
        self._door = door

    async def answer(self, body: bytes) -> bytes:
        """Post the payload and return the body of a 200.

        Raises:
            HookFault: it may not or cannot be reached, hung up, or answered with another status, compressed, or too much.
        """
        headers = {
            "accept": "application/json",
            "content-type": "application/json",
            "user-agent": "suricate",
            SIGNATURE_HEADER: signature(self._secret, body, at=clock.epoch_milliseconds() // 1000),
        }
        try:
            answer = await self._door.request(
                "POST", str(self._url), content=body, headers=headers, timeout_seconds=MAX_TIMEOUT_MS / 1000
            )
        except OutboundError as error:
            raise HookFault(f"The hook gave no answer. {error}") from error
        if answer.status != httpx2.codes.OK:
            raise HookFault(f"The hook answered {answer.status}.")
        return answer.body


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
