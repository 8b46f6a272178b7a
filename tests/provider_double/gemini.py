"""Gemini's wire on loopback, in the test's own loop: plays the actions of `scripts`, and refuses what the vendor refuses.

    async with GeminiDouble() as double:
        double.play([play.text("It is "), call("datetime", {}, signature=SIGNATURE), play.finish()])

A `tool_call` of `scripts` is played whole, since this vendor sends no fragments; `finish("stop")` is its `STOP`.
"""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from tests.provider_double import scripts
from tests.provider_double.connection import Connection, HttpRequest, Reply
from tests.provider_double.ledger import Ledger, Record
from tests.provider_double.player import Player
from tests.provider_double.wheel import Wheel

SIGNATURE = base64.b64encode(b"signed by the vendor").decode()
PATH = re.compile(r"/v1beta/(?:models|tunedModels)/([^/:]+):streamGenerateContent\?alt=sse")
REASONS = {"stop": "STOP", "length": "MAX_TOKENS"}
TOP_LEVEL = frozenset({"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings"})
CONFIG = frozenset(
    {"temperature", "topP", "topK", "seed", "stopSequences", "presencePenalty", "frequencyPenalty", "maxOutputTokens"}
    | {"responseMimeType", "responseJsonSchema", "thinkingConfig"}
)
THINKING = frozenset({"thinkingBudget", "thinkingLevel", "includeThoughts"})
DATA = frozenset({"text", "inlineData", "fileData", "functionCall", "functionResponse"})
TOOL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")


def parts(*given: Mapping[str, Any]) -> scripts.Event:
    """One event with these parts of the answer."""
    return scripts.Event({"candidates": [{"content": {"role": "model", "parts": list(given)}, "index": 0}]})


def signed(text: str, signature: str = SIGNATURE, **members: Any) -> scripts.Event:
    """A piece of text, or of reasoning with `thought=True`, that the vendor wants back with its signature."""
    return parts({"text": text, "thoughtSignature": signature, **members})


def call(name: str, args: Any, *, call_id: str | None = None, signature: str | None = None) -> scripts.Event:
    """One whole call."""
    members = {"name": name, "args": args} | ({} if call_id is None else {"id": call_id})
    return parts({"functionCall": members} | ({} if signature is None else {"thoughtSignature": signature}))


def blocked(reason: str = "PROHIBITED_CONTENT") -> scripts.Event:
    """The prompt was refused by a filter: there is no candidate."""
    return scripts.Event({"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 7}})


def refusal(
    code: int, status: str = "INVALID_ARGUMENT", message: str = "No.", *, retry_after: str | None = None, details: Any = None
) -> scripts.Status:
    """An error answer in the vendor's form."""
    headers = {"content-type": "application/json"} | ({} if retry_after is None else {"retry-after": retry_after})
    return scripts.Status(code, headers, json.dumps(error(code, status, message, details)))


def error(code: int, status: str, message: str, details: Any = None) -> dict[str, Any]:
    """The vendor's error object, also of an event inside a 200."""
    members = {"code": code, "message": message, "status": status}
    return {"error": members if details is None else {**members, "details": details}}


def context_overflow() -> scripts.Status:
    """The 400 of a transcript that is too long."""
    return refusal(400, message="The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).")


class GeminiPlayer(Player):
    """Plays text, calls and the finish in the vendor's events, all else as every double does."""

    async def _say(self, action: scripts.Text | scripts.ToolCall | scripts.Event | scripts.Finish) -> None:
        match action:
            case scripts.Text():
                mark = {} if action.member == "content" else {"thought": True}
                for piece in action.pieces:
                    await self._event(parts({"text": piece, **mark}).json)
            case scripts.ToolCall():
                args = json.loads("".join(action.pieces))
                await self._event(call(action.name or "", args, call_id=action.id).json)
            case scripts.Event():
                await self._event(action.json)
            case scripts.Finish():
                await self._finish(action)

    async def _finish(self, action: scripts.Finish) -> None:
        counted: Any = {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12}
        usage = counted if action.usage == scripts.DEFAULT_USAGE else action.usage
        reason = REASONS.get(action.reason, action.reason)
        members = {} if usage is None else {"usageMetadata": usage}
        await self._event({"candidates": [{"finishReason": reason, "index": 0}], **members})


class GeminiDouble:
    """Answers requests with the queued scripts, in order, and then with one word; keeps what it was sent.

    Args:
        api_key: asked for as `x-goog-api-key`; None takes any.
    """

    def __init__(self, api_key: str | None = None) -> None:
        self._api_key = api_key
        self._queue: list[scripts.Script] = []
        self._ledger = Ledger(1000)
        self._open: set[Connection] = set()
        self.base_url = ""

    @property
    def root_url(self) -> str:
        """The base URL without the version, as the vendor's own client wants it."""
        return self.base_url.removesuffix("/v1beta")

    @property
    def requests(self) -> list[Record]:
        """What was asked, oldest first."""
        return list(self._ledger.records)

    @property
    def bodies(self) -> list[Any]:
        """What was asked, parsed."""
        return [record.body for record in self._ledger.records]

    @property
    def rejected(self) -> list[str]:
        """Why requests were refused as invalid."""
        return [record.rejected for record in self._ledger.records if record.rejected]

    def play(self, *given: scripts.Script) -> None:
        """Queue scripts, one per request."""
        self._queue.extend(given)

    async def ended(self, number: int) -> Record:
        """Wait until the request with this number (from 1) was answered in full, or the client went away."""
        async with asyncio.timeout(10):
            return await self._ledger.wait(number, "ended")

    async def _answer(self, connection: Connection, request: HttpRequest) -> None:
        loop = asyncio.get_running_loop()
        record = self._ledger.open(request.headers, connection.client_port, loop.time())
        try:
            await self._judge_and_play(Reply(connection), record, request)
            record.ended_at = loop.time()
        except asyncio.CancelledError:
            record.closed_by_client_at = loop.time()
            raise
        finally:
            self._ledger.changed()

    async def _judge_and_play(self, reply: Reply, record: Record, request: HttpRequest) -> None:
        script = self._judged(record, request) or (
            self._queue.pop(0) if self._queue else [scripts.text("ok"), scripts.finish()]
        )
        await GeminiPlayer(reply, record, Wheel(asyncio.get_running_loop()), events_per_chunk=1).play(script)

    def _judged(self, record: Record, request: HttpRequest) -> scripts.Script | None:
        record.body = {}
        path = PATH.fullmatch(request.path)
        if request.method != "POST" or path is None:
            return [refusal(404, "NOT_FOUND", "No such model.")]
        if self._api_key is not None and request.headers.get("x-goog-api-key") != self._api_key:
            return [refusal(400, message="API key not valid. Please pass a valid API key.")]
        record.body = json.loads(request.body)
        record.rejected = next(complaints(record.body, path[1]), None)
        return None if record.rejected is None else [refusal(400, message=record.rejected)]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            create = asyncio.get_running_loop().create_server
            self._server = await create(lambda: Connection(self._answer, tasks, self._open), "127.0.0.1", 0)
            self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1beta"
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, at: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        for connection in list(self._open):
            connection.close(is_reset=True)
        await self._stack.aclose()


def complaints(request: Mapping[str, Any], model: str) -> Iterator[str]:
    """Say everything for which the vendor would refuse a request."""
    yield from (f"unknown field {name}" for name in request.keys() - TOP_LEVEL)
    contents = request.get("contents")
    if not isinstance(contents, list) or not contents:
        yield "contents is not a list with entries"
        return
    is_strict = not re.match(r"gemini-[12]\b", model)
    yield from _config(request, is_strict=is_strict)
    for position, content in enumerate(contents):
        yield from _content(f"contents[{position}]", content)
    yield from _order(contents)
    if is_strict:
        yield from _signatures(contents)


def _config(request: Mapping[str, Any], *, is_strict: bool) -> Iterator[str]:
    config = request.get("generationConfig", {})
    thinking = config.get("thinkingConfig", {})
    yield from (f"unknown field {name}" for name in [*(config.keys() - CONFIG), *(thinking.keys() - THINKING)])
    if {"thinkingBudget", "thinkingLevel"} <= thinking.keys():
        yield "thinkingBudget and thinkingLevel exclude each other"
    if ("responseJsonSchema" in config) != (config.get("responseMimeType") == "application/json"):
        yield "a schema needs the response mime type application/json"
    if "responseMimeType" in config and "tools" in request and not is_strict:
        yield "Function calling with a response mime type: 'application/json' is unsupported"
    if not all(part.get("text") for part in request.get("systemInstruction", {"parts": ()})["parts"]):
        yield "systemInstruction has an empty part"
    for tool in request.get("tools", ()):
        for function in tool["functionDeclarations"]:
            if not TOOL_NAME.fullmatch(function["name"]) or function["parametersJsonSchema"].get("type") != "object":
                yield "a function without a valid name or without an object of parameters"


def _content(where: str, content: Mapping[str, Any]) -> Iterator[str]:
    if content.keys() != {"role", "parts"} or content["role"] not in {"user", "model"} or not content["parts"]:
        yield f"{where}: not exactly a role and parts"
    for part in content["parts"]:
        data = part.keys() & DATA
        if len(data) != 1 or part.keys() - DATA - {"thought", "thoughtSignature"}:
            yield f"{where}: a part with not exactly one kind of data"
        if part.get("text") == "" and "thoughtSignature" not in part:
            yield f"{where}: an empty text"
        if part.keys() & {"inlineData", "fileData", "functionResponse"} and content["role"] != "user":
            yield f"{where}: a part that is not the model's"
        if part.keys() & {"functionCall", "thought", "thoughtSignature"} and content["role"] != "model":
            yield f"{where}: a part that is not the user's"
        if "thoughtSignature" in part and not _is_base64(part["thoughtSignature"]):
            yield f"{where}: a signature that is not base64"
        yield from _function(where, part)


def _function(where: str, part: Mapping[str, Any]) -> Iterator[str]:
    for kind, member in (("functionCall", "args"), ("functionResponse", "response")):
        function = part.get(kind)
        if function is None:
            continue
        if not TOOL_NAME.fullmatch(function.get("name", "")) or not isinstance(function.get(member), dict):
            yield f"{where}: {kind} without a valid name or without an object in {member}"


def _order(contents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    roles = [content["role"] for content in contents]
    if roles[0] != "user" or roles[-1] != "user":
        yield "a conversation that does not begin and end with the user"
    if any(before == after for before, after in pairwise(roles)):
        yield "two contents of one role in a row"
    for before, after in pairwise([{"role": "model", "parts": ()}, *contents]):
        calls, answers = _named(before, "functionCall"), _named(after, "functionResponse")
        if calls != answers:
            yield "function responses that are not those of the calls before them"
        if any("functionResponse" not in part for part in after["parts"][: len(answers)]):
            yield "something before the function responses"


def _named(content: Mapping[str, Any], kind: str) -> list[tuple[Any, Any]]:
    return [(part[kind].get("id"), part[kind].get("name")) for part in content["parts"] if kind in part]


def _signatures(contents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for content in contents:
        first = next((part for part in content["parts"] if "functionCall" in part), None)
        if first is not None and "thoughtSignature" not in first:
            yield f"Function call is missing a thought_signature in functionCall part {first['functionCall']['name']}"


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error:
        return False
    return True
