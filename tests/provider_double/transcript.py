"""The strictness of real providers, summed: what any of them answers 400 to, the double does."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import orjson

TOP_LEVEL = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "temperature", "top_p", "presence_penalty"}
    | {"frequency_penalty", "seed", "stop", "reasoning_effort", "parallel_tool_calls", "tools", "tool_choice"}
    | {"response_format", "top_k", "min_p", "repetition_penalty", "chat_template_kwargs"}
)
MEMBERS = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls"},
    "tool": {"role", "content", "tool_call_id"},
}
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
IMAGE_URL = re.compile(r"https://|data:image/\w+;base64,")
TOOL_CALL_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")


class InvalidTranscriptError(Exception):
    """The request is one that a real provider refuses; the message says why."""


def parse(body: bytes) -> dict[str, Any]:
    """Read and judge a request.

    Raises:
        InvalidTranscriptError: with the first thing that is wrong.
    """
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidTranscriptError(f"not JSON: {error}") from error
    if not isinstance(request, dict):
        raise InvalidTranscriptError("the body is not an object")
    if complaint := next(complaints(request), None):
        raise InvalidTranscriptError(complaint)
    return request


def complaints(request: Mapping[str, Any]) -> Iterator[str]:
    """Say everything that is wrong with a request, as far as it can be read."""
    yield from (f"unknown field {name}" for name in request.keys() - TOP_LEVEL)
    if not isinstance(request.get("model"), str) or not request["model"]:
        yield "model is missing"
    if request.get("stream") is not True:
        yield "stream must be true: the double knows no other way"
    if request.get("parallel_tool_calls") is not None and "tools" not in request:
        yield "parallel_tool_calls is only allowed with tools"
    if "max_tokens" in request and (type(request["max_tokens"]) is not int or request["max_tokens"] < 1):
        yield "max_tokens is not a positive integer"
    yield from _tools(request)
    messages = request.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        yield "messages is not a list of objects"
        return
    yield from _each(messages)
    yield from _order(messages)
    yield from _answers(messages)


def last_user_text(request: Mapping[str, Any]) -> str:
    """Return the text of the last user message."""
    texts = [str(message["content"]) for message in request["messages"] if message["role"] == "user"]
    return texts[-1] if texts else ""


def _tools(request: Mapping[str, Any]) -> Iterator[str]:
    if "tools" not in request:
        return
    tools = request["tools"]
    if not isinstance(tools, list) or not tools:
        yield "tools is not a list with entries"
        return
    for position, tool in enumerate(tools):
        function = tool.get("function", {})
        if tool.get("type") != "function" or not TOOL_NAME.fullmatch(function.get("name", "")):
            yield f"tools[{position}] is not a function with a valid name"
        if function.get("parameters", {}).get("type") != "object":
            yield f"tools[{position}].parameters has no object root"
    names = [tool.get("function", {}).get("name") for tool in tools]
    if len(set(names)) < len(names):
        yield "two tools have the same name"


def _each(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        role, content = message.get("role"), message.get("content")
        if role not in MEMBERS:
            yield f"{where}: unknown role"
            continue
        yield from (f"{where}: unknown field {name}" for name in message.keys() - MEMBERS[role])
        if role == "assistant":
            yield from _assistant(where, message)
        elif role == "user" and isinstance(content, list):
            yield from _parts(where, content)
        elif not isinstance(content, str):
            yield f"{where}: content is not a string"


def _parts(where: str, parts: Sequence[Any]) -> Iterator[str]:
    if not parts:
        yield f"{where}: content is a list without entries"
    for part in parts:
        match part:
            case {"type": "text", "text": str(), **others} if not others:
                pass
            case {"type": "image_url", "image_url": {"url": str(url)}, **others} if not others and IMAGE_URL.match(url):
                pass
            case _:
                yield f"{where}: a part that is neither text nor an image at https or in base64"


def _assistant(where: str, message: Mapping[str, Any]) -> Iterator[str]:
    content, calls = message.get("content"), message.get("tool_calls")
    if "tool_calls" in message and (not isinstance(calls, list) or not calls):
        yield f"{where}: tool_calls is not a list with entries"
    if not content and not calls:
        yield f"{where}: an assistant message with neither content nor tool_calls"
    if content is not None and not isinstance(content, str):
        yield f"{where}: content is not a string"
    for number, call in enumerate(calls if isinstance(calls, list) else ()):
        yield from _call(f"{where}.tool_calls[{number}]", call)


def _call(where: str, call: Mapping[str, Any]) -> Iterator[str]:
    function = call.get("function", {})
    if call.keys() != {"id", "type", "function"} or call["type"] != "function":
        yield f"{where}: not exactly id, type and function"
    if not TOOL_CALL_ID.fullmatch(str(call.get("id", ""))):
        yield f"{where}: id is not of 1 to 40 letters, digits, _ and -"
    if not TOOL_NAME.fullmatch(str(function.get("name", ""))):
        yield f"{where}: the name is not of 1 to 64 letters, digits, _ and -"
    try:
        is_object = isinstance(json.loads(function["arguments"]), dict)
    except (KeyError, TypeError, ValueError):
        is_object = False
    if not is_object:
        yield f"{where}: arguments is not the text of a JSON object"


def _order(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    roles = [message.get("role") for message in messages]
    if "system" in roles[1:]:
        yield "a system message that is not the first message"
    talk = [role for role in roles if role != "system"]
    if not talk or talk[0] != "user":
        yield "the first message after the system message is not the user's"
    if talk and talk[-1] not in {"user", "tool"}:
        yield "the last message is neither the user's nor a tool's"
    for before, after in pairwise(talk):
        if before == after and after in {"user", "assistant"}:
            yield f"two {after} messages in a row"


def _answers(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each call has exactly one answer, directly after it and in its order; ids are unique in the transcript."""
    open_ids: list[str] = []
    seen: set[str] = set()
    for position, message in enumerate(messages):
        if message.get("role") == "tool":
            if not open_ids or message.get("tool_call_id") != open_ids.pop(0):
                yield f"messages[{position}]: a tool message that does not answer the next open call"
            continue
        if open_ids:
            yield f"messages[{position}]: calls before it have no answer"
        open_ids = [str(call.get("id")) for call in message.get("tool_calls") or ()]
        if len(set(open_ids)) < len(open_ids) or seen.intersection(open_ids):
            yield f"messages[{position}]: a tool call id that was used before"
        seen.update(open_ids)
    if open_ids:
        yield "the last calls have no answer"
