"""What the double plays: a script is a list of actions, written with the functions below and sent as JSON.

    [reasoning("hm"), words("It is noon."), tool_call("datetime", {"timezone": "UTC"}), finish("tool_calls")]

A script without `finish` ends its stream cleanly and without a finish marker. Response headers go out with the first
bytes, or at once with `head()`.
"""

import base64
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

DEFAULT_USAGE: Literal["counted"] = "counted"


@dataclass(frozen=True, slots=True)
class Text:
    """Pieces of text, one event each, in this member of the delta."""

    pieces: Sequence[str]
    member: str = "content"
    type: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Pieces of one call's arguments, one event each; id and name come with the first; what is None is left out."""

    index: int | None
    id: str | None
    name: str | None
    pieces: Sequence[str]
    type: Literal["tool_call"] = "tool_call"


@dataclass(frozen=True, slots=True)
class Tokens:
    """So many tokens of text at so many a second (0: full speed), in a chunked body.

    The text of stamped ones is the monotonic time at which they left.
    """

    count: int
    rate: float = 0
    stamped: bool = False
    type: Literal["tokens"] = "tokens"


@dataclass(frozen=True, slots=True)
class Endless:
    """Text until the client goes away."""

    rate: float = 0
    type: Literal["endless"] = "endless"


@dataclass(frozen=True, slots=True)
class Finish:
    """The finish marker, the usage where the request asks for it, and `[DONE]`."""

    reason: str = "stop"
    usage: Any = DEFAULT_USAGE
    has_done: bool = True
    type: Literal["finish"] = "finish"


@dataclass(frozen=True, slots=True)
class Event:
    """One event with this JSON."""

    json: Any
    type: Literal["event"] = "event"


@dataclass(frozen=True, slots=True)
class Raw:
    """These bytes in one write; every so many seconds one byte where `seconds_per_byte` is given."""

    base64: str
    seconds_per_byte: float | None = None
    type: Literal["raw"] = "raw"


@dataclass(frozen=True, slots=True)
class Pings:
    """SSE comments, one each so many seconds."""

    count: int
    seconds: float
    type: Literal["pings"] = "pings"


@dataclass(frozen=True, slots=True)
class Wait:
    """Silence; where no length is given, until it is told to go on."""

    seconds: float | None = None
    type: Literal["wait"] = "wait"


@dataclass(frozen=True, slots=True)
class Head:
    """The response's head, at once. A body that is not chunked ends where the connection does."""

    is_chunked: bool = True
    content_type: str = "text/event-stream"
    type: Literal["head"] = "head"


@dataclass(frozen=True, slots=True)
class Wire:
    """How the events after it are written: line ends, a byte order mark before the next, writes of so many bytes."""

    line_end: str = "\n"
    has_bom: bool = False
    write_bytes: int | None = None
    type: Literal["wire"] = "wire"


@dataclass(frozen=True, slots=True)
class Status:
    """A whole answer that is no stream."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    type: Literal["status"] = "status"


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of the connection in the middle of the answer, by FIN or by RST."""

    is_reset: bool = False
    type: Literal["cut"] = "cut"


Action: TypeAlias = Text | ToolCall | Tokens | Endless | Finish | Event | Raw | Pings | Wait | Head | Wire | Status | Cut
Script: TypeAlias = Sequence[Action]

_KINDS: dict[str, type[Action]] = {
    "text": Text,
    "tool_call": ToolCall,
    "tokens": Tokens,
    "endless": Endless,
    "finish": Finish,
    "event": Event,
    "raw": Raw,
    "pings": Pings,
    "wait": Wait,
    "head": Head,
    "wire": Wire,
    "status": Status,
    "cut": Cut,
}


def text(*pieces: str) -> Text:
    """Text in exactly these pieces."""
    return Text(pieces)


def words(sentence: str) -> Text:
    """Text word by word, as models stream it."""
    return Text(tuple(split_words(sentence)))


def reasoning(*pieces: str, member: str = "reasoning_content") -> Text:
    """Reasoning in exactly these pieces; `member` is `reasoning_content` or `reasoning`."""
    return Text(pieces, member)


def refusal(*pieces: str) -> Text:
    """A refusal's words."""
    return Text(pieces, "refusal")


def tool_call(
    name: str | None, args: Mapping[str, Any] | str, *, index: int | None = 0, call_id: str | None = "", size: int = 7
) -> ToolCall:
    """One whole call, its arguments in fragments of `size` characters.

    Args:
        args: an object, or raw text where it is to be broken JSON.
        call_id: `call_<index>` where it is empty; None leaves it out.
    """
    raw = args if isinstance(args, str) else json.dumps(args)
    pieces = tuple(raw[start : start + size] for start in range(0, len(raw), size))
    return ToolCall(index, f"call_{index}" if call_id == "" else call_id, name, pieces or ("",))


def tool_call_piece(index: int, arguments: str, *, call_id: str | None = None, name: str | None = None) -> ToolCall:
    """One fragment, for calls that interleave."""
    return ToolCall(index, call_id, name, (arguments,))


def tokens(count: int, *, rate: float = 0, stamped: bool = False) -> Tokens:
    """A plain answer of so many tokens."""
    return Tokens(count, rate, stamped)


def endless(*, rate: float = 0) -> Endless:
    """Text until the client goes away."""
    return Endless(rate)


def finish(reason: str = "stop", *, usage: Any = DEFAULT_USAGE, has_done: bool = True) -> Finish:
    """The regular end; `usage` None leaves it out, anything else is sent as it is."""
    return Finish(reason, usage, has_done)


def event(payload: object) -> Event:
    """One event with this JSON."""
    return Event(payload)


def error_event(message: str = "The model crashed.", **members: Any) -> Event:
    """An error inside a 200."""
    return Event({"error": {"message": message, "type": "server_error", "code": None, **members}})


def raw(payload: bytes) -> Raw:
    """These bytes in one write."""
    return Raw(base64.b64encode(payload).decode())


def drip(payload: bytes, *, seconds_per_byte: float) -> Raw:
    """These bytes one by one."""
    return Raw(base64.b64encode(payload).decode(), seconds_per_byte)


def pings(count: int, *, seconds: float) -> Pings:
    """Comments for a while."""
    return Pings(count, seconds)


def wait(seconds: float) -> Wait:
    """Silence for a while."""
    return Wait(seconds)


def hang() -> Wait:
    """Silence until the test says `go_on`, or for ever: no headers where it comes first."""
    return Wait()


def head(*, is_chunked: bool = True, content_type: str = "text/event-stream") -> Head:
    """The response's head before anything else."""
    return Head(is_chunked, content_type)


def wire(*, line_end: str = "\n", has_bom: bool = False, write_bytes: int | None = None) -> Wire:
    """Another way to write the events that follow."""
    return Wire(line_end, has_bom, write_bytes)


def status(http_status: int, /, *, retry_after: str | float | None = None, message: str = "No.", **error: Any) -> Status:
    """An error answer in the vendor's form; further arguments are members of its `error`."""
    headers = {"content-type": "application/json"} | ({} if retry_after is None else {"retry-after": str(retry_after)})
    return Status(http_status, headers, json.dumps({"error": {"message": message, "type": "error", "code": None, **error}}))


def context_overflow() -> Status:
    """The 400 of a transcript that is too long."""
    message = "This model's maximum context length is 8192 tokens, however you requested 9001 tokens."
    return status(400, message=message, code="context_length_exceeded", type="invalid_request_error")


def html(code: int = 200) -> Status:
    """A web page where the API should be."""
    return Status(code, {"content-type": "text/html; charset=utf-8"}, "<!doctype html><title>Welcome</title>")


def redirect(location: str) -> Status:
    """A redirect, which nobody should follow with a key in the request."""
    return Status(307, {"location": location})


def cut(*, is_reset: bool = False) -> Cut:
    """The connection breaks."""
    return Cut(is_reset)


def split_words(sentence: str) -> Iterable[str]:
    """Split into words that keep the space before them; joined they are the sentence."""
    return re.findall(r"\s*\S+|\s+$", sentence)


def dump(script: Script) -> list[dict[str, Any]]:
    """Write a script as JSON values."""
    return [dataclasses.asdict(action) for action in script]


def load(script: Iterable[Mapping[str, Any]]) -> tuple[Action, ...]:
    """Read a script from JSON values; an unknown action or field raises `KeyError` or `TypeError`."""
    return tuple(_KINDS[action["type"]](**action) for action in script)
