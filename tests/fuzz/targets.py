"""The targets by name, each with what its fuzzing begins from: inputs that get far."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import orjson

from app.providers import anthropic_answer, chat_completions, gemini_contents, openai_responses
from tests.fuzz import doors, streams
from tests.hostile import NO_JSON, TEXTS, VALUES

MOST_SEED_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes any bytes, and inputs to begin from."""

    check: Callable[[bytes], None]
    seeds: Sequence[bytes]


def _lines(*events: object) -> bytes:
    return b"\n".join(event if isinstance(event, bytes) else orjson.dumps(event) for event in events)


def _said(**delta: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


_CHAT = _lines(
    _said(role="assistant", content="Hi"),
    _said(reasoning_content="hm"),
    _said(tool_calls=[{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}]),
    _said(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}},
    b"[DONE]",
)
_ANTHROPIC = _lines(
    {"type": "message_start", "message": {"id": "m", "role": "assistant", "usage": {"input_tokens": 1, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "ping"},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)
_CALL = {"type": "function_call", "id": "fc", "call_id": "call_1", "name": "f", "arguments": "", "status": "in_progress"}
_THOUGHT = {"type": "reasoning", "id": "rs", "summary": []}
_MESSAGE = {"type": "message", "id": "m", "content": []}
_HI = {"type": "output_text", "text": "Hi"}
_OPENAI = _lines(
    {"type": "response.created", "response": {"id": "r", "status": "in_progress"}},
    {"type": "response.output_item.added", "output_index": 0, "item": _THOUGHT},
    {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 0},
    {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "hm"},
    {"type": "response.output_item.done", "output_index": 0, "item": _THOUGHT | {"encrypted_content": "x"}},
    {"type": "response.output_item.added", "output_index": 1, "item": _MESSAGE},
    {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Hi"},
    {"type": "response.output_item.done", "output_index": 1, "item": _MESSAGE | {"content": [_HI]}},
    {"type": "response.output_item.added", "output_index": 2, "item": _CALL},
    {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"a":'},
    {"type": "response.function_call_arguments.done", "output_index": 2, "arguments": '{"a":1}'},
    {"type": "response.output_item.done", "output_index": 2, "item": _CALL | {"arguments": '{"a":1}', "status": "completed"}},
    {"type": "response.completed", "response": {"status": "completed", "usage": {"input_tokens": 1, "output_tokens": 2}}},
)  # fmt: skip
_GEMINI = _lines(
    {"candidates": [{"content": {"role": "model", "parts": [{"text": "hm", "thought": True, "thoughtSignature": "c2ln"}]}}]},
    {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}}], "usageMetadata": {"promptTokenCount": 1}},
    {"candidates": [{"content": {"role": "model", "parts": [{"functionCall": {"id": "a", "name": "f", "args": {"a": 1}}}]}}]},
    {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2}},
)


def _as_stream(events: bytes, end: bytes) -> bytes:
    return b"\x07\x03\x40\x01" + b"".join(b"event: x" + end + b"data: " + one + end + end for one in events.split(b"\n"))


def _cursor(text: str) -> bytes:
    return base64.urlsafe_b64encode(text.encode())


@cache
def targets() -> dict[str, Target]:
    """Return them all."""
    texts = [text.encode() for text in TEXTS.values()]
    answers = [_CHAT, _ANTHROPIC, _OPENAI, _GEMINI, b'{"error":{"message":"no","code":429,"type":"overloaded_error"}}']
    bad = [data[:MOST_SEED_BYTES] for data in NO_JSON.values()]
    cursors = ["-updated_at,1700000000000000,01998f3e-2a51-7c3d-9b1e-5f2a7c9d0e11", "-created_at,0,x", "-created_at,１,"]
    return {
        "strict JSON": Target(doors.json_texts, [*map(orjson.dumps, VALUES.values()), *bad]),
        "queries": Target(doors.queries, [b"limit=5&q=a%00b&label=a:b&label=c", b"after=7", *texts]),
        "event cursors": Target(doors.event_cursors, [b"7", b"0" * 18, b"9" * 19, "１２".encode(), b"1\n"]),
        "list cursors": Target(doors.list_cursors, [_cursor(text) for text in cursors]),
        "SSE encoder": Target(streams.encoded_frames, texts),
        "SSE parser": Target(
            streams.vendor_streams,
            [_as_stream(answers[0], end) for end in (b"\n", b"\r\n", b"\r")] + [b"0000" + t for t in texts],
        ),
        "Chat Completions": Target(streams.answers(chat_completions.AnswerReader), [*answers, *bad]),
        "Messages": Target(streams.answers(anthropic_answer.AnswerReader), [*answers, *bad]),
        "Responses": Target(streams.answers(openai_responses.AnswerReader), [*answers, *bad]),
        "Gemini": Target(streams.answers(lambda: gemini_contents.AnswerReader({"f": "f"})), [*answers, *bad]),
        "transcript": Target(streams.folded_steps, [bytes([2, 11, 3, 5, 6, 7]), bytes(range(40)), bytes([0, 1, 8]), bytes(9)]),
    }
