"""The wire of Gemini's generateContent: a request as JSON, and the chunks of a streamed answer. It knows neither HTTP nor time.

The vendor signs parts of its answers and wants each signature back on the part that had it. A call's signature stands in
`ToolUse.vendor`. A text's stands with the reasoning, with the place of the signed piece, since the transcript joins all text.

Source: https://ai.google.dev/api/generate-content, https://ai.google.dev/gemini-api/docs/thought-signatures
"""

import mimetypes
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import orjson

from app.errors import ProviderError
from app.messages import Image, Message, Reasoning, StopReason, Text, ToolResult, ToolUse, Usage
from app.providers import chunks, names, reading, refusals
from app.providers.base import ModelChunk, ModelRequest, ToolCallChunk, ToolSpec, VendorChunk
from app.providers.chunks import Channel, Chunks
from app.providers.reading import Json

NAME: Final = "gemini"  # what the vendor wants back stands under it in messages
NOT_IN_A_TOOL_NAME: Final = re.compile(r"[^a-zA-Z0-9_.-]")
NOTHING_SAID: Final = "(empty)"  # the vendor refuses a message without text
# Models since the third generation refuse a call without a signature; this one is documented for calls of other models.
FOREIGN_SIGNATURE: Final = "skip_thought_signature_validator"
OLDER_MODEL: Final = re.compile(r"(models/)?gemini-[12]\b")
ANY_GEMINI: Final = re.compile(r"(models/)?gemini-")
ANSWER_IN_WORDS: Final = "Your final answer must be JSON alone, valid against this JSON Schema:"
THINKING: Final = {
    "thinking_budget": "thinkingBudget",
    "thinking_level": "thinkingLevel",
    "include_thoughts": "includeThoughts",
}
GENERATION: Final = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "stop_sequences": "stopSequences",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
# Every reason that is in none of these four is a regular end.
LENGTH: Final = frozenset({"MAX_TOKENS", "CONTINUATION"})
FILTERED: Final = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION"}
    | {"IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"}
)
NO_ANSWER: Final = frozenset({"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"})
REFUSED: Final = frozenset({"MISSING_THOUGHT_SIGNATURE", "PUP_LIMITED_DISABLED"})
NOT_FINISHED: Final = "FINISH_REASON_UNSPECIFIED"


def write_request(request: ModelRequest) -> bytes:
    """Write the body of a streaming request; the model's name stands in the path."""
    takes_schema = not request.tools or _is_strict(request.model)
    system = [request.system] if request.system else []
    if request.output_schema is not None and not takes_schema:
        system.append(f"{ANSWER_IN_WORDS}\n{orjson.dumps(request.output_schema).decode()}")
    body: Json = {"contents": _contents(request.messages, is_strict=_is_strict(request.model))}
    if system:
        body["systemInstruction"] = {"parts": [{"text": "\n\n".join(system)}]}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in request.tools]}]
    if config := _generation_config(request, takes_schema=takes_schema):
        body["generationConfig"] = config
    return orjson.dumps(body)


def tool_names(tools: Sequence[ToolSpec]) -> dict[str, str]:
    """Return our names of tools by the names that the vendor is told, for `AnswerReader`."""
    return {_wire_name(tool.name): tool.name for tool in tools}


def _is_strict(model: str) -> bool:
    """Whether the model is of the third generation or later: it insists on signatures, and takes a schema beside tools."""
    return bool(ANY_GEMINI.match(model)) and not OLDER_MODEL.match(model)


def _generation_config(request: ModelRequest, *, takes_schema: bool) -> Json:
    given = {name: value for name, value in request.params.items() if value is not None}
    config: Json = {wire: given[name] for name, wire in GENERATION.items() if name in given}
    if thinking := {wire: given[name] for name, wire in THINKING.items() if name in given}:
        config["thinkingConfig"] = thinking
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.output_schema is not None and takes_schema:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": request.output_schema}
    return config


def _declaration(tool: ToolSpec) -> Json:
    return {"name": _wire_name(tool.name), "description": tool.description, "parametersJsonSchema": tool.input_schema}


def _contents(messages: Sequence[Message], *, is_strict: bool) -> list[Json]:
    """Write the messages, neighbours of one role joined: the vendor wants them in turns."""
    contents: list[Json] = []
    called: dict[str, str] = {}  # names by the ids of the calls so far
    for message in messages:
        assert message.role != "system", "the system prompt stands in the request's `system`"
        called |= {use.id: _wire_name(use.name) for use in message.tool_uses}
        role, parts = _turn(message, called, is_strict=is_strict)
        if parts and contents and contents[-1]["role"] == role:
            contents[-1]["parts"].extend(parts)
        elif parts:
            contents.append({"role": role, "parts": parts})
    return contents


def _turn(message: Message, called: Mapping[str, str], *, is_strict: bool) -> tuple[str, list[Json]]:
    if message.role == "assistant":
        return "model", _answer_parts(message, is_strict=is_strict)
    if message.role == "tool":
        return "user", [_result(block, called) for block in message.content if isinstance(block, ToolResult)]
    return "user", list(_user_parts(message)) or [{"text": NOTHING_SAID}]


def _user_parts(message: Message) -> Iterator[Json]:
    for block in message.content:
        if isinstance(block, Text) and block.text:
            yield {"text": block.text}
        elif isinstance(block, Image):
            yield _image(block)


def _image(image: Image) -> Json:
    if image.url is None:
        return {"inlineData": {"mimeType": image.media_type, "data": image.data}}
    media_type = image.media_type or mimetypes.guess_type(urlsplit(image.url).path)[0]
    return {"fileData": {"fileUri": image.url} | ({"mimeType": media_type} if media_type else {})}


def _result(result: ToolResult, called: Mapping[str, str]) -> Json:
    response = {"error" if result.is_error else "output": result.content}
    name = called.get(result.tool_use_id, names.UNNAMED)
    return {"functionResponse": {"id": names.call_id(result.tool_use_id), "name": name, "response": response}}


def _answer_parts(message: Message, *, is_strict: bool) -> list[Json]:
    """Write an assistant's text, signed thoughts and calls, each where it stood; nothing where only reasoning was said."""
    placed = [(place, 0, part) for place, part in _spoken_parts(message)]
    placed += [(number, 1, _call(use)) for number, use in enumerate(message.tool_uses)]
    parts = [part for *_, part in sorted(placed, key=lambda entry: entry[:2])]
    first_call = next((part for part in parts if "functionCall" in part), None)
    if is_strict and first_call is not None:
        first_call.setdefault("thoughtSignature", FOREIGN_SIGNATURE)
    return parts


def _spoken_parts(message: Message) -> Iterator[tuple[int, Json]]:
    """Yield parts of text, cut where the vendor's signatures need it, each with the number of calls before it."""
    marks: list[Json] = []
    for block in message.content:
        if isinstance(block, Reasoning):
            own = (block.vendor or {}).get(NAME, [])
            marks += [mark for mark in own if not mark["is_thought"]]
            yield from ((mark["calls"], _signed(block.text, mark) | {"thought": True}) for mark in own if mark["is_thought"])
    if not marks:
        yield from ((0, {"text": block.text}) for block in message.content if isinstance(block, Text) and block.text)
        return
    text, end, calls = message.text, 0, 0
    for mark in marks:
        if between := text[end : mark["start"]]:
            yield calls, {"text": between}
        end, calls = mark["end"], mark["calls"]
        yield calls, _signed(text, mark)
    if rest := text[end:]:
        yield calls, {"text": rest}


def _signed(text: str, mark: Json) -> Json:
    return {"text": text[mark["start"] : mark["end"]], "thoughtSignature": mark["signature"]}


def _call(use: ToolUse) -> Json:
    args = use.args if isinstance(use.args, dict) else {}
    call = {"id": names.call_id(use.id), "name": _wire_name(use.name), "args": args}
    signature = (use.vendor or {}).get(NAME)
    return {"functionCall": call} | ({"thoughtSignature": signature} if signature else {})


def _wire_name(name: str) -> str:
    """Return a name that the vendor takes: it begins with a letter or an underscore."""
    plain = names.tool_name(name, forbidden=NOT_IN_A_TOOL_NAME)
    is_begun_well = plain[0].isalpha() or plain[0] == "_"
    return plain if is_begun_well else f"_{plain}"[: names.MOST_CHARACTERS]


class AnswerReader:
    """Reads the events of one answer; `stop_reason` is None until the finish marker has come.

    Args:
        names: our names of tools by the vendor's, as `tool_names` gives them; a name that is not among them stays as it is.
    """

    is_done = False  # the vendor has no event that says so; its stream just ends

    def __init__(self, names: Mapping[str, str]) -> None:
        self.stop_reason: StopReason | None = None
        self._names = names
        self._usage = Usage()
        self._calls = 0
        self._chunks = Chunks()

    @property
    def is_finished(self) -> bool:
        """Whether the finish marker has come."""
        return self.stop_reason is not None

    def read(self, events: Iterable[bytes]) -> Iterator[ModelChunk]:
        """Give what the events say; neighbouring pieces of text are joined, since they came together.

        Raises:
            ProviderError: `PROVIDER_PROTOCOL` for what is not of this wire and for a call that the model wrote wrongly, the
                reason of its status for an error event; raised after what came before it.
        """
        return self._chunks.given(self._take_all, events)

    def finish(self) -> Iterator[ModelChunk]:
        """Yield the last chunk.

        Raises:
            ProviderError: `PROVIDER_PROTOCOL`; there was no finish marker, so this is no answer.
        """
        yield chunks.finish(self.stop_reason, self._usage, has_calls=self._calls > 0)

    def _take_all(self, events: Iterable[bytes]) -> None:
        for data in events:
            if data.strip():
                self._take(reading.event(data), data)

    def _take(self, event: Json, data: bytes) -> None:
        if error := event.get("error"):
            raise _error_event(error, data)
        if usage := event.get("usageMetadata"):
            self._usage = _usage(usage)
        try:
            self._take_answer(event)
        finally:
            if usage and not self.is_finished:
                self._chunks.count(self._usage)

    def _take_answer(self, event: Json) -> None:
        if candidates := event.get("candidates"):
            self._take_candidate(reading.object_of(reading.list_of(candidates)[0]))
        elif reading.object_of(event.get("promptFeedback") or {}).get("blockReason"):
            self.stop_reason = "content_filter"

    def _take_candidate(self, candidate: Json) -> None:
        content = reading.object_of(candidate.get("content") or {})
        for part in reading.list_of(content.get("parts") or []):
            self._take_part(reading.object_of(part))
        reason = candidate.get("finishReason")
        if reason and reason != NOT_FINISHED:
            self._end(reason)

    def _take_part(self, part: Json) -> None:
        signature = part.get("thoughtSignature")
        if call := part.get("functionCall"):
            self._take_call(reading.object_of(call), signature)
        elif "text" in part or signature:
            self._take_text("reasoning" if part.get("thought") is True else "text", part.get("text", ""), signature)

    def _take_call(self, call: Json, signature: object) -> None:
        name = reading.text_or_empty(call.get("name"))
        args = orjson.dumps(call.get("args") or {}).decode()
        call_id = reading.text_or_empty(call.get("id"))
        self._chunks.add(ToolCallChunk(self._calls, call_id, self._names.get(name, name), args, signature or None))
        self._calls += 1

    def _take_text(self, channel: Channel, text: object, signature: object) -> None:
        start = self._chunks.characters[channel]
        self._chunks.say(channel, reading.text_of(text))
        if signature:
            end = self._chunks.characters[channel]
            place = {"is_thought": channel == "reasoning", "start": start, "end": end, "calls": self._calls}
            self._chunks.add(VendorChunk({"signature": signature, **place}))

    def _end(self, reason: object) -> None:
        if not isinstance(reason, str):
            raise refusals.malformed("The provider sent a finish reason that is not a string.")
        if reason in NO_ANSWER:
            raise refusals.malformed("The model wrote a tool call or an answer that the provider could not read.")
        if reason in REFUSED:
            raise ProviderError("PROVIDER_REFUSED_REQUEST", "The provider refused the request in the middle of its answer.")
        self.stop_reason = "max_tokens" if reason in LENGTH else "content_filter" if reason in FILTERED else "end_turn"


def _error_event(error: object, data: bytes) -> ProviderError:
    code = error.get("code") if isinstance(error, dict) else None
    if type(code) is int and 400 <= code <= 599:  # noqa: PLR2004 - the statuses that stand for errors
        return refusals.from_status(code, {}, data)
    if refusals.says_context_is_full(error):
        return refusals.context_overflow()
    return refusals.malformed("The provider reported an error in the middle of its answer.")


def _usage(raw: object) -> Usage:
    """Read usage as far as it can be believed: what is absent, negative, absurd or no integer counts as 0."""
    if not isinstance(raw, dict):
        return Usage()
    prompt = reading.token_count(raw.get("promptTokenCount"))
    cached = min(prompt, reading.token_count(raw.get("cachedContentTokenCount")))
    return Usage(
        input_tokens=prompt - cached + reading.token_count(raw.get("toolUsePromptTokenCount")),
        output_tokens=reading.token_count(raw.get("candidatesTokenCount")) + reading.token_count(raw.get("thoughtsTokenCount")),
        cache_read_tokens=cached,
    )
