"""OpenAI's Responses on loopback, in the test's own loop: it plays the scripts of `scripts.py` and is as strict as the vendor.

Each `text`, `reasoning`, `refusal` and `tool_call` of a script is one item of the output; `finish` ends the answer. It shares
no code with the adapter that it tests.
"""

import asyncio
import base64
import json
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeAlias

from tests.provider_double import scripts
from tests.provider_double.connection import Connection, HttpRequest, Reply
from tests.provider_double.ledger import Ledger, Record
from tests.provider_double.openai_input import Issued, complaints
from tests.provider_double.scripts import Script

Json: TypeAlias = dict[str, Any]

DEFAULT: Script = (scripts.text("Hello."), scripts.finish())
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 15,
}


class OpenAIDouble:
    """The double, as long as its block lasts.

    Args:
        api_key: asked for as a bearer token; None takes any.
    """

    def __init__(self, api_key: str | None = None) -> None:
        self._api_key = api_key
        self._queue: list[Script] = []
        self._connections: set[Connection] = set()
        self._issued = Issued()
        self.ledger = Ledger(kept=1000)
        self.base_url = ""

    def play(self, *answers: Script) -> None:
        """Queue scripts, one per request; after them comes the default."""
        self._queue.extend(answers)

    @property
    def bodies(self) -> list[Any]:
        """What was asked, oldest first."""
        return [record.body for record in self.ledger.records]

    @property
    def rejected(self) -> list[str]:
        """Why requests were refused as invalid."""
        return [record.rejected for record in self.ledger.records if record.rejected]

    async def answer(self, connection: Connection, request: HttpRequest) -> None:
        """Answer one request, whatever it is."""
        loop = asyncio.get_running_loop()
        record = self.ledger.open(request.headers, connection.client_port, loop.time())
        try:
            await self._judge_and_play(Reply(connection), record, request)
            record.ended_at = loop.time()
        except asyncio.CancelledError:
            record.closed_by_client_at = loop.time()
            raise
        finally:
            self.ledger.changed()

    async def _judge_and_play(self, reply: Reply, record: Record, request: HttpRequest) -> None:
        if (request.method, request.path) != ("POST", "/v1/responses"):
            reply.whole(404, _error("Invalid URL"))
            return
        if self._api_key is not None and request.headers.get("authorization") != f"Bearer {self._api_key}":
            reply.whole(401, _error("Incorrect API key provided.", code="invalid_api_key"))
            return
        record.body = json.loads(request.body)
        record.rejected = next(complaints(record.body, self._issued), None)
        if record.rejected is not None:
            reply.whole(400, _error(record.rejected))
            return
        await _Player(reply, record, self._issued).play(self._queue.pop(0) if self._queue else DEFAULT)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._stack = AsyncExitStack()
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        server = await loop.create_server(lambda: Connection(self.answer, tasks, self._connections), "127.0.0.1", 0)
        self._stack.callback(self._hang_up)
        self._stack.callback(server.close)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._stack.__aexit__(kind, error, at)

    def _hang_up(self) -> None:
        for connection in list(self._connections):
            connection.close(is_reset=True)


class _Player:
    """Plays one script as one answer."""

    def __init__(self, reply: Reply, record: Record, issued: Issued) -> None:
        self._reply = reply
        self._issued = issued
        self._number = record.number
        self._model = record.body["model"]
        self._has_reasoning = "include" in record.body
        self._wire = scripts.Wire()
        self._events = 0
        self._output: list[Json] = []
        self._reasoning_id: str | None = None

    async def play(self, script: Script) -> None:
        """Play the actions in order, then end the body."""
        for action in script:
            match action:
                case scripts.Status():
                    self._reply.whole(action.status, action.body.encode(), action.headers)
                    return
                case scripts.Cut():
                    await asyncio.sleep(0)  # what was written before leaves first
                    self._reply.connection.close(is_reset=action.is_reset)
                    return
                case scripts.Text() | scripts.ToolCall() | scripts.Event() | scripts.Finish():
                    await self._say(action)
                case _:
                    await self._behave(action)
        self._reply.end()

    async def _say(self, action: scripts.Text | scripts.ToolCall | scripts.Event | scripts.Finish) -> None:
        if not self._events and not isinstance(action, scripts.Event):
            await self._event("response.created", response=self._response("in_progress"))
        match action:
            case scripts.Text(member="content" | "refusal"):
                await self._message(action)
            case scripts.Text():
                await self._reasoning(action)
            case scripts.ToolCall():
                await self._call(action)
            case scripts.Finish():
                await self._finish(action)
            case scripts.Event():
                await self._write(action.json)

    async def _behave(self, action: scripts.Action) -> None:
        match action:
            case scripts.Raw():
                payload = base64.b64decode(action.base64)
                pieces = [payload] if action.seconds_per_byte is None else [bytes([byte]) for byte in payload]
                for piece in pieces:
                    self._reply.body(piece)
                    await asyncio.sleep(action.seconds_per_byte or 0)
            case scripts.Pings():
                for _ in range(action.count):
                    self._reply.body(b": ping\n\n")
                    await asyncio.sleep(action.seconds)
            case scripts.Wait():
                await (asyncio.Event().wait() if action.seconds is None else asyncio.sleep(action.seconds))
            case scripts.Head():
                self._reply.head(is_chunked=action.is_chunked, content_type=action.content_type)
            case scripts.Wire():
                self._wire = action
            case _:
                raise NotImplementedError(action.type)

    async def _message(self, text: scripts.Text) -> None:
        kind, member = ("output_text", "text") if text.member == "content" else ("refusal", "refusal")
        item = {"type": "message", "id": self._id("msg"), "role": "assistant", "status": "in_progress", "content": []}
        place = await self._added(item, content_index=0)
        part: Json = {"type": kind, member: ""} | ({"annotations": []} if kind == "output_text" else {})
        await self._event("response.content_part.added", part=part, **place)
        for piece in text.pieces:
            await self._event(f"response.{kind}.delta", delta=piece, **place)
        part[member] = "".join(text.pieces)
        await self._event(f"response.{kind}.done", **{member: part[member]}, **place)
        await self._event("response.content_part.done", part=part, **place)
        await self._done({**item, "status": "completed", "content": [part]})

    async def _reasoning(self, text: scripts.Text) -> None:
        """Play `reasoning_content` as a summary, a part for each piece, and `reasoning` as the bare text."""
        item: Json = {"type": "reasoning", "id": self._id("rs"), "summary": []}
        encrypted = f"encrypted {item['id']}" if self._has_reasoning else None
        place = await self._added({**item, "encrypted_content": "half"})
        for number, piece in enumerate(text.pieces):
            if text.member == "reasoning":
                await self._event("response.reasoning_text.delta", delta=piece, content_index=0, **place)
                continue
            part = {"type": "summary_text", "text": ""}
            await self._event("response.reasoning_summary_part.added", part=part, summary_index=number, **place)
            await self._event("response.reasoning_summary_text.delta", delta=piece, summary_index=number, **place)
            item["summary"].append({"type": "summary_text", "text": piece})
        await self._done({**item, "encrypted_content": encrypted})
        if encrypted:
            self._reasoning_id = item["id"]
            self._issued.reasoning[item["id"]] = encrypted

    async def _call(self, call: scripts.ToolCall) -> None:
        item = {"type": "function_call", "id": self._id("fc"), "call_id": call.id, "name": call.name, "arguments": ""}
        if self._reasoning_id:
            self._issued.needs[str(item["id"])] = self._reasoning_id
        place = await self._added({**item, "status": "in_progress"})
        for piece in call.pieces:
            await self._event("response.function_call_arguments.delta", delta=piece, **place)
        whole = "".join(call.pieces)
        await self._event("response.function_call_arguments.done", arguments=whole, name=call.name, **place)
        await self._done({**item, "status": "completed", "arguments": whole})

    async def _added(self, item: Json, **place: int) -> Json:
        index = len(self._output)
        await self._event("response.output_item.added", item=item, output_index=index)
        return {"item_id": item["id"], "output_index": index, **place}

    async def _done(self, item: Json) -> None:
        await self._event("response.output_item.done", item=item, output_index=len(self._output))
        self._output.append(item)

    async def _finish(self, action: scripts.Finish) -> None:
        usage = USAGE if action.usage == scripts.DEFAULT_USAGE else action.usage
        status = "incomplete" if action.reason in INCOMPLETE else "completed"
        response = {**self._response(status), "usage": usage}
        if status == "incomplete":
            response["incomplete_details"] = {"reason": INCOMPLETE[action.reason]}
        await self._event(f"response.{status}", response=response)

    def _response(self, status: str) -> Json:
        return {
            "id": f"resp_{self._number}",
            "object": "response",
            "created_at": 1,
            "status": status,
            "model": self._model,
            "output": list(self._output),
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "error": None,
            "incomplete_details": None,
            "usage": None,
        }

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._number}_{len(self._output)}"

    async def _event(self, kind: str, **members: Any) -> None:
        await self._write({"type": kind, "sequence_number": self._events, **members})

    async def _write(self, payload: Any) -> None:
        self._events += 1
        end = self._wire.line_end
        kind = payload.get("type", "") if isinstance(payload, dict) else ""
        text = json.dumps(payload, ensure_ascii="\\ud" in json.dumps(payload))
        frame = f"event: {kind}{end}data: {text}{end}{end}".encode()
        if self._wire.has_bom and self._events == 1:
            frame = b"\xef\xbb\xbf" + frame
        size = self._wire.write_bytes or len(frame)
        for start in range(0, len(frame), size):
            self._reply.body(frame[start : start + size])
            await asyncio.sleep(0)


def failed(code: str, message: str = "The server had an error.") -> scripts.Event:
    """The event of a response that failed."""
    response = {"id": "resp_0", "object": "response", "status": "failed", "error": {"code": code, "message": message}}
    return scripts.event({"type": "response.failed", "sequence_number": 9, "response": response})


def error_event(code: str | None, message: str = "The server had an error.") -> scripts.Event:
    """An error inside a 200."""
    return scripts.event({"type": "error", "sequence_number": 9, "code": code, "message": message, "param": None})


def _error(message: str, **members: str) -> bytes:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None, **members}
    return json.dumps({"error": error}).encode()
