"""Requests as Anthropic's Messages API takes them, whatever the transcript."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.messages import Image, Message, Reasoning, Text, ToolResult, ToolUse
from app.providers.anthropic_messages import write_request
from app.providers.base import ModelRequest, ToolSpec
from tests.provider_double.anthropic_transcript import complaints, signature_of

DATETIME = ToolSpec("datetime", "Tell the time.", {"type": "object", "properties": {}})
USER = Message("user", (Text("Hello"),))
MARK = {"cache_control": {"type": "ephemeral"}}

texts = st.text(max_size=10)
users = texts.map(lambda text: [Message("user", (Text(text),))])
arguments = st.one_of(texts, st.none(), st.lists(texts, max_size=1), st.dictionaries(texts, texts, max_size=2))
places = st.none() | st.tuples(st.integers(0, 12), st.integers(0, 3)).map(list)
thinkings = st.sampled_from([
    None, {"type": "adaptive"}, {"type": "disabled"}, {"type": "enabled", "budget_tokens": 2000, "display": None},
])  # fmt: skip


@st.composite
def thoughts(draw: st.DrawFn) -> dict[str, Any]:
    """A block that the vendor wants back."""
    words, after = draw(texts), draw(places)
    block = {"type": "thinking", "thinking": words, "signature": signature_of(words)}
    return block if after is None else block | {"after": after}


@st.composite
def assistants(draw: st.DrawFn) -> list[Message]:
    """An assistant's message of any blocks, and the results of its calls."""
    vendor = draw(st.sampled_from(["anthropic", "gemini"]))
    words = [Reasoning(draw(texts), {vendor: draw(st.lists(thoughts(), max_size=3))})] if draw(st.booleans()) else []
    said = [Text(text) for text in draw(st.lists(texts, max_size=2))]
    ids = draw(st.lists(st.integers(min_value=0).map(lambda n: f"{n:_>70}" if n % 2 else f"call {n}"), max_size=3, unique=True))
    calls = [ToolUse(call_id, draw(texts), draw(arguments)) for call_id in ids]
    results = tuple(ToolResult(call.id, draw(texts), is_error=draw(st.booleans())) for call in calls)
    return [Message("assistant", (*words, *said, *calls)), *([Message("tool", results)] if results else [])]


@st.composite
def transcripts(draw: st.DrawFn) -> list[Message]:
    """A transcript that is valid by our rules, with every oddity that they allow; it may end anywhere."""
    parts = draw(st.lists(st.one_of(users, assistants()), max_size=6))
    messages = [message for part in parts for message in part]
    ids = [use.id for message in messages for use in message.tool_uses]
    return messages if len(set(ids)) == len(ids) else draw(users)


def written(*messages: Message, **request: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(write_request(ModelRequest("m", request.pop("system", None), messages, **request)))
    return body


@given(
    messages=transcripts(),
    system=st.none() | texts,
    thinking=thinkings,
    max_tokens=st.none() | st.integers(1, 3000),
    tools=st.sampled_from([(), (DATETIME,)]),
)
def test_every_transcript_is_written_so_that_the_vendor_takes_it(
    messages: list[Message], thinking: Any, **request: Any
) -> None:
    assert list(complaints(written(*messages, params={"thinking": thinking}, **request))) == []


def test_system_tools_and_the_last_block_are_marked_for_the_cache() -> None:
    body = written(USER, Message("user", (Text("there"),)), system="Be brief.", tools=(DATETIME, DATETIME))

    assert body["system"] == [{"type": "text", "text": "Be brief."} | MARK]
    assert [tool.get("cache_control") for tool in body["tools"]] == [None, MARK["cache_control"]]
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"} | MARK]}
    ]


def test_images_are_sent_and_those_of_other_types_named() -> None:
    png, web, svg = Image("image/png", "aGk=", None), Image(None, None, "https://x/y"), Image("image/svg+xml", "aGk=", None)

    content = written(Message("user", (png, web, svg)))["messages"][0]["content"]

    assert [block.get("source") for block in content] == [
        {"type": "base64", "media_type": "image/png", "data": "aGk="},
        {"type": "url", "url": "https://x/y"},
        None,
    ]


def test_params_stand_where_the_vendor_has_them() -> None:
    params = {"effort": "low", "disable_parallel_tool_use": True, "temperature": 0.5, "top_k": None}

    body = written(USER, tools=(DATETIME,), params=params, output_schema={"type": "object"}, max_tokens=7)

    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert (body["temperature"], body["max_tokens"]) == (0.5, 7)
    assert body.keys().isdisjoint({"effort", "disable_parallel_tool_use", "top_k", "thinking"})


@pytest.mark.parametrize(
    ("max_tokens", "limit", "budget"), [(None, 8192 + 4000, 4000), (3000, 3000, 2999), (1025, 1025, 1024), (1024, 1024, None)]
)
def test_budget_of_thinking_stays_below_the_limit(max_tokens: int | None, limit: int, budget: int | None) -> None:
    params = {"thinking": {"type": "enabled", "budget_tokens": 4000, "display": None}}

    body = written(USER, max_tokens=max_tokens, params=params)

    assert body["max_tokens"] == limit
    assert body.get("thinking") == (None if budget is None else {"type": "enabled", "budget_tokens": budget})


def test_schema_of_a_tool_is_a_plain_object_at_its_root() -> None:
    tool = ToolSpec("f", "", {"anyOf": [{"required": ["x"]}], "properties": {"x": {}}})

    assert written(USER, tools=(tool,))["tools"] == [
        {"name": "f", "input_schema": {"properties": {"x": {}}, "type": "object"}} | MARK
    ]
