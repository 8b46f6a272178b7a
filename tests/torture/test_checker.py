"""The checker finds each kind of broken promise, that one alone, and none in a run that was whole."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.torture import checker
from tests.torture.made import BEGAN, FIRST, LAST, SECOND, SESSION, Made, operation, usage
from tests.torture.records import Effect, Fault, Shown

Break = Callable[[Made], object]
RESUMED = 15  # place of `turn_resumed`
SILENT_AT = BEGAN + 0.1 * RESUMED  # the event before it


def broken(run: Made, folder: Path) -> set[str]:
    """Return the invariants that the checker finds broken in a run."""
    run.write(folder)
    return {invariant for invariant, _ in checker.check(folder).violations}


def put(run: Made, kind: str, nth: int = 0, **fields: object) -> Made:
    """Change an event."""
    run.log[run.place(kind, nth)] |= fields
    return run


def told(run: Made, place: int, text: str) -> Made:
    """Change the text of a message."""
    run.messages[place]["content"] = [{"type": "text", "text": text}]
    return run


def answered(run: Made, name: str, nth: int = 0, **fields: object) -> Made:
    """Change an operation."""
    place = [place for place, one in enumerate(run.operations) if one.name == name][nth]
    run.operations[place] = replace(run.operations[place], **fields)  # type: ignore[arg-type] # of the test's own making
    return run


def reread(run: Made, *changed: tuple[int, int], end: str = "ended") -> Made:
    """Have a reader see other frames than are stored."""
    frames = dict(run.frames()) | dict(changed)
    run.shown = [Shown("w0", SESSION, "n1", 1, 0, list(frames.items()), end, BEGAN)]
    return run


def in_log(run: Made, place: int, **event: object) -> None:
    """Put an event in before another."""
    run.log.insert(place, event)


def skip_a_number(run: Made) -> None:
    """Give the last event the number after its own; no reader has come so far."""
    run.shown = [Shown("w0", SESSION, "n1", 1, 0, run.frames()[:-1], "left", BEGAN)]
    run.numbers[len(run.log) - 1] = len(run.log) + 1


def reorder_queue(run: Made) -> None:
    """Have the third turn queued too, and begun before the second."""
    late = {"type": "turn_queued", "turn_id": LAST, "number": 3, "prompt": run.prompts[LAST]}
    log = run.log
    second, last = [[one for one in log if one.get("turn_id") == turn] for turn in (SECOND, LAST)]
    queued = second.pop(0)
    rest = [one for one in log if one.get("turn_id") not in {SECOND, LAST}]
    run.log = [rest[0], rest[1], queued, late, *rest[2:-2], *last, *second, *rest[-2:]]
    run.asked = [replace(one, number={5: 4, 4: 5}.get(one.number, one.number)) for one in run.asked]
    for event in run.log:
        for name in ("delta", "content"):
            if event.get("turn_id") in {SECOND, LAST} and name in event:
                event[name] = event[name].replace("5.", "X.").replace("4.", "5.").replace("X.", "4.")
    told(told(run, 5, "5.0 5.1 "), 7, "4.0 ")


def overlap(run: Made) -> None:
    """Begin the last turn while the second is live."""
    started = run.log.pop(run.place("turn_started", 2))
    run.log.insert(run.place("turn_interrupted"), started)


BREAKS: list[tuple[str, Break]] = [
    ("gap_free", skip_a_number),
    ("shown_is_stored", lambda run: reread(run, (5, 1))),
    ("shown_is_stored", lambda run: reread(run, (len(run.log) + 1, 1))),
    ("streams_in_order", lambda run: run.shown.append(Shown("w0", SESSION, "n1", 1, 3, run.frames()[4:], "ended", BEGAN))),
    ("streams_in_order", lambda run: reread(run, end="reset")),
    ("streams_in_order", lambda run: run.shown.append(Shown("w0", SESSION, "n1", 1, 0, [], "404", BEGAN))),
    ("acknowledged_is_durable", lambda run: answered(run, "start_turn", turn_id="t9")),
    ("acknowledged_is_durable", lambda run: answered(run, "create", session_id="s9")),
    ("acknowledged_is_durable", lambda run: answered(run, "interrupt", facts={"turn_status": "completed"})),
    ("acknowledged_is_durable", lambda run: answered(run, "tool_results", facts={"results": {"call_1_1": "no"}})),
    ("acknowledged_is_durable", lambda run: answered(run, "patch", facts={"title": "Other"})),
    ("acknowledged_is_durable", lambda run: answered(run, "archive", facts={"archived_at": "before"})),
    ("acknowledged_is_durable", lambda run: answered(run, "start_turn", plan="p9")),
    ("acknowledged_is_durable", lambda run: answered(run, "create", facts={"last_seq": 99})),
    ("acknowledged_is_durable", lambda run: run.operations.append(operation("delete", status=204, session_id=SESSION))),
    ("once_per_key", lambda run: run.operations.append(operation("start_turn", key="k1", plan="p1", turn_id=SECOND))),
    ("once_per_key", lambda run: run.prompts.update({LAST: run.prompts[FIRST]})),
    ("once_per_key", lambda run: answered(run, "create", outcome="unknown").keys.clear()),
    ("answers_true", lambda run: answered(run, "patch", facts={"title": "New", "wrong": ["another_title"]})),
    ("usable", lambda run: answered(run, "start_turn", 3, outcome="unknown")),
    ("one_terminal", lambda run: in_log(run, run.place("turn_started", 1), type="turn_completed", turn_id=FIRST)),
    ("one_terminal", lambda run: in_log(run, run.place("session_updated"), type="retrying", turn_id=LAST)),
    ("one_terminal", lambda run: answered(run, "interrupt", facts={}).statuses.update({SECOND: "failed"})),
    ("one_live_turn", overlap),
    ("queue_order", reorder_queue),
    ("no_write_after_fence", lambda run: told(put(run, "text_delta", 2, delta="4.0 4.2 "), 5, "4.0 4.2 ")),
    ("no_write_after_fence", lambda run: put(run, "text_complete", 0, content="3.0 ")),
    ("no_write_after_fence", lambda run: in_log(run, RESUMED + 1, type="text_delta", turn_id=FIRST, step=2, delta="2.1 ")),
    ("no_write_after_fence", lambda run: told(put(run, "text_delta", 2, delta="4.0 2.1 "), 5, "4.0 2.1 ")),
    ("no_write_after_fence", lambda run: put(run, "step_discarded", from_seq=13)),
    ("answers_whole", lambda run: run.asked.__setitem__(2, replace(run.asked[2], played="cut"))),
    ("answers_whole", lambda run: run.asked.pop(2)),
    ("calls_once", lambda run: in_log(run, 8, type="tool_execution_started", turn_id=FIRST, id="call_1_0", name="effect")),
    ("calls_once", lambda run: run.log.pop(run.place("tool_result_received"))),
    ("transcripts_valid", lambda run: run.messages[2]["content"].reverse()),
    ("transcripts_valid", lambda run: run.messages[4].update(content=[])),
    ("transcripts_valid", lambda run: run.asked.__setitem__(1, replace(run.asked[1], rejected="two user messages in a row"))),
    ("said_is_kept", lambda run: told(run, 5, "4.0 ")),
    ("said_is_kept", lambda run: run.messages.pop(3)),
    ("effects_once", lambda run: run.effects.append(run.effects[0])),
    ("effects_on_record", lambda run: run.effects.append(Effect("p1-0-9", "effect", "call_1_9", BEGAN))),
    ("effects_on_record", lambda run: run.effects.clear()),
    ("effects_on_record", lambda run: run.effects.__setitem__(0, replace(run.effects[0], tool="guarded"))),
    ("usage_adds_up", lambda run: run.session.update(input_tokens=36)),
    ("usage_adds_up", lambda run: run.used.update(input_tokens=34)),
    ("usage_adds_up", lambda run: run.used.update(cache_read_tokens=1)),
    (
        "usage_adds_up",
        lambda run: run.asked.__setitem__(4, replace(run.asked[4], usage={"prompt_tokens": 5, "completion_tokens": 2})),
    ),
    ("usage_adds_up", lambda run: put(run, "turn_completed", 1, usage=run.usages[FIRST])),
    ("interrupts_in_time", lambda run: answered(run, "interrupt", ended=BEGAN + 2.1)),
    ("within_bound", lambda run: run.gaps.update({RESUMED: 13.5})),
    ("settled", lambda run: run.session.update(status="running")),
    ("settled", lambda run: run.session.update(turn_count=4)),
]


def fault(kind: str, target: str, began: float, ended: float, *, has_bitten: bool = True) -> Fault:
    """Make a fault that held from and to so many seconds after the silence began."""
    return Fault(kind, target, SILENT_AT + began, SILENT_AT + ended, {}, has_bitten)


EXCUSES = [
    (fault("node_kill", "n1", 1, 1.5), True),
    (fault("node_kill", "n1", 1, 1.5, has_bitten=False), False),
    (fault("node_pause", "n1", -1, 9), False),  # others have to go on while it holds
    (fault("link_cut", "n1.postgres", 1, 9), True),
    (fault("postgres_kill", "postgres", -1, 1), True),
    (fault("postgres_kill", "postgres", -2, -1), False),
    (fault("provider_pause", "provider", 1, 9), False),  # nobody needs it to take a turn over
    (fault("link_cut", "n1.tools", 1, 9), False),
    (fault("link_cut", "n1.clients", 1, 9), False),
]
"""Faults around a silence of 13.5 s that a take-over ends, in seconds after it began; whether one excuses a half second."""


def test_whole_run_breaks_nothing(tmp_path: Path) -> None:
    assert broken(Made(), tmp_path) == set()


@pytest.mark.parametrize(("invariant", "breaks"), BREAKS, ids=[f"{name}-{place}" for place, (name, _) in enumerate(BREAKS)])
def test_each_broken_promise_is_found_alone(invariant: str, breaks: Break, tmp_path: Path) -> None:
    run = Made()
    breaks(run)

    assert broken(run, tmp_path) == {invariant}


@pytest.mark.parametrize(
    ("held", "is_excused"), EXCUSES, ids=[f"{held.kind}-{held.target}-{held.began:.0f}" for held, _ in EXCUSES]
)
def test_late_take_over_is_excused_by_what_can_be_its_reason_alone(held: Fault, tmp_path: Path, *, is_excused: bool) -> None:
    run = Made(gaps={RESUMED: 13.5}, faults=[held])

    assert broken(run, tmp_path) == (set() if is_excused else {"within_bound"})


def test_fault_of_all_runners_at_once_excuses_until_the_first_is_back(tmp_path: Path) -> None:
    run = Made(gaps={RESUMED: 13.5}, faults=[fault("node_kill", "n2", -1, 2)])

    assert broken(run, tmp_path) == set()


@pytest.mark.parametrize(("target", "is_excused"), [("n1", False), ("n2", True)])
def test_late_interrupt_is_excused_by_a_fault_of_the_node_that_was_asked_alone(
    target: str, tmp_path: Path, *, is_excused: bool
) -> None:
    run = answered(Made(), "interrupt", ended=BEGAN + 2.1)
    run.faults.append(Fault("node_pause", target, BEGAN, BEGAN + 1, {}, has_bitten=True))

    assert broken(run, tmp_path) == (set() if is_excused else {"interrupts_in_time"})


def test_erased_session_owes_nothing_but_that_all_saw_the_same(tmp_path: Path) -> None:
    run, frames = Made(), [(1, 5), (2, 6)]
    run.operations += [operation("create", session_id="s2"), operation("edit", session_id="s2", facts={"replaces": "p9"})]
    run.operations.append(operation("delete", status=204, session_id="s2"))
    run.effects.append(Effect("p9-0-0", "effect", "call_9_0", BEGAN))
    whole = Shown("w0", SESSION, "n1", 1, 0, run.frames(), "ended", BEGAN)
    run.shown = [whole, *(Shown("w0", "s2", "n1", number, 0, frames, "ended", BEGAN) for number in (2, 3))]
    same = broken(run, tmp_path)
    run.shown.append(Shown("w0", "s2", "n1", 4, 0, [(1, 7)], "ended", BEGAN))
    (tmp_path / "other").mkdir()

    assert same == set()
    assert broken(run, tmp_path / "other") == {"shown_is_stored"}


def test_summary_that_came_to_nothing_has_used_what_it_says(tmp_path: Path) -> None:
    run = Made()
    run.log.append({"type": "compaction_failed", "error": "Too long.", "usage": usage(9, 8)})
    without = broken(run, tmp_path)
    run.session |= usage(44, 13)
    run.used |= usage(44, 13)
    (tmp_path / "counted").mkdir()

    assert without == {"usage_adds_up"}
    assert broken(run, tmp_path / "counted") == set()


def test_create_without_a_key_and_without_an_answer_may_have_made_one_session(tmp_path: Path) -> None:
    run = answered(Made(), "create", key=None, outcome="unknown", status=None, session_id=None)
    run.keys.clear()

    assert broken(run, tmp_path) == set()
