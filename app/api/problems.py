"""Errors as the wire has them: RFC 9457 problem details, and the one table from code to status."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app.errors import (
    CapacityExceeded,
    MethodNotAllowed,
    RateLimited,
    Refused,
    RouteNotFound,
    StoreUnavailable,
    SuricateError,
    Unauthenticated,
)

STATUS: dict[str, int] = {
    "SESSION_NOT_FOUND": 404,
    "TURN_NOT_FOUND": 404,
    "SESSION_BUSY": 409,
    "SESSION_NOT_RUNNING": 409,
    "SESSION_ARCHIVED": 409,
    "SESSION_EXISTS": 409,
    "SESSION_PERSISTENCE_DISABLED": 501,
    "SESSION_STORE_ERROR": 503,
    "INVALID_REQUEST": 422,
    "MALFORMED_JSON": 400,
    "MALFORMED_REQUEST": 400,
    "REQUEST_TIMEOUT": 408,
    "HOST_NOT_ALLOWED": 421,
    "ORIGIN_NOT_ALLOWED": 403,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "BODY_TOO_LARGE": 413,
    "HEADERS_TOO_LARGE": 431,
    "INVALID_CURSOR": 400,
    "IDEMPOTENCY_KEY_REUSED": 422,
    "IDEMPOTENCY_IN_PROGRESS": 409,
    "CONFIG_CONFLICT": 409,
    "CAPABILITY_UNAVAILABLE": 501,
    "TURN_NOT_QUEUED": 409,
    "TOOL_CALL_NOT_PENDING": 409,
    "SESSION_COMPACTION_DISABLED": 501,
    "UNAUTHENTICATED": 401,
    "FORBIDDEN": 403,
    "RATE_LIMITED": 429,
    "CAPACITY_EXCEEDED": 429,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "INTERNAL": 500,
}
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
LINGER_SECONDS = 2.0  # how long a client may go on sending a body that is refused already
LINGER_BYTES = 64 * 2**20

log = structlog.get_logger()


def body(code: str, detail: str, members: Mapping[str, object] | None = None) -> bytes:
    """Write a problem document; the title is the status's own phrase."""
    status = STATUS[code]
    document = {
        "type": f"urn:suricate:error:{code.lower().replace('_', '-')}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    return orjson.dumps(document | dict(members or {}))


def response(error: SuricateError, headers: Mapping[str, str] | None = None) -> Response:
    """Make the answer that tells an error."""
    status = STATUS[error.code]
    own = dict(headers or {})
    if isinstance(error, StoreUnavailable):
        own["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if isinstance(error, RateLimited | CapacityExceeded):
        own["Retry-After"] = str(error.members["retry_after"])
    if isinstance(error, Unauthenticated):
        own["WWW-Authenticate"] = "Bearer"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        own["Connection"] = "close"  # the rest of the body is not read
        return _Lingering(body(error.code, error.detail, error.members), status, own, MEDIA_TYPE)
    return Response(body(error.code, error.detail, error.members), status, own, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of the app, the framework's own included, a problem document."""
    app.add_exception_handler(SuricateError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SuricateError)
    if isinstance(error, StoreUnavailable):
        log.warning("store_unavailable", error=str(error.__cause__))
    elif not isinstance(error, Refused):
        log.error("unexpected_error", error=error.code)
    return response(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _allowed(request)
    known: dict[int, type[SuricateError]] = {404: RouteNotFound, 405: MethodNotAllowed}
    kind = known.get(error.status_code, SuricateError)
    words = "There is no such route." if kind is RouteNotFound else "This route does not have this method."
    return response(kind(words if kind is not SuricateError else "The request failed."), headers)


def _allowed(request: Request) -> str:
    """All methods of a path; the framework names those of its first route alone."""
    routes = [context.original_route for context in iter_route_contexts(request.app.routes)]
    here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in here for method in getattr(route, "methods", None) or ()}))


class _Lingering(Response):
    """An answer to a body that is still coming: closing at once would reset the connection, and the answer with it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI gives it
        """Answer, then throw away what comes until the client has read it and left, or for a while."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await _discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    size = 0
    while size < LINGER_BYTES:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            return
        size += len(message["body"])


def as_errors(errors: list[Any]) -> list[dict[str, str]]:
    """Show what pydantic found, without any value of the input; a place is cut at 64 characters."""
    return [
        {
            "loc": ".".join(str(part)[:64] for part in fault["loc"]) or "body",
            "msg": "Not a known type." if fault["type"] == "union_tag_invalid" else fault["msg"],
        }
        for fault in errors
    ]
