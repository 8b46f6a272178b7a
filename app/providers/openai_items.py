"""A transcript as input items of OpenAI's Responses, whoever wrote it.

The vendor refuses reasoning that leads to nothing, and a call that bears its own id without the reasoning that led to it.
What it gave is kept with the message as a list of entries in the order of its output: reasoning items as they came, and
where its texts and calls stood between them. Reasoning of other vendors stays here.

Source: https://platform.openai.com/docs/guides/reasoning
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from app.messages import Image, Message, Reasoning, Text, ToolResult, ToolUse
from app.providers import names
from app.providers.reading import Json

PROVIDER: Final = "openai"
PARAGRAPH: Final = "\n\n"  # between texts that the vendor gave apart and that are kept as one
NOTHING_SAID: Final = "(empty)"  # the vendor refuses an input without any words


def reasoning_entry(item: Mapping[str, Any]) -> Json | None:
    """Return what is sent back of a reasoning item; None where it lacks what the vendor needs without storing anything."""
    if not item.get("id") or not item.get("encrypted_content"):
        return None
    kept = {name: item[name] for name in ("type", "id", "encrypted_content")}
    return {**kept, "summary": item.get("summary") or []}  # plain `content` would be refused


def message_entry(item: Mapping[str, Any], characters: int) -> Json:
    """Return where a text stood, how many characters of the message's text it has, and its phase if it has one."""
    phase = {"phase": item["phase"]} if item.get("phase") else {}
    return {"type": "message", "characters": characters, **phase}


def call_entry() -> Json:
    """Return where the next of the message's calls stood."""
    return {"type": "function_call"}


def input_items(messages: Sequence[Message], *, has_reasoning: bool) -> list[Json]:
    """Write a transcript.

    Args:
        has_reasoning: whether the model takes reasoning items.
    """
    items = [item for message in messages for item in _items(message, has_reasoning=has_reasoning)]
    return items or [_user_item(Message("user", ()))]


def _items(message: Message, *, has_reasoning: bool) -> Sequence[Json]:
    assert message.role != "system", "the system prompt stands in the request's `system`"
    if message.role == "user":
        return [_user_item(message)]
    if message.role == "assistant":
        return _assistant_items(message, has_reasoning=has_reasoning)
    return [_result_item(block) for block in message.content if isinstance(block, ToolResult)]


def _user_item(message: Message) -> Json:
    parts = [_part(block) for block in message.content if isinstance(block, Image) or (isinstance(block, Text) and block.text)]
    return {"type": "message", "role": "user", "content": parts or [_part(Text(NOTHING_SAID))]}


def _part(block: Text | Image) -> Json:
    if isinstance(block, Text):
        return {"type": "input_text", "text": block.text}
    url = block.url or f"data:{block.media_type};base64,{block.data}"
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def _assistant_items(message: Message, *, has_reasoning: bool) -> list[Json]:
    items = [item for item in _in_order(message) if has_reasoning or item["type"] != "reasoning"]
    while items and items[-1]["type"] == "reasoning":
        items.pop()
    for item in itertools.takewhile(lambda item: item["type"] != "reasoning", items):
        item.pop("id", None)
    return items


def _in_order(message: Message) -> Iterator[Json]:
    """Write a message in the order of the vendor's output; without a word on that, texts before calls."""
    text, uses = message.text, iter(message.tool_uses)
    for entry in _entries(message):
        if entry["type"] == "reasoning":
            yield entry
        elif entry["type"] == "message":
            said, text = text[: entry["characters"]], text[entry["characters"] :]
            yield from _said(said.removeprefix(PARAGRAPH), entry.get("phase"))
        else:
            yield from map(_call_item, itertools.islice(uses, 1))
    yield from _said(text)
    yield from map(_call_item, uses)


def _entries(message: Message) -> Iterator[Json]:
    for block in message.content:
        if isinstance(block, Reasoning) and block.vendor is not None:
            yield from block.vendor.get(PROVIDER, ())


def _said(text: str, phase: str | None = None) -> Iterator[Json]:
    if text:
        item = {"type": "message", "role": "assistant", "content": text}
        yield item if phase is None else {**item, "phase": phase}


def _call_item(use: ToolUse) -> Json:
    arguments = orjson.dumps(use.args).decode() if isinstance(use.args, dict) else "{}"
    item = {
        "type": "function_call",
        "call_id": names.call_id(use.id),
        "name": names.tool_name(use.name),
        "arguments": arguments,
    }
    own = (use.vendor or {}).get(PROVIDER)
    return item if own is None else {**item, "id": own["id"]}


def _result_item(result: ToolResult) -> Json:
    return {"type": "function_call_output", "call_id": names.call_id(result.tool_use_id), "output": result.content}
