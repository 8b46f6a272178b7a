"""What Anthropic's Messages API answers 400 to, as far as a transcript can break it."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

TOP_LEVEL = frozenset(
    {"model", "max_tokens", "messages", "stream", "system", "tools", "tool_choice", "thinking", "output_config", "temperature"}
    | {"top_p", "top_k", "stop_sequences", "service_tier", "inference_geo", "metadata"}
)
MEMBERS = {
    "text": {"type", "text"},
    "image": {"type", "source"},
    "thinking": {"type", "thinking", "signature"},
    "redacted_thinking": {"type", "data"},
    "tool_use": {"type", "id", "name", "input"},
    "tool_result": {"type", "tool_use_id", "content", "is_error"},
}
OF_ROLE = {"user": {"text", "image", "tool_result"}, "assistant": {"text", "thinking", "redacted_thinking", "tool_use"}}
THINKING = {"thinking", "redacted_thinking"}
IMAGE_TYPES = {"image/jpeg", "image/png", "image/gif", "image/webp"}
TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
MAX_CACHE_MARKS = 4


def signature_of(thought: str) -> str:
    """Sign a thinking block's words."""
    return "sig-" + hashlib.sha256(thought.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def complaints(request: Any) -> Iterator[str]:
    """Say everything that is wrong with a request, as far as it can be read."""
    if not isinstance(request, dict):
        yield "the body is not an object"
        return
    yield from (f"{name}: extra inputs are not permitted" for name in request.keys() - TOP_LEVEL)
    yield from (f"{name}: field required" for name in ("model", "max_tokens", "messages") if not request.get(name))
    messages = request.get("messages")
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        yield "messages: not a list of messages with lists of blocks"
        return
    yield from _tools(request, messages)
    yield from _thinking(request, messages)
    for position, message in enumerate(messages):
        yield from _message(f"messages.{position}", message)
    yield from _order(messages)
    yield from _results(messages)
    if str(request).count("'cache_control'") > MAX_CACHE_MARKS:
        yield "a maximum of 4 blocks with cache_control may be provided"


def _is_message(message: Any) -> bool:
    if isinstance(message, dict) and isinstance(message.get("content"), str):
        message["content"] = [{"type": "text", "text": message["content"]}]
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and all(isinstance(block, dict) and "type" in block for block in content)


def _tools(request: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    tools = request.get("tools", [])
    if not tools and any(block["type"] in {"tool_use", "tool_result"} for m in messages for block in m["content"]):
        yield "requests which include `tool_use` or `tool_result` blocks must define tools"
    if not tools and "tool_choice" in request:
        yield "tool_choice may only be specified while providing tools"
    for position, tool in enumerate(tools):
        if not TOOL_NAME.fullmatch(tool.get("name", "")):
            yield f"tools.{position}.name: does not match its pattern"
        schema = tool.get("input_schema", {})
        if schema.get("type") != "object" or schema.keys() & {"oneOf", "anyOf", "allOf"}:
            yield f"tools.{position}.input_schema: not a plain object at its root"
    if len({tool.get("name") for tool in tools}) < len(tools):
        yield "tools: tool names must be unique"


def _thinking(request: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    thinking = request.get("thinking", {"type": "disabled"})
    if thinking["type"] == "enabled":
        if not 1024 <= thinking["budget_tokens"] < request["max_tokens"]:
            yield "max_tokens must be greater than thinking.budget_tokens, and that at least 1024"
        if not _began_with_thought(messages):
            yield "when `thinking` is enabled, a final assistant message must start with a thinking block"
    if thinking["type"] != "disabled" and (request.get("temperature", 1) != 1 or "top_k" in request):
        yield "temperature may only be 1, and top_k unset, when thinking is enabled"


def _began_with_thought(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the answer that is to go on began with thinking; it began after the last words of the user."""
    is_open = any(block["type"] == "tool_result" for block in messages[-1]["content"]) if messages else False
    position = len(messages) - 2
    while is_open and position > 0 and all(block["type"] == "tool_result" for block in messages[position - 1]["content"]):
        position -= 2
    return not is_open or (position >= 0 and messages[position]["content"][0]["type"] in THINKING)


def _message(where: str, message: Mapping[str, Any]) -> Iterator[str]:
    role, content = message.get("role"), message["content"]
    if role not in OF_ROLE or message.keys() != {"role", "content"}:
        yield f"{where}: not exactly a known role and content"
        return
    if not content:
        yield f"{where}: all messages must have non-empty content"
    for number, block in enumerate(content):
        at, kind = f"{where}.content.{number}", block["type"]
        if kind not in OF_ROLE[role]:
            yield f"{at}: {kind} blocks cannot be in {role} messages"
        elif kind in THINKING and "cache_control" in block:
            yield f"{at}: thinking blocks cannot be cached"
        elif extra := block.keys() - MEMBERS[kind] - {"cache_control"}:
            yield f"{at}: extra inputs are not permitted: {sorted(extra)}"
        else:
            yield from _block(at, block)
    if content and content[-1]["type"] in THINKING:
        yield f"{where}: the final block in an assistant message cannot be `thinking`"


def _block(at: str, block: Mapping[str, Any]) -> Iterator[str]:
    match block["type"]:
        case "text" if not block["text"].strip():
            yield f"{at}: text content blocks must contain non-whitespace text"
        case "image" if block["source"]["type"] == "base64" and block["source"]["media_type"] not in IMAGE_TYPES:
            yield f"{at}: not a media type of images"
        case "thinking" if block.get("signature") != signature_of(block.get("thinking", "")):
            yield f"{at}: invalid `signature` in `thinking` block"
        case "tool_use" if not TOOL_ID.fullmatch(block["id"]) or not TOOL_NAME.fullmatch(block["name"]):
            yield f"{at}: the id or the name does not match its pattern"
        case "tool_use" if not isinstance(block.get("input"), dict):
            yield f"{at}.input: input should be a valid dictionary"
        case "tool_result" if block.get("is_error") and not str(block.get("content", "")).strip():
            yield f"{at}: content cannot be empty if `is_error` is true"


def _order(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    roles = [message.get("role") for message in messages]
    if roles[:1] != ["user"]:
        yield "messages: first message must use the user role"
    if roles[-1:] != ["user"]:
        yield "this model does not support assistant message prefill"
    if any(before == after for before, after in pairwise(roles)):
        yield "messages: roles must alternate"


def _results(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each call has exactly one result, in the next message and before its words; ids are unique in the transcript."""
    seen: set[str] = set()
    open_ids: list[str] = []
    for position, message in enumerate(messages):
        kinds = [block["type"] for block in message["content"]]
        answered = [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"]
        if sorted(answered) != sorted(open_ids):
            yield f"messages.{position}: each `tool_use` block must have its `tool_result` block in the next message"
        if answered and kinds[: len(answered)] != ["tool_result"] * len(answered):
            yield f"messages.{position}: `tool_result` blocks must come first"
        open_ids = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        if len(set(open_ids)) < len(open_ids) or seen.intersection(open_ids):
            yield f"messages.{position}: `tool_use` ids must be unique"
        seen.update(open_ids)
    if open_ids:
        yield "the last `tool_use` blocks have no `tool_result`"
