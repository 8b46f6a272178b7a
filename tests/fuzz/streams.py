"""What is fed to the encoder of event streams, to the readers of vendors' answers, and to the fold of a step's events."""

from collections.abc import Callable, Iterable, Sequence

import orjson

from app.agent import transcript
from app.errors import ProviderError
from app.journal import frames
from app.journal.event import Event
from app.journal.reader import Stored
from app.journal.types import (
    ReasoningDelta,
    SessionUpdated,
    StepCompleted,
    StepDiscarded,
    StepStarted,
    TextDelta,
    ToolCallPending,
    ToolCallRequested,
    ToolExecutionCompleted,
    ToolExecutionStarted,
    ToolResultReceived,
)
from app.messages import NO_USAGE, Text, ToolResult
from app.providers.base import Finish, ModelChunk, ReasoningChunk, TextChunk, ToolCallChunk, UsageChunk, VendorChunk
from app.providers.calls import Reader
from app.providers.sse import SseParser
from tests.fuzz import reference

SESSION, TURN, AT = "01998f3e-2a51-7c3d-9b1e-5f2a7c9d0e11", "01998f3e-2a58-7a10-8c44-1d3b5e7f9a22", "2026-01-01T00:00:00Z"
LEAST_EVENT_BYTES = 64
MOST_EVENTS = 64


def encoded_frames(data: bytes) -> None:
    """Any text in any event makes one frame, which every client reads as that event."""
    text = data.decode("utf-8", "ignore")
    told: list[Event] = [
        TextDelta(1, text),
        ToolCallRequested(1, text, text, {text: [text]}),
        SessionUpdated({"title": text, "labels": {text: text}}),
    ]
    stream = b"".join(frames.frame(seq, event.type, _stored(event)) for seq, event in enumerate(told, 1))
    assert len(stream.decode().splitlines()) == 4 * len(told), "a client that splits lines anywhere sees other lines"
    seen = reference.events(stream)
    assert [(one.id, one.type) for one in seen] == [(b"%d" % seq, event.type.encode()) for seq, event in enumerate(told, 1)]
    for event, one in zip(told, seen, strict=True):
        [line] = one.data
        envelope, own = orjson.loads(line), orjson.loads(event.payload())
        assert envelope | own == envelope
        assert (envelope["session_id"], envelope["type"]) == (SESSION, event.type)


def vendor_streams(data: bytes) -> None:
    """However a stream is cut, its events are those of the standard; a limit refuses and changes nothing else."""
    cuts, stream = data[:4], data[4:]
    expected = [b"\n".join(event.data) for event in reference.events(stream)]
    for pieces in ([stream], list(_pieces(stream, cuts))):
        parser = SseParser()
        assert [event for piece in pieces for event in parser.feed(piece)] == expected
    small, found = SseParser(LEAST_EVENT_BYTES), list[bytes]()
    try:
        for piece in _pieces(stream, cuts):
            found += small.feed(piece)
    except ProviderError:
        pass
    else:
        assert found == expected
    assert found == expected[: len(found)]


def answers(make: Callable[[], Reader]) -> Callable[[bytes], None]:
    """Make the property of a vendor's reader: it gives chunks that are whole and writable, or fails as a provider does."""

    def read(data: bytes) -> None:
        reader = make()
        finishes = 0
        try:
            for event in data.split(b"\n"):
                finishes += _taken(reader.read([event]))
                if reader.is_done:
                    break
            finishes += _taken(reader.finish())
        except ProviderError:
            return
        assert finishes == 1
        assert reader.is_finished

    return read


def folded_steps(data: bytes) -> None:
    """Whatever the log of a step says, wherever it is cut, its end answers every open call once, and says nothing empty."""
    log = [_stored_event(seq, event) for seq, event in enumerate([StepStarted(1), *map(_event, data[:MOST_EVENTS])], 1)]
    for end in {len(log), data[0] % len(log)} if data else {0}:
        state = transcript.fold(log[:end])
        closing = transcript.close(state)
        assert len(closing.messages) <= 1
        for message in closing.messages:
            assert state is not None
            results = [block for block in message.content if isinstance(block, ToolResult)]
            assert [result.tool_use_id for result in results] == [call.id for call in state.open_calls]
            assert len(closing.events) == len(results)
            assert message.content
            assert all(block.text for block in message.content if isinstance(block, Text))


def _taken(chunks: Iterable[ModelChunk]) -> int:
    finishes = 0
    for chunk in chunks:
        match chunk:
            case TextChunk() | ReasoningChunk():
                assert chunk.text
                chunk.text.encode()
            case ToolCallChunk():
                orjson.dumps([chunk.index, chunk.id, chunk.name, chunk.args_delta, chunk.vendor])
                assert chunk.index >= 0
            case VendorChunk():
                orjson.dumps(chunk.value)
            case UsageChunk() | Finish():
                assert chunk.usage.total_tokens >= 0
                finishes += isinstance(chunk, Finish)
    return finishes


def _pieces(stream: bytes, cuts: Sequence[int]) -> Iterable[bytes]:
    begin = 0
    for size in cuts:
        yield stream[begin : begin + size]
        begin += size
    yield stream[begin:]


def _event(byte: int) -> Event:
    """Return one of the events that follow a step's start; three calls, so that they meet."""
    kind, call, flag = byte % 9, f"call_{byte // 9 % 3}", bool(byte & 128)
    made: list[Callable[[], Event]] = [
        lambda: TextDelta(1, "a"),
        lambda: ReasoningDelta(1, "b"),
        lambda: ToolCallRequested(1, call, "tool", {"x": byte}),
        lambda: StepCompleted(1, "tool_use", NO_USAGE),
        lambda: ToolCallPending(call, "tool", {"x": byte}, "approval" if flag else "external", AT),
        lambda: ToolExecutionStarted(call, "tool"),
        lambda: ToolExecutionCompleted(call, "tool", "result", flag, 1),
        lambda: ToolResultReceived(call, "tool", flag),
        lambda: StepDiscarded(1, "PROVIDER_PROTOCOL", 1),
    ]
    return made[kind]()


def _stored_event(seq: int, event: Event) -> Stored:
    return Stored(seq, TURN, event.type, _stored(event))


def _stored(event: Event) -> str:
    return frames.body(event, session_id=SESSION, turn_id=TURN, at=AT)
