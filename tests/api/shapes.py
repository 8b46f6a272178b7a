"""The contract's views and events, field by field: what a client may rely on, written down apart from the code.

`assert_*` fails on a missing field, on one too many, and on a value of the wrong kind.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], bool]
TERMINAL = ("turn_completed", "turn_failed", "turn_interrupted", "turn_cancelled")
STOP_REASONS = ("end_turn", "max_tokens", "stop_sequence", "content_filter", "tool_use", "interrupted")

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def is_id(value: Any) -> bool:
    """Tell whether it is a UUIDv7 in lower case."""
    return isinstance(value, str) and _UUID7.fullmatch(value) is not None


def is_time(value: Any) -> bool:
    """Tell whether it is RFC 3339 in UTC with `Z`."""
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


def is_text(value: Any) -> bool:
    """Tell whether it is a string."""
    return isinstance(value, str)


def is_bool(value: Any) -> bool:
    """Tell whether it is true or false."""
    return isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Tell whether it is a whole number from 0."""
    return type(value) is int and value >= 0


def is_labels(value: Any) -> bool:
    """Tell whether it maps strings to strings."""
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def is_anything(_value: Any) -> bool:
    """Allow everything."""
    return True


def maybe(check: Check) -> Check:
    """Allow null too."""
    return lambda value: value is None or check(value)


def one_of(*values: object) -> Check:
    """Allow a few values."""
    return lambda value: value in values


def shaped(shape: Mapping[str, Check]) -> Check:
    """Allow an object of exactly these fields."""
    return lambda value: value.keys() == shape.keys() and all(check(value[name]) for name, check in shape.items())


def list_of(check: Check) -> Check:
    """Allow a list of such values."""
    return lambda value: isinstance(value, list) and all(check(item) for item in value)


def is_prompt(value: Any) -> bool:
    """Tell whether it is a string or blocks."""
    return is_text(value) or (isinstance(value, list) and all("type" in block for block in value))


PENDING: Mapping[str, Check] = {
    "id": is_text, "name": is_text, "args": is_anything, "kind": one_of("external", "approval"), "expires_at": is_time,
}  # fmt: skip
USAGE: Mapping[str, Check] = dict.fromkeys(
    ("input_tokens", "output_tokens", "cache_creation_tokens", "cache_read_tokens"), is_count
)
TURN_USAGE: Mapping[str, Check] = {**USAGE, "total_tokens": is_count}
ERROR: Mapping[str, Check] = {"code": one_of("AGENT_ERROR"), "reason": is_text, "message": is_text}

SUMMARY: Mapping[str, Check] = {
    "session_id": is_id, "created_at": is_time, "updated_at": is_time, "archived_at": maybe(is_time), "title": maybe(is_text),
    "labels": is_labels, "model": is_text, "status": one_of("idle", "running", "waiting", "archived"), "is_active": is_bool,
    "message_count": is_count, "total_tokens": is_count,
}  # fmt: skip
STATE: Mapping[str, Check] = {
    **{name: check for name, check in SUMMARY.items() if name != "total_tokens"},
    "provider": is_text, "current_turn_id": maybe(is_id), "queued_turns": is_count, "last_assistant_text": maybe(is_text),
    "last_seq": is_count, "instance_id": maybe(is_id), "backend": one_of("postgres"), "config_generation": is_count,
}  # fmt: skip
SESSION: Mapping[str, Check] = {
    "state": shaped(STATE),
    "billing": shaped({"total_tokens": is_count, "usage": shaped(USAGE)}),
}
TURN: Mapping[str, Check] = {
    "session_id": is_id, "turn_id": is_id, "number": is_count,
    "status": one_of("queued", "running", "waiting", "completed", "failed", "interrupted", "cancelled"),
    "text": maybe(is_text), "steps": is_count, "tool_calls": is_count, "attempt": is_count, "usage": shaped(TURN_USAGE),
    "stop_reason": one_of("end_turn", "max_tokens", "stop_sequence", "content_filter", "interrupted", None),
    "structured_output": is_anything, "schema_warnings": list_of(is_text), "skill_diagnostics": one_of(None),
    "pending_tool_calls": list_of(shaped(PENDING)), "error": maybe(shaped(ERROR)),
    "created_at": is_time, "started_at": maybe(is_time),
    "ended_at": maybe(is_time), "first_seq": is_count, "last_seq": is_count,
}  # fmt: skip
MESSAGE: Mapping[str, Check] = {
    "ordinal": is_count, "role": one_of("system", "user", "assistant", "tool"), "content": lambda value: len(value) > 0,
    "turn_id": maybe(is_id), "created_at": is_time,
}  # fmt: skip

NODE: Mapping[str, Check] = {
    "instance_id": is_id, "kind": one_of("serve", "worker"), "version": is_text, "host": is_text, "pid": is_count,
    "status": one_of("ready", "draining", "lost"), "started_at": is_time, "seen_at": is_time,
    "lease_age_seconds": lambda value: isinstance(value, float), "live_turns": is_count, "max_live_turns": is_count,
}  # fmt: skip

_SAID: Mapping[str, Check] = {"stop_reason": one_of(*STOP_REASONS), "summary": one_of(True)}
_STEP: Mapping[str, Check] = {"step": is_count}
_CALL: Mapping[str, Check] = {"id": is_text, "name": is_text}
_HOOK: Mapping[str, Check] = {"hook_id": is_text, "point": is_text}
_END: Mapping[str, Check] = {"text": is_text, "usage": shaped(TURN_USAGE)}
ENVELOPE: Mapping[str, Check] = {
    "seq": is_count, "session_id": is_id, "turn_id": maybe(is_id), "type": is_text, "at": is_time, "scope_id": one_of("primary")
}  # fmt: skip
EVENTS: Mapping[str, Mapping[str, Check]] = {
    "session_created": {"model": is_text, "provider": is_text, "title": maybe(is_text), "labels": is_labels},
    "session_archived": {"archived_at": is_time},
    "session_unarchived": {},
    "turn_queued": {"number": is_count, "prompt": is_prompt},
    "turn_steered": {"prompt": is_prompt},
    "turn_started": {"number": is_count, "prompt": is_prompt, "attempt": is_count},
    "turn_resumed": {"attempt": is_count, "instance_id": is_id},
    "turn_completed": {**_END, "steps": is_count, "tool_calls": is_count, "structured_output": is_anything},
    "turn_failed": {**_END, "error": shaped(ERROR)},
    "turn_interrupted": {**_END, "reason": one_of("user", "archived", "superseded"), "note": is_text},
    "turn_cancelled": {"reason": is_text},
    "step_started": _STEP,
    "step_completed": {**_STEP, "stop_reason": one_of(*STOP_REASONS), "usage": shaped(USAGE)},
    "step_discarded": {**_STEP, "reason": is_text, "from_seq": is_count},
    "text_delta": {**_STEP, "delta": lambda value: is_text(value) and value != ""},
    "text_complete": {**_STEP, "content": is_text},
    "reasoning_delta": {**_STEP, "delta": lambda value: is_text(value) and value != ""},
    "reasoning_complete": {**_STEP, "content": is_text},
    "tool_call_delta": {**_STEP, **_CALL, "args_delta": is_text},
    "tool_call_requested": {**_STEP, **_CALL, "args": is_anything},
    "tool_execution_started": _CALL,
    "tool_execution_completed": {**_CALL, "result": is_text, "is_error": is_bool, "duration_ms": is_count},
    "tool_execution_timed_out": {**_CALL, "timeout_ms": is_count},
    "tool_call_pending": {**PENDING},
    "compaction_started": {"input_tokens": is_count, "message_count": is_count},
    "compaction_completed": {
        "summary_tokens": is_count,
        "messages_before": is_count,
        "messages_after": is_count,
        "usage": shaped(USAGE),
    },
    "compaction_failed": {"error": is_text, "usage": shaped(USAGE)},
    "budget_warning": {"budget_type": is_text, "used": is_anything, "limit": is_anything, "percent": is_count},
    "hook_started": _HOOK,
    "hook_completed": {**_HOOK, "duration_ms": is_count},
    "hook_failed": {**_HOOK, "error": is_text},
    "hook_denied": {**_HOOK, "reason": is_text},
    "hook_rewrite_applied": {**_HOOK, "fields": list_of(is_text)},
    "tool_result_received": {**_CALL, "is_error": is_bool},
    "retrying": {
        "attempt": is_count,
        "max_attempts": is_count,
        "reason": is_text,
        "delay_ms": is_count,
        "model": is_text,
        "provider": is_text,
    },
}
OPTIONAL = {
    "turn_completed": ("structured_output",),
    "turn_interrupted": {"note"},
    "tool_call_delta": {"name"},
    "retrying": {"model", "provider"},
}


def assert_shaped(value: Mapping[str, Any], shape: Mapping[str, Check], *, optional: frozenset[str] = frozenset()) -> None:
    """Hold an object against its shape and name what is wrong."""
    assert value.keys() - shape.keys() == set(), f"fields too many in {value}"
    assert shape.keys() - value.keys() - optional == set(), f"fields missing in {value}"
    wrong = {name: value[name] for name in value if not shape[name](value[name])}
    assert wrong == {}


def assert_event(event: Mapping[str, Any]) -> None:
    """Hold one event against its envelope and its own fields."""
    if event["type"] == "session_updated":
        assert_shaped({name: event[name] for name in ENVELOPE}, ENVELOPE)
        return
    shape = {**ENVELOPE, **EVENTS[event["type"]]}
    assert_shaped(event, shape, optional=frozenset(OPTIONAL.get(event["type"], ())))


def assert_log(events: Sequence[Mapping[str, Any]], *, is_at_rest: bool = True) -> None:
    """Hold a session's whole log against the promises: no gap, well-formed, one end for each turn, deltas that add up."""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "session_created"
    by_turn: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        assert_event(event)
        if not event["type"].startswith("compaction_"):  # asked for by a caller it stands outside any turn
            assert (event["turn_id"] is None) == event["type"].startswith("session_")
        if event["turn_id"] is not None:
            by_turn[event["turn_id"]].append(event)
    for own in by_turn.values():
        ends = [event["type"] for event in own if event["type"] in TERMINAL]
        assert len(ends) <= 1
        if is_at_rest:
            assert len(ends) == 1
            assert own[-1]["type"] in TERMINAL
        assert_deltas_add_up(own)


def assert_deltas_add_up(events: Sequence[Mapping[str, Any]]) -> None:
    """Hold each step's deltas, without the discarded ones, against what it said in the end."""
    joined: dict[tuple[str, int], str] = defaultdict(str)
    for event in events:
        match event["type"]:
            case "text_delta" | "reasoning_delta":
                joined[event["type"].removesuffix("_delta"), event["step"]] += event["delta"]
            case "step_discarded":
                joined["text", event["step"]] = joined["reasoning", event["step"]] = ""
            case "text_complete" | "reasoning_complete":
                shown = joined[event["type"].removesuffix("_complete"), event["step"]]
                assert event["content"] == shown
            case _:
                pass


def assert_transcript(messages: Sequence[Mapping[str, Any]]) -> None:
    """Hold messages against what every provider asks for: each tool use has one result, in the next message, in order."""
    assert [message["ordinal"] for message in messages] == list(range(1, len(messages) + 1))
    open_ids: list[str] = []
    for message in messages:
        assert_shaped(message, {**MESSAGE, **_SAID}, optional=frozenset(_SAID))
        results = [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"]
        assert results == open_ids
        assert (message["role"] == "tool") == bool(results)
        open_ids = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
    assert open_ids == []
