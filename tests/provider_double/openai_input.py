"""What OpenAI answers 400 to in a request to Responses, as far as anyone has met it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TOP_LEVEL = frozenset(
    {"model", "input", "instructions", "stream", "store", "include", "max_output_tokens", "tools", "tool_choice", "text"}
    | {"reasoning", "temperature", "top_p", "parallel_tool_calls", "service_tier", "prompt_cache_key", "truncation"}
    | {"prompt_cache_retention", "prompt_cache_options", "safety_identifier"}
)
MEMBERS = {
    "message": {"type", "role", "content", "phase"},
    "reasoning": {"type", "id", "summary", "encrypted_content"},
    "function_call": {"type", "id", "call_id", "name", "arguments"},
    "function_call_output": {"type", "call_id", "output"},
}
PARTS = {"input_text": {"type", "text"}, "input_image": {"type", "image_url", "detail"}}
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
NOT_REASONING = re.compile(r"gpt-4|gpt-3\.5")
STRICT_KEYWORDS = frozenset(
    {"type", "enum", "const", "anyOf", "$ref", "$defs", "properties", "required", "additionalProperties", "items"}
    | {"description", "title", "pattern", "format", "multipleOf", "minimum", "maximum", "exclusiveMinimum"}
    | {"exclusiveMaximum", "minItems", "maxItems"}
)


@dataclass
class Issued:
    """What the double gave out and knows again.

    Args:
        reasoning: encrypted content by the id of its item.
        needs: the reasoning item that led to a call, by the call's own id.
    """

    reasoning: dict[str, str] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)


def complaints(request: Mapping[str, Any], issued: Issued) -> Iterator[str]:
    """Say everything that is wrong with a request, as far as it can be read."""
    yield from (f"unknown field {name}" for name in request.keys() - TOP_LEVEL)
    if not request.get("model"):
        yield "model is missing"
    if request.get("stream") is not True or request.get("store") is not False:
        yield "stream must be true and store false: the double knows no other way"
    if request.get("max_output_tokens", 16) < 16:
        yield "max_output_tokens is under 16"
    takes_reasoning = not NOT_REASONING.match(str(request.get("model")))
    if not takes_reasoning and request.get("include"):
        yield "encrypted content is not supported with this model"
    yield from _tools(request.get("tools", []))
    yield from _format(request.get("text", {}).get("format"))
    items = request.get("input")
    if not isinstance(items, list) or not items:
        yield "input is not a list with entries"
        return
    for position, item in enumerate(items):
        yield from (f"input[{position}]: {complaint}" for complaint in _item(item, issued))
    yield from _reasoning_order(items, issued, takes_reasoning=takes_reasoning)
    yield from _answers(items)


def _tools(tools: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for position, tool in enumerate(tools):
        parameters = tool.get("parameters", {})
        if tool.get("type") != "function" or not NAME.fullmatch(tool.get("name", "")) or tool.get("strict") is not False:
            yield f"tools[{position}] is not a lenient function with a valid name"
        if parameters.get("type") != "object" or not isinstance(parameters.get("properties"), dict):
            yield f"tools[{position}].parameters: object schema missing properties"
        if parameters.keys() & {"anyOf", "oneOf", "allOf", "enum", "not"}:
            yield f"tools[{position}].parameters: a combination at the top level"


def _format(wanted: Mapping[str, Any] | None) -> Iterator[str]:
    if wanted is None:
        return
    if wanted.get("type") != "json_schema" or not NAME.fullmatch(wanted.get("name", "")):
        yield "text.format is no json_schema with a valid name"
    if wanted["schema"].get("type") != "object":
        yield "text.format.schema: the root has to be an object"
    if wanted.get("strict"):
        yield from strict_complaints(wanted["schema"])


def strict_complaints(schema: object) -> Iterator[str]:
    """Say what strict mode refuses in a schema."""
    if not isinstance(schema, dict):
        yield "a schema that is no object"
        return
    yield from (f"{name} is not permitted" for name in schema.keys() - STRICT_KEYWORDS)
    if "$ref" in schema and len(schema) > 1:
        yield "$ref cannot have keywords beside it"
    if not schema.keys() & {"type", "anyOf", "$ref"}:
        yield "a schema without a type"
    properties = schema.get("properties", {})
    if "object" in str(schema.get("type")) and schema.get("additionalProperties") is not False:
        yield "additionalProperties is required to be supplied and to be false"
    if set(schema.get("required", [])) != set(properties):
        yield "required is required to name every property"
    if schema.get("type") == "array" and "items" not in schema:
        yield "array schema missing items"
    below = [*properties.values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", [])]
    for child in [*below, *([schema["items"]] if "items" in schema else [])]:
        yield from strict_complaints(child)


def _item(item: Mapping[str, Any], issued: Issued) -> Iterator[str]:
    kind = item.get("type", "")
    if kind not in MEMBERS:
        yield "unknown type"
        return
    yield from (f"unknown field {name}" for name in item.keys() - MEMBERS[kind])
    if kind == "message":
        yield from _message(item)
    elif kind == "function_call":
        yield from _call(item)
    elif kind == "reasoning":
        if issued.reasoning.get(item.get("id", "")) != item.get("encrypted_content"):
            yield "the encrypted content could not be verified"
        if not isinstance(item.get("summary"), list):
            yield "missing required parameter summary"
    elif not isinstance(item.get("output"), str):
        yield "output is not a string"


def _message(item: Mapping[str, Any]) -> Iterator[str]:
    content = item.get("content")
    if item.get("role") == "assistant":
        if not isinstance(content, str) or not content:
            yield "an assistant message without text"
        return
    if item.get("role") != "user" or not isinstance(content, list) or not content:
        yield "a message that is neither the assistant's nor a user's with content"
        return
    for part in content:
        if part.keys() != PARTS.get(part.get("type")) or "" in part.values():
            yield "a part that is no text and no image"
        if not re.match(r"https://|data:image/\w+;base64,", part.get("image_url", "https://")):
            yield "an image that is neither data nor at https"


def _call(item: Mapping[str, Any]) -> Iterator[str]:
    if not item.get("id", "fc_").startswith("fc_"):
        yield "expected an id that begins with fc"
    if not NAME.fullmatch(item.get("call_id", "")) or not NAME.fullmatch(item.get("name", "")):
        yield "call_id or name is not of 1 to 64 letters, digits, _ and -"
    try:
        is_object = isinstance(json.loads(item["arguments"]), dict)
    except (KeyError, TypeError, ValueError):
        is_object = False
    if not is_object:
        yield "arguments is not the text of a JSON object"


def _reasoning_order(items: Sequence[Mapping[str, Any]], issued: Issued, *, takes_reasoning: bool) -> Iterator[str]:
    """Reasoning leads to something of the assistant's, and a call with an id of its own comes after what led to it."""
    seen: set[str] = set()
    for item, after in zip(items, [*items[1:], {}], strict=True):
        if item["type"] == "reasoning":
            if not takes_reasoning or item.get("id", "") in seen:
                yield "a reasoning item that came before, or that this model does not take"
            if after.get("type") not in {"reasoning", "function_call"} and after.get("role") != "assistant":
                yield "a reasoning item was provided without its required following item"
            seen.add(item.get("id", ""))
        needed = issued.needs.get(item.get("id", "")) if item["type"] == "function_call" else None
        if needed is not None and needed not in seen:
            yield "a function_call was provided without its required reasoning item"


def _answers(items: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    open_ids: list[str] = []
    for item in items:
        if item["type"] == "function_call":
            open_ids.append(item["call_id"])
        elif item["type"] == "function_call_output":
            if item["call_id"] not in open_ids:
                yield "no tool call found for a function call output"
            else:
                open_ids.remove(item["call_id"])
        elif item.get("role") == "user" and open_ids:
            yield "no tool output found for a function call"
    if open_ids:
        yield "no tool output found for a function call at the end"
