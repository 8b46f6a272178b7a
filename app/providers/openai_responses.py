"""The wire of OpenAI's Responses: a request as JSON, and the events of a streamed answer.

It knows neither HTTP nor time. Nothing is stored at the vendor, so each request carries the whole transcript, and the
vendor's reasoning goes there and back encrypted.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from app.errors import ProviderError
from app.messages import StopReason, Usage
from app.providers import chunks, openai_items, openai_schemas, reading, refusals
from app.providers.base import (
    ModelChunk,
    ModelRequest,
    ToolCallChunk,
    ToolSpec,
    VendorChunk,
)
from app.providers.chunks import Channel, Chunks
from app.providers.reading import Json

LEAST_MAX_TOKENS: Final = 16
# These models refuse to be asked for encrypted reasoning; all others are taken to reason.
WITHOUT_REASONING: Final = re.compile(r"(ft:)?(gpt-3\.5|gpt-4|chatgpt-|gpt-5[\d.]*-chat)")
NESTED_PARAMS: Final = {
    "reasoning_effort": ("reasoning", "effort"),
    "reasoning_summary": ("reasoning", "summary"),
    "reasoning_context": ("reasoning", "context"),
    "reasoning_mode": ("reasoning", "mode"),
    "verbosity": ("text", "verbosity"),
    "prompt_cache_mode": ("prompt_cache_options", "mode"),
    "prompt_cache_ttl": ("prompt_cache_options", "ttl"),
}
NOT_AT_A_TOOL_ROOT: Final = frozenset({"anyOf", "oneOf", "allOf", "enum", "not"})
INCOMPLETE: Final[dict[str, StopReason]] = {"max_output_tokens": "max_tokens", "content_filter": "content_filter"}
ERROR_STATUSES: Final = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "model_not_found": 404,
    "context_length_exceeded": 400,
    "bio_policy": 400,
    "cyber_policy": 400,
    "misalignment_policy_violation": 400,
    "data_residency_mismatch": 400,
    "invalid_request_error": 400,
}
IS_REFUSED: Final = re.compile(r"invalid_|unsupported_|\w*image")  # codes of what was sent, not of the vendor's state


def write_request(request: ModelRequest) -> bytes:
    """Write the body of a streaming request.

    Raises:
        ProviderError: `PROVIDER_REFUSED_REQUEST`; the vendor takes no limit as small as this one.
    """
    has_reasoning = WITHOUT_REASONING.match(request.model) is None
    body: Json = {
        "model": request.model,
        "input": openai_items.input_items(request.messages, has_reasoning=has_reasoning),
        "stream": True,
        "store": False,
    }
    if has_reasoning:
        body["include"] = ["reasoning.encrypted_content"]
    if request.system:
        body["instructions"] = request.system
    if request.max_tokens is not None:
        body["max_output_tokens"] = _max_output_tokens(request.max_tokens)
    _add_params(body, request.params)
    if request.output_schema is not None:
        body.setdefault("text", {})["format"] = _format(request.output_schema)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    else:
        body.pop("parallel_tool_calls", None)  # it has no meaning without tools
    return orjson.dumps(body)


def _max_output_tokens(max_tokens: int) -> int:
    if max_tokens < LEAST_MAX_TOKENS:
        message = f"This provider takes no max_tokens under {LEAST_MAX_TOKENS}."
        raise ProviderError("PROVIDER_REFUSED_REQUEST", message)
    return max_tokens


def _add_params(body: Json, params: Mapping[str, Any]) -> None:
    for name, value in params.items():
        if value is None:
            continue
        if name in NESTED_PARAMS:
            outer, inner = NESTED_PARAMS[name]
            body.setdefault(outer, {})[inner] = value
        else:
            body[name] = value


def _format(schema: Mapping[str, Any]) -> Json:
    return {"type": "json_schema", "name": "answer", "schema": schema, "strict": openai_schemas.is_strict(schema)}


def _tool(tool: ToolSpec) -> Json:
    """Write a tool; not strict, since any schema is welcome and its arguments are checked here."""
    schema = {name: value for name, value in tool.input_schema.items() if name not in NOT_AT_A_TOOL_ROOT}
    parameters = {"type": "object", "properties": {}, **schema}
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters,
        "strict": False,
    }


class AnswerReader:
    """Reads the events of one answer; `stop_reason` is None until the finish marker has come."""

    def __init__(self) -> None:
        self.stop_reason: StopReason | None = None
        self._usage = Usage()
        self._chunks = Chunks()
        self._placed_characters = 0  # of the text, those whose item is done
        self._calls: dict[int, _Call] = {}  # by their place in the output
        self._entries: list[Json] = []  # done items whose order the vendor has not yet made important
        self._is_order_kept = False
        self._handlers: dict[str, Callable[[Json], None]] = {
            "response.output_text.delta": lambda event: self._add("text", event.get("delta")),
            "response.refusal.delta": lambda event: self._add("text", event.get("delta")),
            "response.reasoning_text.delta": lambda event: self._add("reasoning", event.get("delta")),
            "response.reasoning_summary_text.delta": lambda event: self._add("reasoning", event.get("delta")),
            "response.reasoning_summary_part.added": lambda _: self._begin_paragraph("reasoning"),
            "response.output_item.added": self._begin_item,
            "response.output_item.done": self._end_item,
            "response.function_call_arguments.delta": self._add_arguments,
            "response.completed": self._end,
            "response.incomplete": self._end,
            "response.failed": self._fail,
            "error": self._fail,
        }

    @property
    def is_finished(self) -> bool:
        """Whether the finish marker has come."""
        return self.stop_reason is not None

    @property
    def is_done(self) -> bool:
        """Whether nothing more can come: the finish marker carries the usage."""
        return self.stop_reason is not None

    def read(self, events: Iterable[bytes]) -> Iterator[ModelChunk]:
        """Give what the events say; neighbouring pieces of text are joined, since they came together.

        Raises:
            ProviderError: `PROVIDER_PROTOCOL` for what is not of this wire, and what an error event stands for; raised after
                what came before it.
        """
        return self._chunks.given(self._take_all, events)

    def finish(self) -> Iterator[ModelChunk]:
        """Yield the last chunk.

        Raises:
            ProviderError: `PROVIDER_PROTOCOL`; there was no finish marker, so this is no answer.
        """
        yield chunks.finish(self.stop_reason, self._usage, has_calls=bool(self._calls))

    def _take_all(self, events: Iterable[bytes]) -> None:
        for data in events:
            if not data or data == b"[DONE]":
                continue  # gateways end with it
            event = reading.event(data)
            kind = event.get("type", "error" if "error" in event else None)
            if not isinstance(kind, str):
                raise refusals.malformed("The provider sent an event without a type.")
            if handler := self._handlers.get(kind):
                handler(event)
            if self.is_done:
                return

    def _add(self, channel: Channel, text: object) -> None:
        self._chunks.say(channel, reading.text_of(text))

    def _begin_paragraph(self, channel: Channel) -> None:
        if self._chunks.characters[channel]:
            self._add(channel, openai_items.PARAGRAPH)

    def _begin_item(self, event: Json) -> None:
        item = reading.object_of(event.get("item"))
        if item.get("type") == "message":
            self._begin_paragraph("text")
        elif item.get("type") == "function_call":
            self._call(_place(event), item)

    def _end_item(self, event: Json) -> None:
        item = reading.object_of(event.get("item"))
        kind = item.get("type")
        if kind == "reasoning":
            self._keep(openai_items.reasoning_entry(item), is_order_kept=True)
        elif kind == "message":
            self._end_message(item)
        elif kind == "function_call":
            self._add_rest(self._call(_place(event), item), item.get("arguments"))
            self._keep(openai_items.call_entry())

    def _end_message(self, item: Json) -> None:
        characters = self._chunks.characters["text"] - self._placed_characters
        self._placed_characters = self._chunks.characters["text"]
        self._keep(openai_items.message_entry(item, characters), is_order_kept=bool(item.get("phase")))

    def _keep(self, entry: Json | None, *, is_order_kept: bool = False) -> None:
        """Keep an item's place; from the first that the vendor wants back, places are given with the message."""
        if entry is None:
            return
        self._entries.append(entry)
        self._is_order_kept = self._is_order_kept or is_order_kept
        if self._is_order_kept:
            for kept in self._entries:
                self._chunks.add(VendorChunk(kept))
            self._entries.clear()

    def _call(self, place: int, item: Json) -> "_Call":
        """Return the call at a place of the output; tell of it where it is new."""
        if place not in self._calls:
            self._calls[place] = call = _Call(len(self._calls))
            own_id = reading.text_or_empty(item.get("id"))
            vendor = {"id": own_id} if own_id else None
            call_id, name = reading.text_or_empty(item.get("call_id")), reading.text_or_empty(item.get("name"))
            self._chunks.add(ToolCallChunk(call.index, call_id, name, "", vendor))
        return self._calls[place]

    def _add_arguments(self, event: Json) -> None:
        call = self._calls.get(_place(event))
        if call is None or not isinstance(delta := event.get("delta"), str):
            raise refusals.malformed("The provider sent arguments that belong to no call, or are no text.")
        call.arguments += delta
        self._chunks.add(ToolCallChunk(call.index, None, None, delta))

    def _add_rest(self, call: "_Call", arguments: object) -> None:
        """Give the arguments that only the whole call has: gateways leave the deltas out."""
        if isinstance(arguments, str) and arguments.startswith(call.arguments):
            rest = arguments[len(call.arguments) :]
            call.arguments = arguments
            if rest:
                self._chunks.add(ToolCallChunk(call.index, None, None, rest))

    def _end(self, event: Json) -> None:
        response = reading.object_of(event.get("response"))
        self._usage = _usage(response.get("usage"))
        reason: StopReason | None = "end_turn"
        if event["type"] == "response.incomplete":
            details = response.get("incomplete_details")
            reason = INCOMPLETE.get(reading.text_or_empty(details.get("reason"))) if isinstance(details, dict) else None
        if reason is None:
            self._chunks.count(self._usage)
            raise refusals.unavailable("The provider broke off its answer.")
        self.stop_reason = reason

    def _fail(self, event: Json) -> None:
        response = event.get("response")
        if isinstance(response, dict):
            self._chunks.count(_usage(response.get("usage")))
        error = (response if isinstance(response, dict) else event).get("error", event)
        raise _error(error if isinstance(error, dict) else {})


class _Call:
    """A call on its way."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.arguments = ""


def _error(error: Json) -> ProviderError:
    code = reading.text_or_empty(error.get("code")) or reading.text_or_empty(error.get("type"))
    status = ERROR_STATUSES.get(code) or (400 if IS_REFUSED.match(code) or refusals.says_context_is_full(error) else None)
    if status is None:
        return refusals.unavailable("The provider reported an error in the middle of its answer.")
    return refusals.from_status(status, {}, orjson.dumps({"error": error}))


def _place(event: Json) -> int:
    place = event.get("output_index")
    if type(place) is not int:
        raise refusals.malformed("The provider sent an item without its place in the output.")
    return place


def _usage(raw: object) -> Usage:
    """Read usage as far as it can be believed: what is absent, negative, absurd or no integer counts as 0."""
    if not isinstance(raw, dict):
        return Usage()
    details = raw.get("input_tokens_details")
    details = details if isinstance(details, dict) else {}
    prompt = reading.token_count(raw.get("input_tokens"))
    cached = min(prompt, reading.token_count(details.get("cached_tokens")))
    written = min(prompt - cached, reading.token_count(details.get("cache_write_tokens")))
    return Usage(prompt - cached - written, reading.token_count(raw.get("output_tokens")), written, cached)
