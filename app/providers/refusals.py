"""Answers that are no answer: a vendor's HTTP status and error object as one of the contract's reasons.

The vendor's words are read to tell one refusal from another, and never repeated.
"""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final

import orjson

from app import clock
from app.errors import ProviderError

MAX_RETRY_AFTER_SECONDS: Final = 300.0
CONTEXT_IS_FULL: Final = re.compile(
    r"context.?(length|window|size|limit)|maximum context|(prompt|input) is too long|too many tokens|input token count",
    re.IGNORECASE,
)
KEY_IS_WRONG: Final = re.compile(r"\bAPI.key (not valid|expired)", re.IGNORECASE)  # Google says so with a 400
RETRY_DELAY: Final = re.compile(r"(\d{1,9}(?:\.\d+)?)s")
QUOTA_IS_SPENT: Final = "insufficient_quota"
NO_SUCH_MODEL: Final = "model_not_found"


def from_status(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Make the error for a status other than 200.

    Args:
        body: as much of it as was read; it may be anything.
    """
    error = _error_object(body)
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT} or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _busy(status, headers, error)
    if status < HTTPStatus.BAD_REQUEST:
        return ProviderError("PROVIDER_PROTOCOL", f"The provider answered {status} and no stream; is its URL right?")
    return _final(status, error)


def says_context_is_full(error: object) -> bool:
    """Whether a vendor's error object says that the transcript is too long."""
    if not isinstance(error, dict):
        return False
    return any(CONTEXT_IS_FULL.search(str(error.get(name))) for name in ("code", "type", "message"))


def context_overflow() -> ProviderError:
    """Make the error of a transcript that is too long."""
    return ProviderError("CONTEXT_OVERFLOW", "The conversation is longer than the model's context.")


def malformed(message: str) -> ProviderError:
    """Make the error of a stream that is not of its wire."""
    return ProviderError("PROVIDER_PROTOCOL", message, is_retryable=True)


def unavailable(message: str, *, retry_after_seconds: float | None = None) -> ProviderError:
    """Make the error of a vendor that cannot be reached, is down, or is too slow."""
    return ProviderError("PROVIDER_UNAVAILABLE", message, is_retryable=True, retry_after_seconds=retry_after_seconds)


def _busy(status: int, headers: Mapping[str, str], error: Mapping[str, Any]) -> ProviderError:
    """Make the error of a call that may succeed later."""
    seconds = _retry_after(headers.get("retry-after", ""))
    seconds = _retry_delay(error) if seconds is None else seconds
    if status != HTTPStatus.TOO_MANY_REQUESTS:
        return unavailable(f"The provider answered {status}.", retry_after_seconds=seconds)
    return ProviderError(
        "PROVIDER_RATE_LIMITED",
        "The provider answered 429: too many requests, or no quota left.",
        is_retryable=error.get("code") != QUOTA_IS_SPENT,
        retry_after_seconds=seconds,
    )


def _final(status: int, error: Mapping[str, Any]) -> ProviderError:
    """Make the error of a call that would fail again."""
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} or KEY_IS_WRONG.search(str(error.get("message"))):
        return ProviderError("PROVIDER_AUTH", f"The provider refused the credentials ({status}).")
    if says_context_is_full(error):
        return context_overflow()
    if status == HTTPStatus.NOT_FOUND or error.get("code") == NO_SUCH_MODEL:
        return ProviderError("MODEL_UNKNOWN", f"The provider knows no such model or address ({status}).")
    return ProviderError("PROVIDER_REFUSED_REQUEST", f"The provider refused the request ({status}).")


def _error_object(body: bytes) -> Mapping[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    return error if isinstance(error, dict) else {"message": error}


def _retry_after(value: str) -> float | None:
    """Read `Retry-After`: whole seconds or a date, capped; None where it is neither."""
    if value.isascii() and value.isdigit():
        seconds = float(value[:9])
    else:
        try:
            seconds = (parsedate_to_datetime(value).astimezone(UTC) - clock.now()).total_seconds()
        except ValueError:
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _retry_delay(error: Mapping[str, Any]) -> float | None:
    """Read the `retryDelay` of Google's error details, which stands for the header; None where there is none."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and (seconds := RETRY_DELAY.fullmatch(delay)):
            return min(float(seconds[1]), MAX_RETRY_AFTER_SECONDS)
    return None
