"""Errors as the wire has them: RFC 9457 problem details, and the one table from code to status."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.errors import MethodNotAllowed, Refused, RouteNotFound, StoreUnavailable, SuricateError

STATUS: dict[str, int] = {
    "SESSION_NOT_FOUND": 404,
    "TURN_NOT_FOUND": 404,
    "SESSION_BUSY": 409,
    "SESSION_NOT_RUNNING": 409,
    "SESSION_ARCHIVED": 409,
    "SESSION_STORE_ERROR": 503,
    "INVALID_REQUEST": 422,
    "MALFORMED_JSON": 400,
    "MALFORMED_REQUEST": 400,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "BODY_TOO_LARGE": 413,
    "HEADERS_TOO_LARGE": 431,
    "INVALID_CURSOR": 400,
    "IDEMPOTENCY_KEY_REUSED": 422,
    "IDEMPOTENCY_IN_PROGRESS": 409,
    "CAPABILITY_UNAVAILABLE": 501,
    "TURN_NOT_QUEUED": 409,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "INTERNAL": 500,
}
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1

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
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        own["Connection"] = "close"  # the rest of the body is not read
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


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known: dict[int, type[SuricateError]] = {404: RouteNotFound, 405: MethodNotAllowed}
    kind = known.get(error.status_code, SuricateError)
    words = "There is no such route." if kind is RouteNotFound else "This route does not have this method."
    return response(kind(words if kind is not SuricateError else "The request failed."), error.headers)


def as_errors(errors: list[Any]) -> list[dict[str, str]]:
    """Show what pydantic found, without any value of the input; a place is cut at 64 characters."""
    return [{"loc": ".".join(str(part)[:64] for part in fault["loc"]) or "body", "msg": fault["msg"]} for fault in errors]
