"""What is seen from outside: log lines and metrics. Neither carries a prompt, an answer or a secret: whole lines, tracebacks
included, pass the redactor last.

Metrics are written by the rooms that know the fact and read by `/metrics`. No line is logged per delta.
"""

import logging
import sys
from types import TracebackType
from typing import Any, Literal

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app import redaction

REGISTRY = CollectorRegistry()

_FAST = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1, 2, 5)
_SLOW = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def _gauge(name: str, meaning: str) -> Gauge:
    return Gauge(f"suricate_{name}", meaning, registry=REGISTRY)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"suricate_{name}", meaning, labels, buckets=buckets, registry=REGISTRY)


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(f"suricate_{name}", meaning, labels, registry=REGISTRY)


STREAMS = _gauge("streams", "Event streams that are open.")
READER_LAG_EVENTS = _gauge("reader_lag_events", "Events that the slowest open stream is behind the head of its session.")
LISTENING = _gauge("listening", "Whether wake-ups of other nodes arrive: 1 or 0.")
LIVE_TURNS = _gauge("live_turns", "Turns that this process runs.")
LEASE_AGE_SECONDS = _gauge("lease_age_seconds", "Seconds since the leases of live turns were last renewed.")
POOL_IN_USE = _gauge("pool_connections_in_use", "Pooled Postgres connections that are lent out.")
POOL_SIZE = _gauge("pool_connections_max", "Most pooled Postgres connections.")
BATCH_ENTRIES = _histogram("journal_batch_entries", "Entries in one commit of the journal.", _SIZES)
COMMIT_SECONDS = _histogram("journal_commit_seconds", "Time of one commit of the journal.", _FAST)
FIRST_TOKEN_SECONDS = _histogram("provider_first_chunk_seconds", "Time to a provider's first chunk.", _SLOW, "provider")
CALL_SECONDS = _histogram("provider_call_seconds", "Time of one whole model call.", _SLOW, "provider", "outcome")
TURNS = _counter("turns", "Turns that ended here.", "status")
RECOVERED = _counter("turns_recovered", "Turns that were taken over from an attempt that stopped renewing.")
HOOKS_DROPPED = _counter(
    "background_hooks_dropped", "Hooks in the background that were not asked, because too many were under way."
)
WEBHOOKS = _counter("webhook_attempts", "Tries at deliveries that were made here.", "outcome")
REQUESTS = _counter("http_requests", "HTTP requests.", "method", "route", "status")
REQUEST_SECONDS = _histogram("http_request_seconds", "Time to the head of the response.", _FAST, "route")


def configure_logging(*, threshold: int, style: Literal["json", "console"] | None) -> None:
    """Write logs to standard error.

    Args:
        threshold: least level, as the standard library numbers it.
        style: None is `console` on a terminal, else `json`.
    """
    is_console = style == "console" or (style is None and sys.stderr.isatty())
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]  # the other shows local variables
        if is_console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
    )
    last.append(_redacted)
    structlog.configure(
        processors=[*common, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[_without_record, *last], foreign_pre_chain=common))
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # `api.front` and the command line tell what it would
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)  # traces of what those who ask it tell in a line each
    logging.getLogger("client").setLevel(logging.CRITICAL)  # the SDK of MCP: all that a server says wrong, with traces
    sys.excepthook = _on_crash


def _json(line: Any, **_: Any) -> str:
    return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _redacted(_logger: Any, _method: str, line: str) -> str:
    return redaction.redacted(line)


def _on_crash(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Log what ends the process, where Python would print it as it is."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        structlog.get_logger().error("process_crashed", exc_info=(kind, error, traceback))


def _without_record(_logger: Any, _method: str, line: Any) -> Any:
    line.pop("_record", None)
    line.pop("_from_structlog", None)
    return line
