"""What every request passes first and every answer last: id, head limit, hosts and origins, headers, log line, metrics.

Plain ASGI, because Starlette's middleware base would buffer and slow the streams.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import structlog
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import clock, ids, telemetry
from app.api import browsers, problems
from app.errors import HeadersTooLarge, Refused, StoreUnavailable, SuricateError

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})

log = structlog.get_logger()


class Front:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, *, max_header_bytes: int, policy: browsers.Policy) -> None:
        self._app = app
        self._max_header_bytes = max_header_bytes
        self._policy = policy
        self._admit = policy.around(self._admitted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = _Visit(scope, send)
        with structlog.contextvars.bound_contextvars(request_id=visit.request_id):
            try:
                await self._admit(scope, receive, visit.send)
            except asyncio.CancelledError:  # the server stops, and this has taken longer than it waits
                if not visit.is_answered:
                    stopping = StoreUnavailable("The server stops, and gives this up; send the request again.")
                    await self._told(stopping)(scope, receive, visit.send)
                raise
            except Exception:
                log.exception("request_crashed")
                if visit.is_answered:
                    raise
                mistake = SuricateError("The server made a mistake; it has been logged.")
                await self._told(mistake)(scope, receive, visit.send)
            finally:
                visit.conclude()

    def _told(self, error: SuricateError) -> ASGIApp:
        return self._policy.around(problems.response(error))

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        await (self._app if refusal is None else problems.response(refusal))(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refused | None:
        if _head_bytes(scope) > self._max_header_bytes:
            return HeadersTooLarge(f"The request's head is over {self._max_header_bytes} bytes.")
        return self._policy.refusal(scope)


class _Visit:
    """One request on its way."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._began = clock.monotonic()
        self._status = 0
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        self.request_id = given.decode() if _SANE_ID.match(given) else ids.uuid7()

    @property
    def is_answered(self) -> bool:
        """Whether the head of an answer has gone out."""
        return self._status > 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            further = self._scope.get("state", {}).get("headers", {})
            own = [(name.lower().encode(), value.encode()) for name, value in further.items()]
            own.append((b"x-request-id", self.request_id.encode()))
            message["headers"] = browsers.secured([*message["headers"], *own])
            telemetry.REQUEST_SECONDS.labels(self._route).observe(clock.monotonic() - self._began)
        await self._send(message)

    def conclude(self) -> None:
        telemetry.REQUESTS.labels(self._scope["method"], self._route, str(self._status)).inc()
        if self._scope["path"] not in _QUIET:
            log.info(
                "request",
                method=self._scope["method"],
                route=self._route,
                status=self._status,
                ms=round((clock.monotonic() - self._began) * 1000, 1),
                **ids_of(self._scope),
            )

    @property
    def _route(self) -> str:
        route = self._scope.get("route")
        return str(getattr(route, "path", "unknown"))


def telemetry_of(provider: Any) -> TelemetryConfig:
    """Have the framework make a span of each request that is somebody's, and nothing more: metrics and logs are our own.

    Args:
        provider: of OpenTelemetry's tracers; None makes none.
    """
    return {
        "tracing": provider is not None,
        "tracer_provider": provider,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        "exclude": lambda scope: scope["path"] in _QUIET,
    }


def ids_of(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ids in a request's path, as far as they have their form: else it is the caller's text, and no log's."""
    params = scope.get("path_params") or {}
    return {name: value for name, value in params.items() if ids.is_id(str(value))}


def _head_bytes(scope: Scope) -> int:
    headers = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    return headers + len(scope.get("raw_path") or b"") + len(scope["query_string"])
