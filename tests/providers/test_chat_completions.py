"""Requests as the strictest servers take them, and answers as the sloppiest send them."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from app.messages import Message, Reasoning, Text, ToolResult, ToolUse
from app.providers.base import ModelRequest, ToolSpec
from app.providers.chat_completions import write_request
from tests.provider_double.transcript import complaints

DATETIME = ToolSpec("datetime", "Tell the time.", {"type": "object", "properties": {}})

texts = st.text(max_size=10)
users = texts.map(lambda text: [Message("user", (Text(text),))])
arguments = st.one_of(texts, st.none(), st.lists(texts, max_size=1), st.dictionaries(texts, texts, max_size=2))


@st.composite
def assistants(draw: st.DrawFn) -> list[Message]:
    """An assistant's message of any blocks, and the results of its calls."""
    words = [Reasoning(text) for text in draw(st.lists(texts, max_size=1))]
    said = [Text(text) for text in draw(st.lists(texts.filter(bool), max_size=2))]
    ids = draw(st.lists(st.integers(min_value=0).map(lambda n: f"{n:_>60}" if n % 2 else f"call {n}"), max_size=3, unique=True))
    calls = [ToolUse(call_id, draw(texts), draw(arguments)) for call_id in ids]
    results = tuple(ToolResult(call.id, draw(texts), is_error=draw(st.booleans())) for call in calls)
    return [Message("assistant", (*words, *said, *calls)), *([Message("tool", results)] if results else [])]


def unique_ids(messages: list[Message]) -> list[str]:
    return [use.id for message in messages for use in message.tool_uses]


@st.composite
def transcripts(draw: st.DrawFn) -> list[Message]:
    """A transcript that is valid by our rules, with every oddity that they allow."""
    middle = draw(st.lists(st.one_of(users, assistants()), max_size=6))
    messages = [*draw(users), *(message for part in middle for message in part), *draw(users)]
    ids = unique_ids(messages)
    return messages if len(set(ids)) == len(ids) else draw(users)


def written(messages: list[Message], **request: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(write_request(ModelRequest("m", request.pop("system", None), messages, **request)))
    return body


@given(messages=transcripts(), system=st.none() | texts)
def test_every_transcript_is_written_so_that_the_strictest_provider_takes_it(
    messages: list[Message], system: str | None
) -> None:
    assert list(complaints(written(messages, system=system, tools=[DATETIME]))) == []


def test_reasoning_stays_here_and_users_in_a_row_become_one() -> None:
    messages = [
        Message("user", (Text("One"),)),
        Message("assistant", (Reasoning("hm"),)),
        Message("user", (Text("two"),)),
        Message("assistant", (Reasoning("hm"), Text("Three."))),
        Message("user", (Text("Four?"),)),
    ]

    assert written(messages, system="Count.")["messages"] == [
        {"role": "system", "content": "Count."},
        {"role": "user", "content": "One\n\ntwo"},
        {"role": "assistant", "content": "Three."},
        {"role": "user", "content": "Four?"},
    ]


def test_arguments_that_are_no_object_are_sent_as_an_empty_one() -> None:
    messages = [
        Message("user", (Text("Go"),)),
        Message("assistant", (ToolUse("a", "f", {"x": [1]}), ToolUse("b", "f", '{"x": '))),
        Message("tool", (ToolResult("a", "1", is_error=False), ToolResult("b", "not JSON", is_error=True))),
    ]

    _, calls, *results = written(messages)["messages"]

    assert [call["function"]["arguments"] for call in calls["tool_calls"]] == ['{"x":[1]}', "{}"]
    assert [(result["tool_call_id"], result["content"]) for result in results] == [("a", "1"), ("b", "not JSON")]


def test_optional_members_stand_only_where_they_have_a_meaning() -> None:
    user = [Message("user", (Text("Hi"),))]

    bare = written(user, params={"temperature": None, "parallel_tool_calls": True})
    full = written(user, tools=[DATETIME], max_tokens=5, params={"temperature": 0.5, "parallel_tool_calls": True})

    assert bare.keys() == {"model", "messages", "stream", "stream_options"}
    assert full.keys() == bare.keys() | {"tools", "max_tokens", "temperature", "parallel_tool_calls"}
