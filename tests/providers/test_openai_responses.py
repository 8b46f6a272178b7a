"""Requests as OpenAI takes them whatever the transcript, the double's strictness, and events as gateways send them."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.messages import Message, Reasoning, Text, ToolResult, ToolUse
from app.providers.base import ModelChunk, ModelRequest, ReasoningChunk, TextChunk, ToolCallChunk, ToolSpec, VendorChunk
from app.providers.openai_responses import AnswerReader, write_request
from tests.provider_double.openai_input import Issued, complaints

TOOL = ToolSpec("datetime", "Tell the time.", {"type": "object", "anyOf": [{"required": ["a"]}]})
ISSUED = Issued({"rs_1": "sealed 1", "rs_2": "sealed 2"}, {"fc_1": "rs_1"})
USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
CALL = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "a", "output": "1"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed 1"}

texts = st.text(max_size=10)
arguments = st.one_of(texts, st.none(), st.lists(texts, max_size=1), st.dictionaries(texts, texts, max_size=2))
places = st.one_of(
    st.builds(lambda n: {"type": "message", "characters": n}, st.integers(min_value=0, max_value=20)),
    st.just({"type": "function_call"}),
)
foreign = st.none() | st.just({"anthropic": [{"type": "thinking"}], "gemini": "x"})


@st.composite
def own_reasoning(draw: st.DrawFn) -> dict[str, Any]:
    """What the vendor gave with a message, among places that may fit the rest of the message or not."""
    entries = draw(st.lists(places, max_size=3))
    entries.insert(draw(st.integers(min_value=0, max_value=len(entries))), dict(THOUGHT))
    return {"openai": entries}


@st.composite
def transcripts(draw: st.DrawFn) -> list[Message]:
    """A transcript that is valid by our rules; one message at most has the vendor's reasoning, the id of which is unique."""
    messages = [Message("user", (Text(draw(texts)),))]
    vendors = [draw(own_reasoning()), *draw(st.lists(foreign, max_size=3))]
    for number, vendor in enumerate(draw(st.permutations(vendors))):
        words = [Text(text) for text in draw(st.lists(texts, max_size=2))]
        own = {"openai": {"id": "fc_1"}} if number == 0 else draw(foreign)
        ids = draw(st.lists(st.sampled_from(["a", "b c", "x" * 70]), max_size=3, unique=True))
        calls = [ToolUse(f"{number} {name}", draw(texts), draw(arguments), own) for name in ids]
        results = tuple(ToolResult(call.id, draw(texts), is_error=draw(st.booleans())) for call in calls)
        messages.append(Message("assistant", (Reasoning(draw(texts), vendor), *words, *calls)))
        messages += [Message("tool", results)] if results else []
        messages += [Message("user", (Text(text),)) for text in draw(st.lists(texts, max_size=2))]
    return messages


@given(messages=transcripts(), system=st.none() | texts, model=st.sampled_from(["gpt-5", "gpt-4o"]))
def test_every_transcript_is_written_so_that_the_vendor_takes_it(
    messages: list[Message], system: str | None, model: str
) -> None:
    body = orjson.loads(write_request(ModelRequest(model, system, messages, (TOOL,), params={"parallel_tool_calls": True})))

    assert list(complaints(body, ISSUED)) == []


def test_nothing_said_at_all_is_still_a_request() -> None:
    body = orjson.loads(write_request(ModelRequest("m", None, (), params={"parallel_tool_calls": True})))

    assert "parallel_tool_calls" not in body
    assert list(complaints(body, ISSUED)) == []


INVALID: dict[str, dict[str, Any]] = {
    "unknown field": {"messages": []},
    "stored": {"store": True},
    "no input": {"input": []},
    "small limit": {"max_output_tokens": 1},
    "model without reasoning": {"model": "gpt-4o", "include": ["reasoning.encrypted_content"]},
    "tool without properties": {
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}]
    },
    "open schema, strict": {
        "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}}
    },
    "empty text": {"input": [{**USER, "content": [{"type": "input_text", "text": ""}]}]},
    "call without result": {"input": [USER, CALL]},
    "result without call": {"input": [USER, RESULT]},
    "user between call and result": {"input": [USER, CALL, USER, RESULT]},
    "arguments no object": {"input": [USER, {**CALL, "arguments": "[]"}, RESULT]},
    "foreign id": {"input": [USER, {**CALL, "id": "call_1"}, RESULT]},
    "foreign name": {"input": [USER, {**CALL, "name": "a b"}, RESULT]},
    "reasoning alone": {"input": [USER, THOUGHT]},
    "reasoning before a user": {"input": [THOUGHT, USER]},
    "reasoning twice": {"input": [USER, THOUGHT, THOUGHT, CALL, RESULT]},
    "forged reasoning": {"input": [USER, {**THOUGHT, "encrypted_content": "x"}, CALL, RESULT]},
    "bare reasoning": {"input": [USER, {**THOUGHT, "content": []}, CALL, RESULT]},
    "call without its reasoning": {"input": [USER, {**CALL, "id": "fc_1"}, RESULT]},
}


@pytest.mark.parametrize("name", INVALID)
def test_double_refuses_what_the_vendor_refuses(name: str) -> None:
    body = {"model": "m", "stream": True, "store": False, "input": [USER]}

    assert list(complaints(body, ISSUED)) == []
    assert list(complaints(body | INVALID[name], ISSUED)) != []


def read(*events: Mapping[str, Any]) -> list[ModelChunk]:
    reader = AnswerReader()
    end = {"type": "response.completed", "response": {}}
    chunks = [chunk for event in (*events, end) for chunk in reader.read([orjson.dumps(event)])]
    return [*chunks, *reader.finish()][:-1]


def item(kind: str, place: int = 0, /, *, stage: str = "done", **members: Any) -> dict[str, Any]:
    return {"type": f"response.output_item.{stage}", "output_index": place, "item": {"type": kind, **members}}


def test_call_that_comes_only_whole_is_read() -> None:
    assert read(item("function_call", id="fc_1", call_id="a", name="f", arguments='{"x":1}')) == [
        ToolCallChunk(0, "a", "f", "", {"id": "fc_1"}),
        ToolCallChunk(0, None, None, '{"x":1}'),
    ]


def test_calls_that_interleave_keep_their_arguments_apart() -> None:
    begun = [item("function_call", place, stage="added", call_id=str(place), name="f", arguments="") for place in (2, 5)]
    pieces = [(5, "b"), (2, "a"), (5, "B")]
    deltas = [{"type": "response.function_call_arguments.delta", "output_index": at, "delta": piece} for at, piece in pieces]

    chunks = [chunk for chunk in read(*begun, *deltas) if isinstance(chunk, ToolCallChunk)]

    assert [(chunk.index, chunk.id, chunk.args_delta) for chunk in chunks] == [
        (0, "2", ""), (1, "5", ""), (1, None, "b"), (0, None, "a"), (1, None, "B"),
    ]  # fmt: skip


def test_phases_of_texts_go_back_with_each_of_them() -> None:
    chunks = read(
        item("message", stage="added"),
        {"type": "response.output_text.delta", "delta": "Let me look."},
        item("message", phase="commentary"),
        item("message", 1, stage="added"),
        {"type": "response.output_text.delta", "delta": "Noon."},
        item("message", 1, phase="final_answer"),
    )
    text = "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))
    entries = [chunk.value for chunk in chunks if isinstance(chunk, VendorChunk)]
    answer = Message("assistant", (Reasoning("", {"openai": entries}), Text(text)))

    body = orjson.loads(write_request(ModelRequest("m", None, [answer])))

    assert text == "Let me look.\n\nNoon."
    assert [(sent["content"], sent["phase"]) for sent in body["input"]] == [
        ("Let me look.", "commentary"),
        ("Noon.", "final_answer"),
    ]


def test_order_of_what_came_before_the_first_reasoning_is_kept_too() -> None:
    chunks = read(
        item("message", stage="added"),
        {"type": "response.output_text.delta", "delta": "Hm."},
        item("message"),
        item("reasoning", 1, id="rs_1", summary=[], encrypted_content="sealed 1"),
        item("function_call", 2, call_id="a", name="f", arguments="{}"),
    )

    assert [chunk.value["type"] for chunk in chunks if isinstance(chunk, VendorChunk)] == [
        "message",
        "reasoning",
        "function_call",
    ]


def test_answer_without_reasoning_leaves_nothing_to_send_back() -> None:
    said = [item("message", stage="added"), {"type": "response.output_text.delta", "delta": "Hm."}, item("message")]
    unsealed = item("reasoning", 1, id="rs_1", summary=[], encrypted_content=None)

    assert read(*said, unsealed) == [TextChunk("Hm.")]


def test_bare_reasoning_is_told_like_a_summary() -> None:
    assert read({"type": "response.reasoning_text.delta", "delta": "hm"}) == [ReasoningChunk("hm")]


def test_events_of_other_kinds_are_skipped() -> None:
    assert read({"type": "response.in_progress"}, {"type": "keepalive"}, item("web_search_call")) == []


def test_what_comes_after_the_end_is_not_read() -> None:
    reader = AnswerReader()
    end = {"type": "response.completed", "response": {"usage": {"input_tokens": 1}}}

    chunks = list(reader.read([orjson.dumps(event) for event in (end, {"type": "error", "code": "server_error"})]))

    assert (chunks, reader.is_done) == ([], True)
