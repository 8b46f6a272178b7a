"""The public vocabulary: what each event's JSON and frame look like."""

from dataclasses import fields

import orjson
import pytest

from app.journal.event import Event
from app.journal.frames import body, envelope, frame
from app.journal.types import (
    EVENTS,
    RESERVED,
    TERMINAL,
    SessionUpdated,
    StepCompleted,
    TextDelta,
    ToolCallDelta,
    TurnInterrupted,
    TurnUsage,
)
from app.messages import Usage

AT = "2026-01-02T03:04:05.678Z"
HEAD = ["seq", "session_id", "turn_id", "type", "at", "scope_id"]


def enveloped(event: Event, turn_id: str | None = "t") -> dict[str, object]:
    """Write an event's envelope and read it back."""
    found: dict[str, object] = orjson.loads(envelope(7, body(event, session_id="s", turn_id=turn_id, at=AT)))
    return found


def test_envelope_begins_with_the_fields_that_all_events_have() -> None:
    found = enveloped(TextDelta(1, "Par"))

    assert list(found) == [*HEAD, "step", "delta"]
    assert found == {
        "seq": 7, "session_id": "s", "turn_id": "t", "type": "text_delta", "at": AT, "scope_id": "primary",
        "step": 1, "delta": "Par",
    }  # fmt: skip


def test_event_of_a_session_stands_in_no_turn() -> None:
    assert enveloped(SessionUpdated({"title": "x"}))["turn_id"] is None


def test_event_without_own_fields_is_still_an_object() -> None:
    found = enveloped(SessionUpdated({}))

    assert list(found) == HEAD


def test_nested_values_are_written_as_the_wire_has_them() -> None:
    found = enveloped(StepCompleted(1, "end_turn", Usage(1, 2, 3, 4)))

    assert found["usage"] == {"input_tokens": 1, "output_tokens": 2, "cache_creation_tokens": 3, "cache_read_tokens": 4}


def test_usage_of_a_turn_has_its_total() -> None:
    assert TurnUsage.of(Usage(1, 2, 30, 40)).total_tokens == 3


def test_name_of_a_call_comes_with_its_first_piece_alone() -> None:
    first, later = enveloped(ToolCallDelta(1, "c", "datetime", "{")), enveloped(ToolCallDelta(1, "c", None, "}"))

    assert first["name"] == "datetime"
    assert "name" not in later


def test_note_of_an_interrupt_is_there_only_where_one_was_given() -> None:
    usage = TurnUsage.of(Usage())

    assert enveloped(TurnInterrupted("user", "enough", "", usage))["note"] == "enough"
    assert "note" not in enveloped(TurnInterrupted("user", None, "", usage))


@pytest.mark.parametrize("text", ["a\r\nb", "\n\n", "\r", "\0", "\u2028\u2029\u0085", "id: 9\nevent: x", "}"])
def test_frame_is_three_lines_whatever_the_text(text: str) -> None:
    event = TextDelta(1, text)

    made = frame(7, event.type, body(event, session_id="s", turn_id="t", at=AT))

    lines = made.split(b"\n")
    assert lines[:2] == [b"id: 7", b"event: text_delta"]
    assert lines[3:] == [b"", b""]
    assert b"\r" not in made
    assert orjson.loads(lines[2].removeprefix(b"data: "))["delta"] == text


def test_every_event_is_known_by_its_type_and_has_a_docstring() -> None:
    assert {event.type for event in Event.__subclasses__()} == set(EVENTS)
    assert [name for name, event in EVENTS.items() if not event.__doc__ or event.__doc__.startswith(event.__name__ + "(")] == []


def test_reserved_types_are_written_by_nothing_yet() -> None:
    assert not RESERVED & EVENTS.keys()


def test_each_way_in_which_a_turn_ends_has_one_terminal_type() -> None:
    assert {"turn_completed", "turn_failed", "turn_interrupted", "turn_cancelled"} == TERMINAL


def test_no_event_has_a_field_that_would_hide_one_of_the_envelope() -> None:
    assert {name for name, event in EVENTS.items() if {field.name for field in fields(event)} & set(HEAD)} == set()
