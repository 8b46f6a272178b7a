"""A double of Anthropic's Messages API, in the test's own loop: it plays the same scripts, in this vendor's wire.

async with AnthropicDouble() as double:
    double.play([reasoning("hm"), words("It is noon."), tool_call("datetime", {}), finish("tool_use")])

A thinking block is signed over its words, so that one that comes back changed is found out. Neighbouring pieces of one kind
are one block; a call is a block of its own.
"""

import asyncio
import base64
import json
from collections import deque
from types import TracebackType
from typing import Any, Self

from tests.provider_double import scripts
from tests.provider_double.anthropic_transcript import complaints, signature_of
from tests.provider_double.connection import Connection, HttpRequest, Reply
from tests.provider_double.scripts import Script

MESSAGES = "/v1/messages"
USAGE = {"input_tokens": 21, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}


class AnthropicDouble:
    """Answers requests with the next script, or with a default; remembers what it was asked and what it refused.

    Args:
        api_key: asked for in `x-api-key` or as a bearer token; None takes any.
    """

    def __init__(self, api_key: str | None = None) -> None:
        self._api_key = api_key
        self._scripts: deque[Script] = deque()
        self._connections: set[Connection] = set()
        self._tasks = asyncio.TaskGroup()
        self.base_url = ""
        self.requests: list[HttpRequest] = []
        self.rejected: list[str] = []
        self.ports: list[int] = []
        self.closed_by_client = asyncio.Event()

    def play(self, *queued: Script) -> None:
        """Queue scripts, one per request."""
        self._scripts.extend(queued)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """What was asked, parsed."""
        return [json.loads(request.body) for request in self.requests]

    async def _answer(self, connection: Connection, request: HttpRequest) -> None:
        self.requests.append(request)
        self.ports.append(connection.client_port)
        refusal = self._refusal(request)
        script = refusal or (self._scripts.popleft() if self._scripts else [scripts.text("Hello."), scripts.finish("end_turn")])
        try:
            await _Player(Reply(connection)).play(script)
        except asyncio.CancelledError:
            self.closed_by_client.set()
            raise

    def _refusal(self, request: HttpRequest) -> Script | None:
        """Refuse what the vendor refuses, in its order: the address, the key, the version, the transcript."""
        if (request.method, request.path.partition("?")[0]) != ("POST", MESSAGES):
            return [error(404, "not_found_error", "Not found")]
        keys = (request.headers.get("x-api-key"), request.headers.get("authorization", "").removeprefix("Bearer "))
        if self._api_key is not None and self._api_key not in keys:
            return [error(401, "authentication_error", "invalid x-api-key")]
        found = [] if "anthropic-version" in request.headers else ["anthropic-version: header is required"]
        try:
            found += complaints(json.loads(request.body))
        except ValueError as problem:
            found += [f"not JSON: {problem}"]
        self.rejected += found
        return [error(400, "invalid_request_error", found[0])] if found else None

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._answer, self._tasks, self._connections), "127.0.0.1", 0
        )
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.close()
        for connection in self._connections:
            connection.close(is_reset=True)
        await self._tasks.__aexit__(kind, error, at)


class _Player:
    """Plays one script as one answer."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._wire = scripts.Wire()
        self._is_begun = False
        self._index = -1
        self._open: str | None = None  # the kind of the block that is open
        self._thought = ""

    async def play(self, script: Script) -> None:
        """Play the actions in order, then end the body."""
        for action in script:
            match action:
                case scripts.Status():
                    _whole(self._reply, action)
                    return
                case scripts.Cut():
                    await asyncio.sleep(0)  # what was written before leaves first
                    self._reply.connection.close(is_reset=action.is_reset)
                    return
                case scripts.Text() | scripts.ToolCall() | scripts.Finish() | scripts.Event():
                    await self._say(action)
                case _:
                    await self._behave(action)
        self._reply.end()

    async def _say(self, action: scripts.Text | scripts.ToolCall | scripts.Finish | scripts.Event) -> None:
        if isinstance(action, scripts.Event):
            await self._event(action.json)
            return
        await self._begin_message()
        if isinstance(action, scripts.Text) and action.member == "redacted_thinking":
            await self._begin_block("redacted_thinking", data="".join(action.pieces))
            await self._end_block()
        elif isinstance(action, scripts.Text):
            for piece in action.pieces:
                await self._text("text" if action.member == "content" else "thinking", piece)
        elif isinstance(action, scripts.ToolCall):
            await self._begin_block("tool_use", id=action.id, name=action.name, input={})
            for piece in ("", *action.pieces):
                await self._delta(type="input_json_delta", partial_json=piece)
            await self._end_block()
        else:
            await self._finish(action)

    async def _behave(self, action: scripts.Action) -> None:
        match action:
            case scripts.Wire():
                self._wire = action
            case scripts.Raw():
                await self._raw(action)
            case scripts.Pings() | scripts.Endless():
                await self._repeat(action)
            case scripts.Wait(seconds):
                await (asyncio.Event().wait() if seconds is None else asyncio.sleep(seconds))
            case scripts.Head():
                self._reply.head(is_chunked=action.is_chunked, content_type=action.content_type)
            case _:
                raise AssertionError(f"not played here: {action}")

    async def _raw(self, action: scripts.Raw) -> None:
        payload, seconds = base64.b64decode(action.base64), action.seconds_per_byte
        for piece in [payload] if seconds is None else map(_byte, payload):
            self._reply.body(piece)
            await asyncio.sleep(seconds or 0)

    async def _repeat(self, action: scripts.Pings | scripts.Endless) -> None:
        if isinstance(action, scripts.Pings):
            for _ in range(action.count):
                await self._event({"type": "ping"})
                await asyncio.sleep(action.seconds)
            return
        while True:
            await self._say(scripts.text("more "))
            await self._reply.connection.drain()
            await asyncio.sleep(1 / action.rate if action.rate else 0)

    async def _begin_message(self) -> None:
        if not self._is_begun:
            self._is_begun = True
            message = {"id": "msg_double", "type": "message", "role": "assistant", "model": "double", "content": []}
            await self._event({
                "type": "message_start",
                "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": USAGE},
            })  # fmt: skip
            await self._event({"type": "ping"})

    async def _text(self, kind: str, piece: str) -> None:
        if self._open != kind:
            empty = {"text": ""} if kind == "text" else {"thinking": "", "signature": ""}
            await self._begin_block(kind, **empty)
        if kind == "text":
            await self._delta(type="text_delta", text=piece)
        else:
            self._thought += piece
            await self._delta(type="thinking_delta", thinking=piece)

    async def _begin_block(self, kind: str, **members: Any) -> None:
        await self._end_block()
        self._index += 1
        self._open, self._thought = kind, ""
        block = {"type": kind, **members}
        await self._event({"type": "content_block_start", "index": self._index, "content_block": block})

    async def _delta(self, **delta: str) -> None:
        await self._event({"type": "content_block_delta", "index": self._index, "delta": delta})

    async def _end_block(self) -> None:
        if self._open is None:
            return
        if self._open == "thinking":
            await self._delta(type="signature_delta", signature=signature_of(self._thought))
        self._open = None
        await self._event({"type": "content_block_stop", "index": self._index})

    async def _finish(self, action: scripts.Finish) -> None:
        await self._end_block()
        usage = {"output_tokens": 5} if action.usage == scripts.DEFAULT_USAGE else action.usage
        delta = {"stop_reason": action.reason, "stop_sequence": None}
        await self._event({"type": "message_delta", "delta": delta, "usage": usage})
        if action.has_done:
            await self._event({"type": "message_stop"})

    async def _event(self, payload: Any) -> None:
        end = self._wire.line_end
        name = payload.get("type", "") if isinstance(payload, dict) else ""
        has_surrogates = any(0xD800 <= ord(letter) <= 0xDFFF for letter in json.dumps(payload, ensure_ascii=False))
        content = json.dumps(payload, ensure_ascii=has_surrogates)
        frame = f"event: {name}{end}data: {content}{end}{end}".encode()
        if self._wire.has_bom:
            frame = b"\xef\xbb\xbf" + frame
            self._wire = scripts.Wire(end, write_bytes=self._wire.write_bytes)
        size = self._wire.write_bytes or len(frame)
        for start in range(0, len(frame), size):
            self._reply.body(frame[start : start + size])
            await asyncio.sleep(0)  # a write of its own


def error(status: int, kind: str, message: str = "vendor-canary", *, retry_after: str | None = None) -> scripts.Status:
    """An error answer in this vendor's form."""
    headers = {"content-type": "application/json"} | ({} if retry_after is None else {"retry-after": retry_after})
    return scripts.Status(status, headers, json.dumps(error_body(kind, message)))


def error_body(kind: str, message: str = "vendor-canary") -> dict[str, Any]:
    """What an error answer and an error event hold."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_double"}


def redacted(data: str) -> scripts.Text:
    """A whole redacted thinking block."""
    return scripts.Text((data,), "redacted_thinking")


def _byte(value: int) -> bytes:
    return bytes([value])


def _whole(reply: Reply, answer: scripts.Status) -> None:
    """Write an answer that is no stream, also with a status that only this vendor knows."""
    body = answer.body.encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**answer.headers, "content-length": str(len(body))}.items())
    reply.connection.write(f"HTTP/1.1 {answer.status} Double\r\n{lines}\r\n".encode() + body)
