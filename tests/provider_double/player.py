"""Plays one script as one answer. Plain tokens at full speed are one cached block, so load tests measure others."""

import asyncio
import base64
import functools
import itertools
import json
from collections.abc import Iterator
from typing import Any, assert_never

import orjson

from app import clock
from tests.provider_double import scripts
from tests.provider_double.connection import Reply, framed
from tests.provider_double.ledger import Record
from tests.provider_double.wheel import Wheel

DONE = b"[DONE]"
BURST_TOKENS = 256  # what an endless answer writes before it looks whether the client still takes it


class Player:
    """Plays one script; `play` returns when the answer is complete or its connection was cut on purpose.

    Args:
        going_on: ends a silence that has no length.
    """

    def __init__(
        self, reply: Reply, record: Record, wheel: Wheel, *, events_per_chunk: int, going_on: asyncio.Event | None = None
    ) -> None:
        self._reply = reply
        self._record = record
        self._wheel = wheel
        self._asks_for_usage = bool((record.body.get("stream_options") or {}).get("include_usage"))
        self._prompt_tokens = sum(len(str(message)) for message in record.body.get("messages", ())) // 4
        self._events_per_chunk = events_per_chunk
        self._going_on = going_on or asyncio.Event()
        self._wire = scripts.Wire()
        self._has_role = False
        self._tokens = 0

    async def play(self, script: scripts.Script) -> None:
        """Play the actions in order, then end the body."""
        for action in script:
            match action:
                case scripts.Text() | scripts.ToolCall() | scripts.Event() | scripts.Finish():
                    await self._say(action)
                case scripts.Tokens() | scripts.Endless():
                    await self._stream(action)
                case scripts.Raw() | scripts.Pings() | scripts.Wait() | scripts.Head() | scripts.Wire():
                    await self._behave(action)
                case scripts.Status():
                    self._reply.whole(action.status, action.body.encode(), action.headers)
                    return
                case scripts.Cut():
                    await asyncio.sleep(0)  # what was written before leaves first
                    self._reply.connection.close(is_reset=action.is_reset)
                    return
                case _:
                    assert_never(action)
        self._reply.end()

    async def _say(self, action: scripts.Text | scripts.ToolCall | scripts.Event | scripts.Finish) -> None:
        match action:
            case scripts.Text():
                for piece in action.pieces:
                    await self._delta({action.member: piece})
            case scripts.ToolCall():
                await self._tool_call(action)
            case scripts.Event():
                await self._event(action.json)
            case scripts.Finish():
                await self._finish(action)
            case _:
                assert_never(action)

    async def _behave(self, action: scripts.Raw | scripts.Pings | scripts.Wait | scripts.Head | scripts.Wire) -> None:
        match action:
            case scripts.Raw():
                await self._raw(base64.b64decode(action.base64), action.seconds_per_byte)
            case scripts.Pings():
                for _ in range(action.count):
                    self._reply.body(b": ping\n\n")
                    await asyncio.sleep(action.seconds)
            case scripts.Wait():
                await (self._going_on.wait() if action.seconds is None else asyncio.sleep(action.seconds))
            case scripts.Head():
                self._reply.head(is_chunked=action.is_chunked, content_type=action.content_type)
            case scripts.Wire():
                self._wire = action
            case _:
                assert_never(action)

    async def _raw(self, payload: bytes, seconds_per_byte: float | None) -> None:
        if seconds_per_byte is None:
            self._reply.body(payload)
            await asyncio.sleep(0)  # a write of its own
            return
        for byte in payload:
            self._reply.body(bytes([byte]))
            await asyncio.sleep(seconds_per_byte)

    async def _tool_call(self, call: scripts.ToolCall) -> None:
        for position, piece in enumerate(call.pieces):
            function: dict[str, Any] = {"arguments": piece}
            members: dict[str, Any] = {} if call.index is None else {"index": call.index}
            if position == 0:
                function |= {} if call.name is None else {"name": call.name}
                members |= {} if call.id is None else {"id": call.id, "type": "function"}
            await self._delta({"tool_calls": [{**members, "function": function}]})

    async def _finish(self, action: scripts.Finish) -> None:
        await self._event(chunk({}, action.reason))
        usage = self._usage(action.usage)
        if self._asks_for_usage and usage is not None:
            self._record.usage = usage
            await self._event({**chunk({}), "choices": [], "usage": usage})
        if action.has_done:
            await self._write(DONE)

    def _usage(self, usage: Any) -> Any:
        if usage != scripts.DEFAULT_USAGE:
            return usage
        counted = {"prompt_tokens": self._prompt_tokens, "completion_tokens": self._tokens}
        return {**counted, "total_tokens": self._prompt_tokens + self._tokens}

    async def _delta(self, delta: dict[str, Any]) -> None:
        if not self._has_role:
            self._has_role = True
            await self._event(chunk({"role": "assistant", "content": ""}))
        self._tokens += 1
        await self._event(chunk(delta))

    async def _event(self, payload: object) -> None:
        self._record.events += 1
        await self._write(encoded(payload))

    async def _write(self, line: bytes) -> None:
        end = self._wire.line_end.encode()
        frame = b"data: " + line + end + end
        if self._wire.has_bom:
            frame = b"\xef\xbb\xbf" + frame
            self._wire = scripts.Wire(self._wire.line_end, has_bom=False, write_bytes=self._wire.write_bytes)
        size = self._wire.write_bytes
        if size is None:
            self._reply.body(frame)
            return
        for start in range(0, len(frame), size):
            self._reply.body(frame[start : start + size])
            await asyncio.sleep(0)

    async def _stream(self, action: scripts.Tokens | scripts.Endless) -> None:
        is_paced = action.rate > 0
        if isinstance(action, scripts.Endless):
            await (self._paced(action.rate, None, is_stamped=False) if is_paced else self._burst_for_ever())
        elif is_paced or action.stamped:
            await self._paced(action.rate or float("inf"), action.count, is_stamped=action.stamped)
        else:
            self._burst(action.count)
            await self._reply.connection.drain()

    async def _burst_for_ever(self) -> None:
        while True:
            self._burst(BURST_TOKENS)
            await self._reply.connection.drain()
            await asyncio.sleep(0)

    def _burst(self, count: int) -> None:
        self._reply.head()
        self._reply.connection.write(block(count, self._events_per_chunk))
        self._count(count)

    def _count(self, tokens: int) -> None:
        self._tokens += tokens
        self._record.events += tokens

    async def _paced(self, rate: float, count: int | None, *, is_stamped: bool) -> None:
        """Write each token when it is due, and at once all that are overdue."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        next_frame = stamped_frames() if is_stamped else itertools.cycle(map(framed, token_events()))
        write = self._reply.connection.write
        self._reply.head()
        started_at = loop.time()
        sent = 0

        def write_what_is_due() -> None:
            nonlocal sent
            if done.done():
                return
            now = loop.time()
            while sent != count and started_at + sent / rate <= now:
                write(next(next_frame))
                sent += 1
            if sent == count:
                done.set_result(None)
            else:
                self._wheel.at(started_at + sent / rate, write_what_is_due)

        write_what_is_due()
        try:
            await done
        finally:
            self._count(sent)


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    """Return one chunk of a completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-double",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "double",
        "choices": [choice],
    }


def encoded(payload: object) -> bytes:
    """Write JSON; lone surrogates are escaped, as sloppy providers send them."""
    try:
        return orjson.dumps(payload)
    except TypeError:
        return json.dumps(payload, separators=(",", ":")).encode()


def stamped_frames() -> Iterator[bytes]:
    """Yield framed tokens, each with the time at which it is asked for as its text."""
    before, after = (b"data: " + encoded(chunk({"content": " @"})) + b"\n\n").split(b"@")
    while True:
        yield framed(b"%b%.6f%b" % (before, clock.monotonic(), after))


@functools.cache
def token_events() -> list[bytes]:
    """Return the events of some tokens, one for each word of a sentence."""
    sentence = "the session keeps every event it was given so that nothing said is ever lost again"
    return [b"data: " + encoded(chunk({"content": f" {word}"})) + b"\n\n" for word in sentence.split()]


@functools.lru_cache(maxsize=64)
def block(count: int, events_per_chunk: int) -> bytes:
    """Return a body of so many tokens in chunks of so many events."""
    events = list(itertools.islice(itertools.cycle(token_events()), count))
    starts = range(0, count, events_per_chunk)
    return b"".join(framed(b"".join(events[start : start + events_per_chunk])) for start in starts)
