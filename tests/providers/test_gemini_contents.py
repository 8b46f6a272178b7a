"""Requests as the vendor takes them, whoever wrote the transcript; the double's judge says what it would refuse."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.messages import Image, Message, Reasoning, Text, ToolResult, ToolUse
from app.providers.base import ModelRequest, ToolSpec
from app.providers.gemini_contents import write_request
from tests.provider_double.gemini import complaints
from tests.providers.test_chat_completions import transcripts

DATETIME = ToolSpec("datetime", "Tell the time.", {"type": "object", "properties": {}})
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FOREIGN = (
    Message("user", (Text("Go"),)),
    Message(
        "assistant",
        (
            Reasoning("Secret.", {"anthropic": [{"signature": "x"}]}),
            Text("First."),
            ToolUse("toolu:1", "web/search", {"q": [1]}, {"anthropic": "x"}),
            ToolUse("b", "7", '{"x": '),
        ),
        "tool_use",
    ),
    Message("tool", (ToolResult("toolu:1", "found", is_error=False), ToolResult("b", "not JSON", is_error=True))),
    Message("user", (Text("Well?"),)),
)


def written(*messages: Message, model: str = "gemini-3-pro", **members: Any) -> dict[str, Any]:
    """The body, after the vendor's judge has taken it."""
    request = ModelRequest(model, members.pop("system", None), messages or (Message("user", (Text("Hi"),)),), **members)
    body: dict[str, Any] = orjson.loads(write_request(request))
    assert list(complaints(body, model)) == []
    return body


@given(
    messages=transcripts(), system=st.none() | st.text(max_size=10), model=st.sampled_from(["gemini-2.5-pro", "gemini-3-pro"])
)
def test_every_transcript_is_written_so_that_the_vendor_takes_it(
    messages: list[Message], system: str | None, model: str
) -> None:
    written(*messages, system=system, model=model, tools=(DATETIME,), output_schema=SCHEMA)


def test_transcript_of_another_vendor_is_translated() -> None:
    _, answer, results = written(*FOREIGN)["contents"]

    first, second = (part["functionCall"] for part in answer["parts"][1:])
    assert answer["parts"][0] == {"text": "First."}
    assert [(first["name"], first["args"]), (second["name"], second["args"])] == [("web_search", {"q": [1]}), ("_7", {})]
    assert ["thoughtSignature" in part for part in answer["parts"]] == [False, True, False]
    assert results["parts"] == [
        {"functionResponse": {"id": first["id"], "name": "web_search", "response": {"output": "found"}}},
        {"functionResponse": {"id": "b", "name": "_7", "response": {"error": "not JSON"}}},
        {"text": "Well?"},
    ]


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "models/gemini-1.5-pro", "gemma-3-27b-it"])
def test_model_that_wants_no_signature_gets_none_that_it_did_not_give(model: str) -> None:
    body = orjson.loads(write_request(ModelRequest(model, None, FOREIGN)))

    assert not any("thoughtSignature" in part for part in body["contents"][1]["parts"])


def test_oddities_of_a_transcript_are_smoothed() -> None:
    body = written(
        Message("user", (Text(""),)),
        Message("assistant", (Reasoning("hm"),), "interrupted"),
        Message("user", (Text("Two"), Text(""))),
        Message("assistant", (Reasoning("hm"), Text("Thr")), "interrupted"),
        Message("assistant", (Text("Three."),)),
        Message("user", (Text("Four?"),)),
    )

    assert [(content["role"], [part["text"] for part in content["parts"]]) for content in body["contents"]] == [
        ("user", ["(empty)", "Two"]),
        ("model", ["Thr", "Three."]),
        ("user", ["Four?"]),
    ]


def test_images_are_sent_inline_or_by_their_address() -> None:
    data = Image("image/png", "iVBORw0=", None)
    known, unknown = (Image(None, None, url) for url in ("https://example.org/a.jpg?x=1", "https://example.org/picture"))

    [content] = written(Message("user", (Text("Look:"), data, known, unknown)))["contents"]

    assert content["parts"] == [
        {"text": "Look:"},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}},
        {"fileData": {"fileUri": "https://example.org/a.jpg?x=1", "mimeType": "image/jpeg"}},
        {"fileData": {"fileUri": "https://example.org/picture"}},
    ]


@pytest.mark.parametrize(("model", "tools"), [("gemini-2.5-pro", ()), ("gemini-3-pro", (DATETIME,))])
def test_schema_is_sent_in_the_vendors_own_mode(model: str, tools: tuple[ToolSpec, ...]) -> None:
    body = written(model=model, tools=tools, output_schema=SCHEMA)

    assert body["generationConfig"] == {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
    assert "systemInstruction" not in body


def test_schema_beside_tools_is_asked_for_in_words_of_an_older_model() -> None:
    body = written(model="gemini-2.5-pro", system="Be brief.", tools=(DATETIME,), output_schema=SCHEMA)

    [part] = body["systemInstruction"]["parts"]
    assert "generationConfig" not in body
    assert part["text"].startswith("Be brief.\n\n")
    assert part["text"].endswith(orjson.dumps(SCHEMA).decode())
