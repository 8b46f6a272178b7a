"""Spans of attempts, model calls and tools: what they tell, what they belong to, and what they never hold."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from app.db.engine import Database
from app.messages import Usage
from app.otlp import Otlp
from app.providers.base import TextChunk, UsageChunk
from app.sessions import Options
from app.tools.base import ToolError
from tests.agent.doubles import Acting, Part, Played, brief, call, echo, fault
from tests.journal.ledger import open_session
from tests.service import ROOT
from tests.turns.acts import interrupted
from tests.worker.floor import NodeUnderTest, Traits, ended, held_up, node, said_in

pytestmark = pytest.mark.anyio

CANARY = "canary-of-content"


@dataclass
class Traced:
    """Spans kept in memory."""

    memory: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        self.otlp = Otlp("1.2.3", self.memory)

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """Return what has ended, in order of beginning."""
        self.otlp.provider.force_flush()
        found = [span for span in self.memory.get_finished_spans() if span.name.startswith(name)]
        return sorted(found, key=lambda span: span.start_time or 0)

    @property
    def traits(self) -> Traits:
        """A node whose attempts are traced so."""
        return replace(Traits(), tracer=self.otlp)


@pytest.fixture
def traced() -> Iterator[Traced]:
    """Traces in memory."""
    traced = Traced()
    yield traced
    traced.otlp.provider.shutdown()


def said(span: ReadableSpan) -> dict[str, Any]:
    """Return a span's attributes."""
    return dict(span.attributes or {})


def parent(span: ReadableSpan) -> int | None:
    """Return the id of what a span is a part of."""
    return span.parent.span_id if span.parent else None


def own(span: ReadableSpan) -> int:
    """Return a span's id."""
    return span.get_span_context().span_id  # type: ignore[union-attr] # one that has ended has a context


async def fails(_: Any) -> str:
    """Fail."""
    raise ToolError(f"No {CANARY}.")


async def test_turn_is_an_attempt_with_its_model_calls_and_tools(database: Database, traced: Traced) -> None:
    calls = brief(call("echo", f'{{"a": "{CANARY}"}}'), call("other", index=1))
    provider = Played([calls, [UsageChunk(Usage(10, 1, 2, 3)), *brief(CANARY, usage=Usage(10, 20, 2, 3))]])
    tools = [Acting(echo), Acting(fails, name="other")]
    async with node(database, provider, tools, traced.traits) as here:
        session_id = await open_session(here.journal, Options("played", "played", max_tokens=77))
        turn_id = await here.start(session_id, CANARY)
        await ended(database, session_id, turn_id)
        await here.let_go(session_id)

    [attempt] = traced.spans("invoke_agent")
    first, second = traced.spans("chat played")
    echoed, failed = sorted(traced.spans("execute_tool"), key=lambda span: span.name)
    assert {parent(span) for span in (first, second, echoed, failed)} == {own(attempt)}
    assert (attempt.parent, attempt.kind, first.kind) == (None, SpanKind.INTERNAL, SpanKind.CLIENT)
    assert said(attempt) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "played",
        "gen_ai.request.model": "played",
        "gen_ai.conversation.id": session_id,
        "suricate.turn.id": turn_id,
        "suricate.attempt": 1,
        "suricate.node.id": here.pool.node_id,
        "suricate.outcome": "completed",
    }
    told = said(second)
    assert told.pop("gen_ai.response.time_to_first_chunk") >= 0
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "played",
        "gen_ai.request.model": "played",
        "gen_ai.request.max_tokens": 77,
        "suricate.step": 2,
        "gen_ai.usage.input_tokens": 15,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_creation.input_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.response.finish_reasons": ("end_turn",),
    }
    assert said(echoed) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "echo",
        "gen_ai.tool.call.id": "call-0",
        "gen_ai.tool.type": "function",
    }
    assert (said(failed)["error.type"], failed.status.status_code) == ("tool_error", StatusCode.ERROR)
    assert CANARY not in "".join(span.to_json() for span in traced.spans())


async def test_each_try_is_a_span_and_a_failure_tells_its_reason_alone(database: Database, traced: Traced) -> None:
    options = Options("played", "played", fallback_models=[{"model": "second", "provider": "played"}])
    refused = fault("PROVIDER_AUTH", is_retryable=False)
    answers: list[list[Part]] = [[TextChunk("Par"), fault()], [fault()], [fault()], [fault()], [refused]]
    async with node(database, Played(answers), traits=traced.traits) as here:
        session_id = await open_session(here.journal, options)
        await ended(database, session_id, await here.start(session_id))
        await here.let_go(session_id)

    tries = traced.spans("chat")
    [attempt] = traced.spans("invoke_agent")
    assert [span.name for span in tries] == ["chat played"] * 4 + ["chat second"]
    assert [said(span)["error.type"] for span in tries] == ["PROVIDER_UNAVAILABLE"] * 4 + ["PROVIDER_AUTH"]
    assert (said(attempt)["error.type"], said(attempt)["suricate.outcome"]) == ("PROVIDER_AUTH", "failed")
    assert {span.status.description for span in traced.spans()} == {None}
    assert [span for span in traced.spans() if span.events] == []


async def test_what_is_interrupted_is_cut_and_no_failure(database: Database, traced: Traced) -> None:
    _, answer = held_up()
    async with node(database, Played([answer]), traits=traced.traits) as here:
        session_id, turn_id = await here.turn()
        await said_in(database, session_id, "text_delta")
        await interrupted(here.journal, session_id, turn_id, here.pool)
        here.pool._held[session_id].stop()
        await here.let_go(session_id)

    assert [(span.name, said(span)["suricate.outcome"], span.status.status_code) for span in traced.spans()] == [
        ("invoke_agent", "cut", StatusCode.UNSET),
        ("chat played", "cut", StatusCode.UNSET),
    ]


async def test_turn_belongs_to_the_request_that_started_it_and_the_next_of_the_queue_does_not(
    database: Database, traced: Traced
) -> None:
    gate, answer = held_up(*brief("is."))
    async with node(database, Played([answer, brief("Two.")]), traits=traced.traits) as here:
        session_id, second = await queued_behind(here, traced)
        gate.set()
        await ended(database, session_id, second)
        await here.let_go(session_id)

    [request] = traced.spans("POST")
    mine, next_one = traced.spans("invoke_agent")
    assert (parent(mine), next_one.parent) == (own(request), None)


async def queued_behind(here: NodeUnderTest, traced: Traced) -> tuple[str, str]:
    """Start a turn inside a request's span, and queue another behind it outside of it."""
    with traced.otlp.provider.get_tracer("t").start_as_current_span("POST"):
        session_id, _ = await here.turn()
    return session_id, await here.start(session_id, on_busy="queue")


def test_spans_of_requests_lose_what_callers_wrote(traced: Traced) -> None:
    tracer = traced.otlp.provider.get_tracer("fastapi")
    written = {"url.path": "/v1/sur_0123456789abcdef", "url.query": f"q={CANARY}&ticket=abcdefgh", "http.route": "/v1/x"}

    tracer.start_span("GET", kind=trace.SpanKind.SERVER, attributes=written).end()

    [span] = traced.spans("GET")
    assert said(span) == {"url.path": "/v1/[redacted]", "url.query": "[redacted]", "http.route": "/v1/x"}
    assert said_of_resource(span) == ("suricate", "1.2.3")


def said_of_resource(span: ReadableSpan) -> tuple[Any, Any]:
    """Return who tells it."""
    return span.resource.attributes["service.name"], span.resource.attributes["service.version"]


IMPORTED = """
import sys
from app.main.service import create_app
from app.settings import Settings
create_app(Settings())
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "app.otlp"))])
"""


def test_nothing_of_it_is_imported_where_it_is_off() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, cwd=ROOT, check=True)

    assert done.stdout == "[]\n"
