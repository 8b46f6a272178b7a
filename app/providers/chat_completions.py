"""The wire of OpenAI's Chat Completions: a request as JSON, and the chunks of a streamed answer.

It knows neither HTTP nor time. What it writes is valid for the strictest servers that speak this wire; what it reads is
taken from the sloppiest, as long as nothing has to be guessed.

Source: https://platform.openai.com/docs/api-reference/chat
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import orjson

from app.errors import ProviderError
from app.messages import Image, Message, StopReason, Text, ToolResult, Usage
from app.providers import chunks, names, reading, refusals
from app.providers.base import ModelChunk, ModelRequest, ReasoningChunk, TextChunk, ToolCallChunk, ToolSpec
from app.providers.chunks import Channel, Chunks
from app.providers.reading import Json

DONE: Final = b"[DONE]"
CALL_ID_CHARACTERS: Final = 40
# Every other reason is a regular end; whether it asks for tools is seen in the answer, not in the reason.
STOP_REASONS: Final[dict[str, StopReason]] = {"length": "max_tokens", "content_filter": "content_filter"}
ERROR_STATUSES: Final = {"rate_limit_exceeded": 429, "insufficient_quota": 429, "invalid_api_key": 401}
BELIEVED_STATUSES: Final = frozenset({401, 402, 403, 408, 429, *range(500, 600)})  # of an error inside an answer
BROKEN_OFF: Final = frozenset({"error", "abort", "insufficient_system_resource", "network_error"})


def write_request(request: ModelRequest) -> bytes:
    """Write the body of a streaming request."""
    body: Json = {name: value for name, value in request.params.items() if value is not None}
    body["model"] = request.model
    body["messages"] = _messages(request.system, request.messages)
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    else:
        body.pop("parallel_tool_calls", None)  # vendors refuse it without tools
    return orjson.dumps(body)


def _tool(tool: ToolSpec) -> Json:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def _messages(system: str | None, messages: Sequence[Message]) -> list[Json]:
    wire: list[Json] = [{"role": "system", "content": system}] if system else []
    for message in messages:
        for entry in _entries(message):
            if wire and _is_mergeable(wire[-1], entry):
                wire[-1] = _merged(wire[-1], entry)
            else:
                wire.append(entry)
    return wire


def _entries(message: Message) -> Iterator[Json]:
    """Write one message: one entry, one for each result of tools, none where only reasoning was said."""
    assert message.role != "system", "the system prompt stands in the request's `system`"
    if message.role == "user":
        yield {"role": "user", "content": _user_content(message)}
    elif message.role == "assistant":
        text, calls = message.text, [_tool_call(use.id, use.name, use.args) for use in message.tool_uses]
        if calls:
            yield {"role": "assistant", "content": text or None, "tool_calls": calls}
        elif text:
            yield {"role": "assistant", "content": text}
    else:
        for block in message.content:
            if isinstance(block, ToolResult):
                yield {"role": "tool", "tool_call_id": _wire_id(block.tool_use_id), "content": block.content}


def _user_content(message: Message) -> str | list[Json]:
    """Write text alone as a string, which every server takes, and blocks as parts where there is an image among them."""
    if not any(isinstance(block, Image) for block in message.content):
        return message.text
    return [_part(block) for block in message.content if isinstance(block, Text | Image)]


def _part(block: Text | Image) -> Json:
    if isinstance(block, Text):
        return {"type": "text", "text": block.text}
    url = block.url or f"data:{block.media_type};base64,{block.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _is_mergeable(before: Json, after: Json) -> bool:
    """Whether two entries in a row would break the alternation that chat templates insist on."""
    return before["role"] == after["role"] and before["role"] in {"user", "assistant"} and "tool_calls" not in before


def _merged(before: Json, after: Json) -> Json:
    contents = [content for content in (before["content"], after["content"]) if content]
    if all(isinstance(content, str) for content in contents):
        return {**before, **after, "content": "\n\n".join(contents)}
    parts = [[_part(Text(content))] if isinstance(content, str) else content for content in contents]
    return {**before, **after, "content": list(itertools.chain(*parts))}


def _tool_call(use_id: str, name: str, args: Any) -> Json:
    arguments = orjson.dumps(args).decode() if isinstance(args, dict) else "{}"
    return {"id": _wire_id(use_id), "type": "function", "function": {"name": names.tool_name(name), "arguments": arguments}}


def _wire_id(use_id: str) -> str:
    return names.call_id(use_id, most_characters=CALL_ID_CHARACTERS)


class AnswerReader:
    """Reads the events of one answer; `stop_reason` is None until the finish marker has come."""

    def __init__(self) -> None:
        self.stop_reason: StopReason | None = None
        self.is_done = False
        self._usage = Usage()
        self._calls = _Calls()
        self._chunks = Chunks()
        self._has_surrogates = False
        self._held: dict[Channel | int, str] = {}  # half a character whose other half may come

    @property
    def is_finished(self) -> bool:
        """Whether the finish marker has come."""
        return self.stop_reason is not None

    def read(self, events: Iterable[bytes]) -> Iterator[ModelChunk]:
        """Give what the events say; neighbouring pieces of text are joined, since they came together.

        Raises:
            ProviderError: `PROVIDER_PROTOCOL` for an error event and for what is not of this wire, `PROVIDER_UNAVAILABLE`
                where the vendor says that it broke off, `CONTEXT_OVERFLOW`; raised after what came before it.
        """
        return self._chunks.given(self._take_all, events)

    def finish(self) -> Iterator[ModelChunk]:
        """Yield the last chunks.

        Raises:
            ProviderError: `PROVIDER_PROTOCOL`; there was no finish marker, so this is no answer.
        """
        last = chunks.finish(self.stop_reason, self._usage, has_calls=self._calls.count > 0)
        for channel in list(self._held):
            yield ToolCallChunk(channel, None, None, "\ufffd") if isinstance(channel, int) else _spoken(channel, "\ufffd")
        yield last

    def _parsed(self, data: bytes) -> Json:
        try:
            return reading.object_of(orjson.loads(data))
        except orjson.JSONDecodeError:
            return self._parsed_with_surrogates(data)

    def _parsed_with_surrogates(self, data: bytes) -> Json:
        """Parse what the strict parser refuses; escapes of lone surrogates are the one excuse."""
        if b"\\u" not in data:
            raise refusals.malformed("The provider sent an event that is not JSON.")
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            raise refusals.malformed("The provider sent an event that is not JSON.") from None
        self._has_surrogates = True
        return reading.object_of(event)

    def _take_all(self, events: Iterable[bytes]) -> None:
        for data in events:
            if data.strip() == DONE:
                self.is_done = True
                return
            if data:
                self._take(self._parsed(data))

    def _take(self, event: Json) -> None:
        if error := event.get("error"):
            raise _error_event(error)
        if usage := event.get("usage"):
            self._usage = _usage(usage)
        try:
            self._take_choice(event)
        finally:
            if usage and not self.is_finished:
                self._chunks.count(self._usage)

    def _take_choice(self, event: Json) -> None:
        if choices := event.get("choices"):
            choice = reading.object_of(reading.list_of(choices)[0])
            if delta := choice.get("delta"):
                self._take_delta(reading.object_of(delta))
            if reason := choice.get("finish_reason"):
                self._end(reason)

    def _take_delta(self, delta: Json) -> None:
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            self._add("reasoning", thought)
        if text := delta.get("content"):
            self._add("text", text)
        if text := delta.get("refusal"):
            self._add("text", text)
        if calls := delta.get("tool_calls"):
            for call in reading.list_of(calls):
                self._chunks.add(self._tool_call(reading.object_of(call)))

    def _add(self, channel: Channel, text: object) -> None:
        said = reading.text_of(text)
        self._chunks.say(channel, self._joined(channel, said) if self._has_surrogates else said)

    def _tool_call(self, call: Json) -> ToolCallChunk:
        function = reading.object_of(call.get("function") or {})
        call_id, name = reading.text_or_empty(call.get("id")), reading.text_or_empty(function.get("name"))
        index, is_new = self._calls.find(call.get("index"), call_id, name)
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):
            arguments = orjson.dumps(arguments).decode()
        if self._has_surrogates:
            arguments, call_id, name = self._joined(index, arguments), reading.paired(call_id), reading.paired(name)
        return ToolCallChunk(index, call_id if is_new else None, name if is_new else None, arguments)

    def _joined(self, channel: Channel | int, text: str) -> str:
        """Join a surrogate pair that was split over two events; what stays alone becomes U+FFFD."""
        text = self._held.pop(channel, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._held[channel] = text[-1]
            text = text[:-1]
        return reading.paired(text)

    def _end(self, reason: object) -> None:
        if not isinstance(reason, str):
            raise refusals.malformed("The provider sent a finish reason that is not a string.")
        if reason in BROKEN_OFF:
            raise refusals.unavailable("The provider broke off its answer.")
        self.stop_reason = STOP_REASONS.get(reason, "end_turn")


class _Calls:
    """Numbers the tool calls of one answer from 0, whether the vendor marks them by index, by id or by order."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._by_index: dict[int, int] = {}

    @property
    def count(self) -> int:
        return len(self._ids)

    def find(self, wire_index: object, call_id: str, name: str) -> tuple[int, bool]:
        """Return the number of the call that a piece belongs to, and whether the piece is its first."""
        if isinstance(wire_index, int):
            known = self._by_index.get(wire_index)
        elif call_id:
            known = self._ids.index(call_id) if call_id in self._ids else None
        else:
            known = len(self._ids) - 1 if self._ids and not name else None
        is_another = known is not None and bool(name and call_id) and call_id != self._ids[known]
        if known is not None and not is_another:
            return known, False
        self._ids.append(call_id)
        number = len(self._ids) - 1
        if isinstance(wire_index, int):
            self._by_index[wire_index] = number
        return number, True


def _spoken(channel: Channel, text: str) -> TextChunk | ReasoningChunk:
    return TextChunk(text) if channel == "text" else ReasoningChunk(text)


def _error_event(error: object) -> ProviderError:
    """Make the error of an event; a 400 is no refusal there, since servers give it for their own crashes too."""
    if refusals.says_context_is_full(error):
        return refusals.context_overflow()
    code = error.get("code") if isinstance(error, dict) else None
    status = ERROR_STATUSES.get(code, 0) if isinstance(code, str) else code
    if isinstance(status, int) and status in BELIEVED_STATUSES:
        return refusals.from_status(status, {}, orjson.dumps({"error": error}))
    return refusals.malformed("The provider reported an error in the middle of its answer.")


def _usage(raw: object) -> Usage:
    """Read usage as far as it can be believed: what is absent, negative, absurd or no integer counts as 0."""
    if not isinstance(raw, dict):
        return Usage()
    details = raw.get("prompt_tokens_details")
    prompt = reading.token_count(raw.get("prompt_tokens"))
    cached = min(prompt, reading.token_count(details.get("cached_tokens")) if isinstance(details, dict) else 0)
    return Usage(
        input_tokens=prompt - cached, output_tokens=reading.token_count(raw.get("completion_tokens")), cache_read_tokens=cached
    )
