"""Messages and blocks: what is stored is what comes back."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.messages import Block, Message, Reasoning, Text, ToolResult, ToolUse, Usage, dump_content, load_content

words = st.text(st.characters(codec="utf-8"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner) | st.dictionaries(words, inner),
)
blocks = st.one_of(
    st.builds(Text, words),
    st.builds(Reasoning, words),
    st.builds(ToolUse, words, words, st.dictionaries(words, json_values) | words),
    st.builds(ToolResult, words, words, st.booleans()),
)


@given(st.lists(blocks))
def test_blocks_come_back_as_they_were_stored(content: list[Block]) -> None:
    assert load_content(dump_content(content)) == tuple(content)


@pytest.mark.parametrize(
    ("block", "wire"),
    [
        (Text("a"), {"type": "text", "text": "a"}),
        (Reasoning("a"), {"type": "reasoning", "text": "a"}),
        (ToolUse("i", "n", {"x": 1}), {"type": "tool_use", "id": "i", "name": "n", "args": {"x": 1}}),
        (
            ToolResult("i", "c", is_error=True),
            {"type": "tool_result", "tool_use_id": "i", "content": "c", "is_error": True},
        ),
    ],
)
def test_blocks_are_written_as_the_wire_has_them(block: Block, wire: dict[str, object]) -> None:
    [written] = orjson.loads(dump_content([block]))

    assert written == wire
    assert next(iter(written)) == "type"


def test_text_of_a_message_is_its_text_blocks_joined() -> None:
    message = Message("assistant", (Reasoning("hm"), Text("a"), ToolUse("i", "n", {}), Text("b")))

    assert message.text == "a\n\nb"
    assert message.tool_uses == (ToolUse("i", "n", {}),)


def test_total_is_input_plus_output_without_cached_tokens() -> None:
    assert Usage(1, 2, 30, 40).total_tokens == 3
