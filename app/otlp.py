"""Spans sent to a collector over OTLP. Its libraries are an extra, so only who switches it on imports this module.

Where to and how is said by the standard `OTEL_…` variables, which the library reads by itself. What surprises: the framework's
own span of a request carries the caller's path and query; they lose what could be a secret before they go.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from app import redaction
from app.errors import AgentError
from app.traces import Attributes, Kind, Span

CLOSE_SECONDS: Final = 2.0  # for what is not sent yet, when the process stops
KINDS: Final = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}


class Otlp:
    """Traces that are sent away: the rooms' tracer, and the `provider` of the framework's.

    Args:
        version: of this service.
        exporter: where spans go; by default to the collector that the environment names.
    """

    def __init__(self, version: str, exporter: SpanExporter | None = None) -> None:
        own = Resource.create({"service.name": "suricate", "service.version": version})
        self.provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self.provider.add_span_processor(_Cleaner())
        self.provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer("suricate", version)

    @contextmanager
    def attempt(self, attributes: Attributes) -> Iterator[Span]:
        """Begin an attempt at a turn, as a part of the request under way where it is begun in one."""
        with _open(self._tracer, "invoke_agent", attributes, "internal", context.get_current()) as span:
            token = context.attach(Context())
            try:
                yield span
            finally:
                context.detach(token)

    async def aclose(self) -> None:
        """Send what is left, for so long and no longer, and end."""
        ending = threading.Thread(target=self.provider.shutdown, daemon=True)  # alone, it waits for a dead collector
        ending.start()
        await asyncio.to_thread(ending.join, CLOSE_SECONDS)


class _Open:
    """A span that has begun."""

    def __init__(self, tracer: Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span

    @contextmanager
    def child(self, name: str, attributes: Attributes, kind: Kind = "internal") -> Iterator[Span]:
        """Begin a part of it."""
        with _open(self._tracer, name, attributes, kind, trace.set_span_in_context(self._span, Context())) as part:
            yield part

    def tell(self, attributes: Attributes) -> None:
        """Add what is known by now."""
        self._span.set_attributes(_known(attributes))

    def fail(self, error_type: str) -> None:
        """Say that it did not succeed."""
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)


class _Cleaner(SpanProcessor):
    """Takes out of the framework's spans what callers have written."""

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the library gives it
        """Clean a span that has just begun; nothing of it has gone anywhere yet."""
        said = span.attributes or {}
        if "url.path" in said:
            span.set_attribute("url.path", redaction.redacted(str(said["url.path"])))
        if "url.query" in said:
            span.set_attribute("url.query", redaction.MARK)


@contextmanager
def _open(tracer: Tracer, name: str, attributes: Attributes, kind: Kind, parent: Context) -> Iterator[_Open]:
    """Begin a span and end it with the block, with the kind of an error that leaves it; its words may hold anything."""
    span = tracer.start_span(name, parent, KINDS[kind], _known(attributes))
    running = _Open(tracer, span)
    try:
        yield running
    except (asyncio.CancelledError, GeneratorExit):
        running.tell({"suricate.outcome": "cut"})
        raise
    except BaseException as error:
        running.fail(error.reason if isinstance(error, AgentError) else type(error).__name__)
        raise
    finally:
        span.end()


def _known(attributes: Attributes) -> dict[str, str | int | float | list[str]]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in attributes.items() if value is not None}
