"""A request of Anthropic's Messages API as JSON.

It knows neither HTTP nor time. Whatever the transcript, also one that another vendor's model has begun, the request is one
that the vendor takes. What surprises: a thinking block must stand again where it stood, and a transcript keeps all text of
a message in one piece; so each block that is kept for the vendor says in `after` how many characters and how many calls of
the answer stood before it.

Source: https://platform.claude.com/docs/en/api/messages
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from app.messages import Image, Message, Reasoning, Text, ToolResult, ToolUse, shown_image
from app.providers import names
from app.providers.base import ModelRequest, ToolSpec
from app.providers.reading import Json

VENDOR: Final = "anthropic"
DEFAULT_MAX_TOKENS: Final = 8192  # the vendor wants a limit; every current model can say as much
LEAST_THINKING_TOKENS: Final = 1024  # the vendor takes no smaller budget
TOOL_NAME_CHARACTERS: Final = 128
NOT_AT_A_SCHEMA_ROOT: Final = frozenset({"oneOf", "anyOf", "allOf"})
IMAGE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
THINKING: Final = frozenset({"thinking", "redacted_thinking"})
CACHED: Final[Json] = {"cache_control": {"type": "ephemeral"}}
# The vendor takes no blank text and no error without words, and the user must have the first and the last word.
NO_WORDS: Final = "(No words.)"
NO_DETAILS: Final = "(It failed without saying why.)"
OTHER_IMAGE: Final = "(An image of a type that this model cannot see.)"
GO_ON: Final = "(Go on.)"


def write_request(request: ModelRequest) -> bytes:
    """Write the body of a streaming request.

    A thinking budget is cut to what `max_tokens` leaves. Thinking is left out where that is too little, and where the
    answer under way did not begin with a thinking block, since the vendor refuses to think from there.
    """
    body: Json = {name: value for name, value in request.params.items() if value is not None}
    effort, is_serial = body.pop("effort", None), body.pop("disable_parallel_tool_use", None)
    messages = _messages(request.messages)
    body |= {"model": request.model, "stream": True, "messages": messages}
    body |= _limits(request.max_tokens, body.pop("thinking", None), messages)
    if request.system and request.system.strip():
        body["system"] = [_text(request.system) | CACHED]
    body |= _tools(request.tools, messages, is_serial=bool(is_serial))
    output = {} if effort is None else {"effort": effort}
    if request.output_schema is not None:
        output["format"] = {"type": "json_schema", "schema": request.output_schema}
    if output:
        body["output_config"] = output
    return orjson.dumps(body)


def _limits(max_tokens: int | None, thinking: Json | None, messages: Sequence[Json]) -> Json:
    if thinking is None or thinking["type"] != "enabled":
        limits: Json = {"max_tokens": max_tokens or DEFAULT_MAX_TOKENS}
        return limits if thinking is None else limits | {"thinking": _without_nulls(thinking)}
    budget = thinking["budget_tokens"]
    limit = max_tokens or DEFAULT_MAX_TOKENS + budget
    budget = min(budget, limit - 1)
    if budget < LEAST_THINKING_TOKENS or not _may_think(messages):
        return {"max_tokens": limit}
    return {"max_tokens": limit, "thinking": _without_nulls(thinking) | {"budget_tokens": budget}}


def _may_think(messages: Sequence[Json]) -> bool:
    """Whether the answer that these messages leave off in began with a thinking block, or is a new one."""
    if not _has_results(messages[-1], any):
        return True
    answers = messages[-2::-2]
    for answer, asked in zip(answers, messages[-3::-2], strict=True):
        if not _has_results(asked, all):
            return answer["content"][0]["type"] in THINKING
    return False


def _has_results(message: Json, quantity: Any) -> bool:
    return bool(quantity(block["type"] == "tool_result" for block in message["content"]))


def _tools(tools: Sequence[ToolSpec], messages: Sequence[Json], *, is_serial: bool) -> Json:
    """Write the tools; where there are none any more, name those of the transcript, which the vendor insists on."""
    wire = [_tool(tool) for tool in tools]
    if wire:
        wire[-1] = wire[-1] | CACHED
        return {"tools": wire} | ({"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}} if is_serial else {})
    called = {block["name"]: None for message in messages for block in message["content"] if block["type"] == "tool_use"}
    if not called:
        return {}
    gone = [{"name": name, "description": "It is gone.", "input_schema": {"type": "object"}} for name in called]
    return {"tools": gone, "tool_choice": {"type": "none"}}


def _tool(tool: ToolSpec) -> Json:
    schema = {name: value for name, value in tool.input_schema.items() if name not in NOT_AT_A_SCHEMA_ROOT}
    described = {"description": tool.description} if tool.description.strip() else {}
    return {"name": tool.name, **described, "input_schema": schema | {"type": "object"}}


def _messages(messages: Sequence[Message]) -> list[Json]:
    """Write messages with the roles in turn, the user first and last, and the last block marked for the cache."""
    wire: list[Json] = []
    for message in messages:
        role, content = _entry(message)
        if content and wire and wire[-1]["role"] == role:
            wire[-1]["content"] += content
        elif content:
            wire.append({"role": role, "content": content})
    if not wire or wire[0]["role"] == "assistant":
        wire.insert(0, {"role": "user", "content": [_text(NO_WORDS)]})
    if wire[-1]["role"] == "assistant":
        wire.append({"role": "user", "content": [_text(GO_ON)]})
    wire[-1]["content"][-1] |= CACHED
    return wire


def _entry(message: Message) -> tuple[str, list[Json]]:
    """Write one message; without blocks where only reasoning was said."""
    assert message.role != "system", "the system prompt stands in the request's `system`"
    if message.role == "assistant":
        return "assistant", _assistant_content(message)
    if message.role == "tool":
        return "user", [_result(block) for block in message.content if isinstance(block, ToolResult)]
    return "user", list(_user_content(message)) or [_text(NO_WORDS)]


def _user_content(message: Message) -> Iterator[Json]:
    for block in message.content:
        if isinstance(block, Text) and block.text.strip():
            yield _text(block.text)
        elif isinstance(block, Image):
            yield shown_image(block) if block.url or block.media_type in IMAGE_TYPES else _text(OTHER_IMAGE)


def _assistant_content(message: Message) -> list[Json]:
    """Write text, calls and what the vendor wants back, each where it stood; nothing may follow on a last thought."""
    text, calls = message.text, [_call(use) for use in message.tool_uses]
    content: list[Json] = []
    said, called = 0, 0
    for thought in _thoughts(message):
        chars, count = thought.get("after", (0, 0))
        content += _texts(text[said:chars]) + calls[called:count]
        content.append({name: value for name, value in thought.items() if name != "after"})
        said, called = max(said, chars), max(called, count)
    content += _texts(text[said:]) + calls[called:]
    while content and content[-1]["type"] in THINKING:
        content.pop()
    return content


def _thoughts(message: Message) -> list[Json]:
    vendors = [block.vendor or {} for block in message.content if isinstance(block, Reasoning)]
    return [thought for vendor in vendors for thought in vendor.get(VENDOR, ())]


def _call(use: ToolUse) -> Json:
    args = use.args if isinstance(use.args, dict) else {}
    return {"type": "tool_use", "id": _wire_id(use.id), "name": _wire_name(use.name), "input": args}


def _wire_id(use_id: str) -> str:
    return names.call_id(use_id, prefix="toolu_")


def _wire_name(name: str) -> str:
    return names.tool_name(name, most_characters=TOOL_NAME_CHARACTERS)


def _result(result: ToolResult) -> Json:
    content = result.content if result.content.strip() else NO_DETAILS if result.is_error else ""
    said = {"content": content} if content else {}
    return {"type": "tool_result", "tool_use_id": _wire_id(result.tool_use_id), **said, "is_error": result.is_error}


def _texts(text: str) -> list[Json]:
    return [_text(text)] if text.strip() else []


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _without_nulls(value: Mapping[str, Any]) -> Json:
    return {name: member for name, member in value.items() if member is not None}
