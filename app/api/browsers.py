"""What a browser is told with every answer, and which of its requests are refused: headers, hosts, origins, CORS.

A page of anywhere can have a browser send requests here, with the browser's place in the network. So this server answers to its
own names alone, or a page could give its name this server's address (DNS rebinding) and read all; and a request that changes
something is not taken from a page of elsewhere. Requests that no page has made bear no `Origin`, and are none the wiser.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from app.api import problems
from app.errors import HostNotAllowed, MalformedRequest, OriginNotAllowed, Refused

ANY = "*"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
EXPOSED = (
    "Idempotency-Replayed",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-Id",
)
TAKEN = ("Authorization", "Idempotency-Key", "Last-Event-ID", "Prefer", "X-Request-Id")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?\Z")


def secured(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Add to an answer's headers what each should have and this one does not."""
    own = list(headers)
    said = {name for name, _ in own}
    return [*own, *(header for header in HEADERS if header[0] not in said)]


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom this server answers to.

    Args:
        listening: name or address that it listens on.
        hosts: other names of its own, `*.` in front of one for all below it, or `*`; none: any, unless it listens on loopback.
        origins: origins whose pages may use it, or `*`.
        with_credentials: whether browsers may send their cookies along from there.
    """

    listening: str
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    with_credentials: bool = False

    def refusal(self, scope: Scope) -> Refused | None:
        """Tell why a request is refused; None where it is not.

        Returns:
            `MalformedRequest` for a host that is no host's name, `HostNotAllowed` for another's, `OriginNotAllowed`.
        """
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) > 1 or (not hosts and scope["http_version"] != "1.0"):
            return MalformedRequest("A request has one Host.")
        host = hosts[0].lower() if hosts else ""
        if hosts and not self._answers_to(host):
            return HostNotAllowed("This server does not answer to that host; SURICATE_ALLOWED_HOSTS names those it does.")
        origin = headers.get("origin")
        if origin is None or scope["method"] in _SAFE or self._takes_from(origin, host):
            return None
        return OriginNotAllowed("Pages of that origin may not do this; SURICATE_CORS_ORIGINS names those that may.")

    def around(self, app: ASGIApp) -> ASGIApp:
        """Put CORS around an app, where there are origins whose pages may use it."""
        if not self.origins:
            return app
        return _Cors(
            app,
            allow_origins=self.origins,
            allow_methods=METHODS,
            allow_headers=TAKEN,
            allow_credentials=self.with_credentials,
            expose_headers=EXPOSED,
        )

    def _answers_to(self, host: str) -> bool:
        match = _HOST.match(host)
        if match is None:
            return False
        name = match[1].strip("[]")
        if _is_loopback(name) or name == self.listening.lower():
            return True
        if not _is_loopback(self.listening) and (not self.hosts or _is_address(name)):
            return True  # an address in figures is nobody's to point elsewhere
        return any(own in {ANY, name} or (own.startswith("*.") and name.endswith(own[1:])) for own in self.hosts)

    def _takes_from(self, origin: str, host: str) -> bool:
        return ANY in self.origins or origin in self.origins or origin.partition("://")[2] == host


class _Cors(CORSMiddleware):
    """Starlette's, which says no in a problem document."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer whether a page's script may ask what it is about to ask."""
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:  # noqa: PLR2004 - its own way to say yes
            kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
            return Response(status_code=204, headers=kept)
        refused = OriginNotAllowed("Pages of that origin may not ask this, not by this method, or not with these headers.")
        return problems.response(refused, {"Vary": answer.headers["vary"]})


def _is_loopback(name: str) -> bool:
    is_name = name == "localhost" or name.endswith(".localhost")
    return is_name or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
