"""A streamed answer of Anthropic's Messages API as chunks.

It knows neither HTTP nor time. The finish marker is the stop reason; what it does not know of the wire it passes over, as the
vendor asks, and what it cannot understand ends the answer.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from app.errors import ProviderError
from app.messages import StopReason, Usage
from app.providers import chunks, reading, refusals
from app.providers.base import ModelChunk, ToolCallChunk, VendorChunk
from app.providers.chunks import Chunks
from app.providers.reading import Json

STOP_REASONS: Final[dict[str, StopReason]] = {
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "stop_sequence": "stop_sequence",
    "refusal": "content_filter",
}
# The status with which the vendor answers the same error outside of a stream.
ERROR_STATUS: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
OTHER_ERROR_STATUS: Final = 500
COUNTS: Final = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_creation_input_tokens": "cache_creation_tokens",
    "cache_read_input_tokens": "cache_read_tokens",
}


@dataclass(slots=True)
class _Block:
    """A block of the answer on its way."""

    kind: str
    start: Json
    call: int
    after: tuple[int, int]
    pieces: list[str] = field(default_factory=list)
    signature: str = ""


class AnswerReader:
    """Reads the events of one answer; `stop_reason` is None until the finish marker has come."""

    def __init__(self) -> None:
        self.stop_reason: StopReason | None = None
        self.is_done = False
        self._usage: dict[str, int] = {}
        self._blocks: dict[object, _Block] = {}
        self._call_count = 0
        self._chunks = Chunks()
        self._takers: Mapping[str, Callable[[Json], None]] = {
            "message_start": self._start_message,
            "content_block_start": self._begin_block,
            "content_block_delta": self._change_block,
            "content_block_stop": self._end_block,
            "message_delta": self._change_message,
            "message_stop": self._stop_message,
        }

    @property
    def is_finished(self) -> bool:
        """Whether the finish marker has come."""
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
        yield chunks.finish(self.stop_reason, Usage(**self._usage), has_calls=self._call_count > 0)

    def _take_all(self, events: Iterable[bytes]) -> None:
        for data in events:
            if data and not self.is_done:
                self._take(reading.event(data))

    def _take(self, event: Json) -> None:
        kind = event.get("type")
        if kind == "error" or event.get("error"):
            raise _error_event(event.get("error"))
        if kind is None:
            raise refusals.malformed("The provider sent an event without a type.")
        if take := self._takers.get(reading.text_of(kind)):
            take(event)

    def _start_message(self, event: Json) -> None:
        self._count(reading.object_of(event.get("message")).get("usage"))

    def _change_message(self, event: Json) -> None:
        if reason := reading.object_of(event.get("delta")).get("stop_reason"):
            self.stop_reason = STOP_REASONS.get(reading.text_of(reason), "end_turn")
        self._count(event.get("usage"))

    def _stop_message(self, _event: Json) -> None:
        self.is_done = True

    def _begin_block(self, event: Json) -> None:
        start = reading.object_of(event.get("content_block"))
        block = _Block(
            reading.text_of(start.get("type")), start, self._call_count, (self._chunks.characters["text"], self._call_count)
        )
        self._blocks[_index(event.get("index"))] = block
        if block.kind == "tool_use":
            self._call_count += 1
            call = ToolCallChunk(block.call, _optional_string(start.get("id")), _optional_string(start.get("name")), "")
            self._chunks.add(call)
        else:
            self._add(block, start)

    def _change_block(self, event: Json) -> None:
        self._add(self._block(event), reading.object_of(event.get("delta")))

    def _end_block(self, event: Json) -> None:
        block = self._block(event)
        if block.kind == "tool_use" and not block.pieces and block.start.get("input"):
            # Some gateways give all arguments at once.
            self._chunks.add(ToolCallChunk(block.call, None, None, orjson.dumps(block.start["input"]).decode()))
        elif block.kind == "thinking" and block.signature:
            thought = {"type": "thinking", "thinking": "".join(block.pieces), "signature": block.signature}
            self._keep(thought, block.after)
        elif block.kind == "redacted_thinking":
            self._keep({"type": "redacted_thinking", "data": reading.text_of(block.start.get("data"))}, block.after)

    def _block(self, event: Json) -> _Block:
        block = self._blocks.get(_index(event.get("index")))
        if block is None:
            raise refusals.malformed("The provider sent a piece of a block that had not begun.")
        return block

    def _add(self, block: _Block, delta: Json) -> None:
        if block.kind == "text":
            self._chunks.say("text", _optional_string(delta.get("text")))
        elif block.kind == "thinking":
            thought = _optional_string(delta.get("thinking"))
            block.pieces.append(thought)
            block.signature += _optional_string(delta.get("signature"))
            self._chunks.say("reasoning", thought)
        elif block.kind == "tool_use" and (args := _optional_string(delta.get("partial_json"))):
            block.pieces.append(args)
            self._chunks.add(ToolCallChunk(block.call, None, None, args))

    def _keep(self, thought: Json, after: tuple[int, int]) -> None:
        self._chunks.add(VendorChunk(thought | ({"after": list(after)} if any(after) else {})))

    def _count(self, usage: object) -> None:
        """Take counts as far as they can be believed: each is of the whole answer so far, so the last one holds."""
        for wire_name, name in COUNTS.items():
            value = usage.get(wire_name) if isinstance(usage, dict) else None
            if value is not None:
                self._usage[name] = reading.token_count(value)
        if not self.is_finished:
            self._chunks.count(Usage(**self._usage))


def _error_event(error: object) -> ProviderError:
    members = error if isinstance(error, dict) else {}
    status = ERROR_STATUS.get(reading.text_of(members.get("type")), OTHER_ERROR_STATUS)
    return refusals.from_status(status, {}, orjson.dumps({"error": members}))


def _index(value: object) -> int:
    if type(value) is not int:
        raise refusals.malformed("The provider sent a block without its number.")
    return value


def _optional_string(value: object) -> str:
    return "" if value is None else reading.text_of(value)
