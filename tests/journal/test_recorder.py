"""The pen of an attempt: order, joined deltas, the interval between them, and what it does when it may not write."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.db.engine import Database
from app.errors import Fenced
from app.journal.entry import Appended, Ending, Entry, TurnChange
from app.journal.event import Event
from app.journal.journal import Journal
from app.journal.recorder import MOST_CHARACTERS, Recorder
from app.journal.types import Delta, ReasoningDelta, StepStarted, TextComplete, TextDelta, ToolCallDelta
from app.journal.writer import Writer
from app.pace import Pace
from app.sessions import DEFAULT_REALM
from tests.journal.ledger import LIMIT_SECONDS, Node, claimed, log_of, pen, start, stopped, types_of, until_blocked

pytestmark = pytest.mark.anyio


class Tray:
    """A writer that does not run: what is handed in lies there, and is durable when the test says so."""

    def __init__(self) -> None:
        self.writer = Writer(Database("postgresql://nowhere", pool_size=2), lambda _: None, Pace())
        self.entries: list[Entry] = []

    def commit(self) -> None:
        """Take what lies there, and say that it is durable."""
        for waiting in self.writer._take():
            self.entries.append(waiting.entry)
            waiting.outcome.set_result(Appended(waiting.entry, 1, len(waiting.entry.events), 1, []))

    async def next(self) -> float:
        """Wait until something lies there, and return when it was handed in."""
        async with asyncio.timeout(LIMIT_SECONDS):
            await self.writer._has_work.wait()
        return self.writer._oldest_at

    @property
    def events(self) -> list[Event]:
        """Everything that has left the recorder, in order."""
        return [
            event for entry in [*self.entries, *(waiting.entry for waiting in self.writer._waiting)] for event in entry.events
        ]


def recorder_on(writer: Writer, *, interval_seconds: float = 60.0) -> Recorder:
    """Make a recorder."""
    return Recorder(writer, session_id="s", turn_id="t", fence=1, pace=Pace(interval_seconds), on_failure=lambda: None)


async def test_first_delta_of_a_step_goes_at_once_and_those_behind_it_wait_for_the_interval() -> None:
    tray = Tray()
    recorder = recorder_on(tray.writer)

    recorder.put(StepStarted(1))
    tray.commit()
    await asyncio.sleep(0)
    for word in ("Par", "is", "."):
        recorder.put_delta(TextDelta(1, word), word)
    tray.commit()
    await asyncio.sleep(0)

    assert tray.events == [StepStarted(1), TextDelta(1, "Par")]
    recorder.close()


async def test_deltas_that_wait_become_one_event(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    recorder = pen(journal, claim)

    async with stopped(database):
        for number in range(50):
            recorder.put_delta(TextDelta(1, f"{number} "), f"{number} ")
        await until_blocked(database, "suricate writer")
    await recorder.settle()

    deltas = [event["delta"] for event in await log_of(database, claim.session_id) if event["type"] == "text_delta"]
    assert deltas == ["0 ", "".join(f"{number} " for number in range(1, 50))]


async def test_two_delta_events_of_a_turn_are_at_least_the_interval_apart() -> None:
    tray, moments = Tray(), list[float]()
    recorder = recorder_on(tray.writer, interval_seconds=0.1)

    for number in range(4):
        recorder.put_delta(TextDelta(1, f"{number}"), f"{number}")
        moments.append(await tray.next())
        recorder.put_delta(TextDelta(1, "+"), "+")
        tray.commit()
        await asyncio.sleep(0)

    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert all(gap + 0.001 >= 0.1 for gap in gaps)
    assert [entry.events for entry in tray.entries] == [[TextDelta(1, text)] for text in ("0", "+1", "+2", "+3")]
    recorder.close()


async def test_without_an_interval_the_commit_under_way_is_the_only_timer(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    recorder = pen(journal, claim)

    for word in ("a", "b", "c"):
        recorder.put_delta(TextDelta(1, word), word)
        await recorder.settle()

    assert (await types_of(database, claim.session_id))[2:] == ["text_delta"] * 3


async def test_events_keep_their_order_among_deltas() -> None:
    tray = Tray()
    recorder = recorder_on(tray.writer)

    recorder.put_delta(ReasoningDelta(1, "hm"), "hm")
    recorder.put_delta(TextDelta(1, "a"), "a")
    recorder.put_delta(TextDelta(1, "b"), "b")
    recorder.put(TextComplete(1, "ab"))
    recorder.put_delta(TextDelta(2, "c"), "c")
    tray.commit()
    await asyncio.sleep(0)

    assert tray.events == [ReasoningDelta(1, "hm"), TextDelta(1, "ab"), TextComplete(1, "ab"), TextDelta(2, "c")]
    recorder.close()


async def test_pieces_of_different_calls_are_never_joined_and_each_keeps_its_name() -> None:
    tray = Tray()
    recorder = recorder_on(tray.writer)
    recorder.put(StepStarted(1))

    for call, name, piece in (("x", "f", "{"), ("x", None, "}"), ("y", "g", "{"), ("x", None, " "), ("y", None, "}")):
        recorder.put_delta(ToolCallDelta(1, call, name, piece), piece)
    recorder.put(StepStarted(2))
    tray.commit()
    await asyncio.sleep(0)

    assert tray.events[1:-1] == [
        ToolCallDelta(1, "x", "f", "{}"),
        ToolCallDelta(1, "y", "g", "{"),
        ToolCallDelta(1, "x", None, " "),
        ToolCallDelta(1, "y", None, "}"),
    ]


DELTAS = st.one_of(
    st.builds(TextDelta, st.integers(1, 2), st.text(min_size=1, max_size=4)),
    st.builds(ReasoningDelta, st.integers(1, 2), st.text(min_size=1, max_size=4)),
    st.builds(ToolCallDelta, st.just(1), st.sampled_from("xy"), st.none(), st.text(min_size=1, max_size=4)),
)


@given(st.lists(st.tuples(DELTAS, st.sampled_from(["", "commit", "event"])), max_size=40))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_between_the_joined_deltas_equal_what_was_said(script: list[tuple[Delta, str]]) -> None:
    async def play() -> list[Event]:
        tray = Tray()
        recorder = recorder_on(tray.writer)
        for delta, then in script:
            recorder.put_delta(delta, _piece(delta))
            if then == "event":
                recorder.put(StepStarted(1))
            if then:
                tray.commit()
                await asyncio.sleep(0)
        settling = asyncio.gather(recorder.settle())
        while not settling.done():
            tray.commit()
            await asyncio.sleep(0)
        return tray.events

    left = asyncio.run(play())

    for kind in (TextDelta, ReasoningDelta, ToolCallDelta):
        put = [delta for delta, _ in script if type(delta) is kind]
        assert _joined([event for event in left if type(event) is kind]) == _joined(put)


async def test_write_returns_when_it_and_all_before_it_is_durable(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    recorder = pen(journal, claim)

    recorder.put_delta(TextDelta(1, "a"), "a")
    recorder.put_delta(TextDelta(1, "b"), "b")
    appended = await recorder.write([TextComplete(1, "ab")])

    log = await log_of(database, claim.session_id)
    assert appended.last_seq == len(log)
    assert [event["type"] for event in log[2:]] == ["text_delta", "text_delta", "text_complete"]


async def test_fenced_pen_says_so_once_and_writes_nothing_more(database: Database, journal: Journal) -> None:
    claim, failures = await claimed(journal), list[str]()
    recorder = pen(journal, claim, failures)
    async with database.transaction(DEFAULT_REALM) as db:
        await db.execute("UPDATE sessions SET fence = fence + 1 WHERE id = $1", claim.session_id)

    recorder.put_delta(TextDelta(1, "zombie"), "zombie")
    with pytest.raises(Fenced):
        await recorder.settle()
    recorder.put(StepStarted(2))
    with pytest.raises(Fenced):
        await recorder.write([StepStarted(3)])

    assert failures == [claim.turn_id]
    assert await types_of(database, claim.session_id) == ["session_created", "turn_started"]


async def test_refused_ending_breaks_nothing_since_another_hand_may_settle_it(database: Database, journal: Journal) -> None:
    node, failures = Node(), list[str]()
    claim = await claimed(journal, node)
    await start(journal, claim.session_id, node, on_busy="queue")
    recorder = pen(journal, claim, failures)

    with pytest.raises(Fenced):
        await recorder.write([], change=TurnChange(ending=Ending("completed", "end_turn")))

    assert failures == []
    assert recorder.failure is None


async def test_full_pen_is_empty_again_once_its_deltas_have_left() -> None:
    tray = Tray()
    recorder = recorder_on(tray.writer)
    recorder.put(StepStarted(1))

    recorder.put_delta(TextDelta(1, "x"), "x" * (MOST_CHARACTERS + 1))
    was_full = recorder.is_full
    tray.commit()
    await asyncio.sleep(0)

    assert was_full
    assert not recorder.is_full


async def test_closed_pen_drops_what_has_not_left() -> None:
    tray = Tray()
    recorder = recorder_on(tray.writer)
    recorder.put_delta(TextDelta(1, "a"), "a")
    recorder.put_delta(TextDelta(1, "b"), "b")

    recorder.close()
    tray.commit()
    await asyncio.sleep(0)

    assert tray.events == [TextDelta(1, "a")]


def _piece(delta: Delta) -> str:
    return delta.args_delta if isinstance(delta, ToolCallDelta) else delta.delta


def _joined(deltas: list[Event] | list[Delta]) -> dict[tuple[object, ...], str]:
    joined: dict[tuple[object, ...], str] = {}
    for delta in deltas:
        assert isinstance(delta, TextDelta | ReasoningDelta | ToolCallDelta)
        key = (delta.step, getattr(delta, "id", None))
        joined[key] = joined.get(key, "") + _piece(delta)
    return joined
