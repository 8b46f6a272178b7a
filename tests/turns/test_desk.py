"""What the door may ask of turns, and in which order things happen."""

import asyncio

import orjson
import pytest

from app import clock, ids, sessions
from app.db.engine import Database
from app.errors import SessionArchived, SessionBusy, SessionNotRunning, TurnNotFound, TurnNotQueued
from app.journal.entry import TurnChange
from app.journal.journal import Journal
from app.journal.types import StepCompleted, TextComplete, ToolCallRequested, ToolExecutionStarted
from app.messages import Message, Text, ToolUse, Usage
from app.sessions import DEFAULT_REALM, Options
from app.turns import desk, turn
from tests.journal.ledger import Node, claimed, log_of, messages_of, open_session, pen, read_session, said, start, types_of
from tests.turns.acts import archived, cancelled, completed, edited, interrupted, read_turn

pytestmark = pytest.mark.anyio


async def test_turn_on_an_idle_session_is_live_at_once(database: Database, journal: Journal) -> None:
    node = Node()
    session_id = await open_session(journal)

    turn_id = await start(journal, session_id, node, "Hello")

    session, found = await read_session(database, session_id), await read_turn(database, session_id, turn_id)
    assert (session.status, session.current_turn_id, session.instance_id) == ("running", turn_id, node.node_id)
    assert (found.status, found.number, found.attempt, found.first_seq, found.last_seq) == ("running", 1, 1, 2, 2)
    [_, started] = await log_of(database, session_id)
    assert (started["type"], started["number"], started["prompt"], started["attempt"]) == ("turn_started", 1, "Hello", 1)
    assert [message["role"] for message in await messages_of(database, session_id)] == ["user"]


async def test_claim_is_handed_over_after_the_commit_and_names_the_sessions_fence(database: Database, journal: Journal) -> None:
    node = Node()
    session_id = await open_session(journal)

    async with journal.transaction(DEFAULT_REALM) as tx:
        new = desk.NewTurn('"Hello"', {"max_tokens": 7})
        turn_id = await desk.start(tx, await sessions.lock(tx, session_id), new, node)
        given_before = list(node.claims)

    [claim] = node.claims
    assert given_before == []
    assert (claim.session_id, claim.turn_id, claim.attempt) == (session_id, turn_id, 1)
    assert claim.fence == (await read_session(database, session_id)).fence
    assert claim.options.max_tokens == 7
    assert claim.claimed_at <= clock.monotonic()


async def test_node_without_room_leaves_the_turn_for_any_other(database: Database, journal: Journal) -> None:
    full, other = Node(room=0), Node()
    session_id = await open_session(journal)

    turn_id = await start(journal, session_id, full)

    found = await read_turn(database, session_id, turn_id)
    assert full.claims == []
    assert (found.status, found.owner, found.attempt) == ("running", None, 0)
    assert turn.view(found)["attempt"] == 1
    assert other.claims == []


async def test_busy_session_refuses_and_nothing_is_kept(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    before = await read_session(database, claim.session_id)

    with pytest.raises(SessionBusy) as refused:
        await start(journal, claim.session_id, Node())

    assert refused.value.members == {"session_id": claim.session_id, "turn_id": claim.turn_id}
    assert await read_session(database, claim.session_id) == before


async def test_archived_session_refuses_both_ways(journal: Journal) -> None:
    session_id = await open_session(journal)
    await archived(journal, session_id)

    with pytest.raises(SessionArchived):
        await start(journal, session_id, Node(), on_busy="reject")
    with pytest.raises(SessionArchived):
        await start(journal, session_id, Node(), on_busy="queue")


async def test_queued_turn_has_its_place_its_event_and_no_message(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)

    queued = await start(journal, claim.session_id, node, "next", on_busy="queue")

    found, session = await read_turn(database, claim.session_id, queued), await read_session(database, claim.session_id)
    assert (found.status, found.number, found.started_at, found.first_seq, found.last_seq) == ("queued", 2, None, 3, 3)
    assert (session.queued_turns, session.turn_count, session.current_turn_id) == (1, 2, claim.turn_id)
    assert (await log_of(database, claim.session_id))[-1]["type"] == "turn_queued"
    assert len(await messages_of(database, claim.session_id)) == 1
    assert len(node.claims) == 1


async def test_queue_runs_in_order_of_acceptance(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    queued = [await start(journal, claim.session_id, node, f"{number}", on_busy="queue") for number in range(4)]

    for _ in range(5):
        await completed(journal, node.claims[-1], node)

    assert [claim.turn_id for claim in node.claims] == [claim.turn_id, *queued]
    started = [event["prompt"] for event in await log_of(database, claim.session_id) if event["type"] == "turn_started"]
    assert started == ["Hello", "0", "1", "2", "3"]
    session = await read_session(database, claim.session_id)
    assert (session.status, session.queued_turns) == ("idle", 0)


async def test_turn_that_queues_on_an_idle_session_is_a_plain_one(database: Database, journal: Journal) -> None:
    session_id = await open_session(journal)

    turn_id = await start(journal, session_id, Node(), on_busy="queue")

    assert (await read_turn(database, session_id, turn_id)).status == "running"


async def test_kept_prompt_opens_the_first_user_message_and_no_other(database: Database, journal: Journal) -> None:
    node = Node()
    kept = orjson.dumps([{"type": "text", "text": "kept"}]).decode()
    session_id = await open_session(journal, Options("m", "p", "Be brief."), kept_prompt=kept)

    await start(journal, session_id, node, "one")
    await completed(journal, node.claims[-1], node)
    await start(journal, session_id, node, "two")

    stored = await messages_of(database, session_id)
    said_by = [(message["role"], [block["text"] for block in message["content"]]) for message in stored]
    assert said_by == [("system", ["Be brief."]), ("user", ["kept", "one"]), ("assistant", ["Done."]), ("user", ["two"])]


async def test_new_system_prompt_enters_the_transcript_with_the_next_turn(database: Database, journal: Journal) -> None:
    node = Node()
    session_id = await open_session(journal)
    async with journal.transaction(DEFAULT_REALM) as tx:
        session = await sessions.lock(tx, session_id)
        await sessions.update(tx, session, Options("m", "p", "Be brief."), {"system_prompt": "Be brief."})
    before = await messages_of(database, session_id)

    await start(journal, session_id, node)
    await completed(journal, node.claims[-1], node)
    await start(journal, session_id, node)

    roles = [message["role"] for message in await messages_of(database, session_id)]
    assert before == []
    assert roles == ["system", "user", "assistant", "user"]


async def test_edited_prompt_is_what_the_turn_asks_when_its_time_has_come(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    queued = await start(journal, claim.session_id, node, "old", on_busy="queue")

    await edited(journal, claim.session_id, queued, "new")
    await completed(journal, claim, node)

    assert (await log_of(database, claim.session_id))[-1]["prompt"] == "new"
    assert (await messages_of(database, claim.session_id))[-1]["content"] == [{"type": "text", "text": "new"}]


async def test_cancelled_turn_never_runs_and_those_behind_it_do(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    first = await start(journal, claim.session_id, node, "first", on_busy="queue")
    second = await start(journal, claim.session_id, node, "second", on_busy="queue")

    await cancelled(journal, claim.session_id, first)
    await completed(journal, claim, node)

    found = await read_turn(database, claim.session_id, first)
    assert (found.status, found.started_at, found.ended_at is not None) == ("cancelled", None, True)
    assert node.claims[-1].turn_id == second
    terminal = [(event["turn_id"], event["type"]) for event in await log_of(database, claim.session_id) if "reason" in event]
    assert terminal == [(first, "turn_cancelled")]


@pytest.mark.parametrize("is_edit", [True, False], ids=["edit", "cancel"])
async def test_only_a_queued_turn_can_be_edited_or_cancelled(database: Database, journal: Journal, *, is_edit: bool) -> None:
    claim = await claimed(journal)

    async def change(turn_id: str) -> None:
        if is_edit:
            await edited(journal, claim.session_id, turn_id, "x")
        else:
            await cancelled(journal, claim.session_id, turn_id)

    with pytest.raises(TurnNotQueued):
        await change(claim.turn_id)
    with pytest.raises(TurnNotFound):
        await change(ids.turn_id())
    with pytest.raises(TurnNotFound):
        await change("no-id")

    assert await types_of(database, claim.session_id) == ["session_created", "turn_started"]


async def test_interrupt_keeps_the_words_that_were_shown(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    await pen(journal, claim).write(said("Par", "is"))

    await interrupted(journal, claim.session_id, claim.turn_id, node, note="enough")

    [*_, last] = await log_of(database, claim.session_id)
    found = await read_turn(database, claim.session_id, claim.turn_id)
    assert (last["type"], last["reason"], last["note"], last["text"]) == ("turn_interrupted", "user", "enough", "Paris")
    assert (found.status, found.stop_reason, found.text, found.last_seq) == ("interrupted", "interrupted", "Paris", last["seq"])
    [*_, message] = await messages_of(database, claim.session_id)
    assert (message["role"], message["stop_reason"]) == ("assistant", "interrupted")
    assert message["content"] == [{"type": "text", "text": "Paris"}]
    assert (await read_session(database, claim.session_id)).last_assistant_text == "Paris"


async def test_interrupt_takes_the_turn_from_whoever_runs_it(database: Database, journal: Journal) -> None:
    failures: list[str] = []
    claim = await claimed(journal)
    recorder = pen(journal, claim, failures)
    await recorder.write(said("a"))
    await interrupted(journal, claim.session_id, claim.turn_id, Node())

    recorder.put(*said("late"))
    async with asyncio.timeout(5):
        while not failures:
            await asyncio.sleep(0)

    assert (await types_of(database, claim.session_id))[-1] == "turn_interrupted"


async def test_interrupt_while_tools_run_answers_every_call(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    uses = [ToolUse(id_, "echo", {}) for id_ in ("a", "b")]
    asked = [TextComplete(1, "I look."), *(ToolCallRequested(1, use.id, "echo", {}) for use in uses)]
    recorder = pen(journal, claim)
    await recorder.write(said("I look."))
    await recorder.write(
        [*asked, StepCompleted(1, "tool_use", Usage(3, 2))],
        [Message("assistant", (Text("I look."), *uses), "tool_use")],
        TurnChange(1, 2, Usage(3, 2), "I look.", "I look."),
    )
    await recorder.write([ToolExecutionStarted("a", "echo")])

    await interrupted(journal, claim.session_id, claim.turn_id, Node())

    log, [*_, results] = await log_of(database, claim.session_id), await messages_of(database, claim.session_id)
    assert [event["type"] for event in log[-3:]] == ["tool_result_received", "tool_result_received", "turn_interrupted"]
    assert log[-1]["text"] == "I look."
    assert log[-1]["usage"]["total_tokens"] == 5
    assert results["role"] == "tool"
    assert [(block["tool_use_id"], block["is_error"]) for block in results["content"]] == [("a", True), ("b", True)]


async def test_interrupt_begins_the_next_of_the_queue(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    queued = await start(journal, claim.session_id, node, on_busy="queue")

    await interrupted(journal, claim.session_id, claim.turn_id, node)

    assert node.claims[-1].turn_id == queued
    assert (await types_of(database, claim.session_id))[-2:] == ["turn_interrupted", "turn_started"]


async def test_interrupt_that_comes_while_one_is_in_effect_shares_its_answer(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    await interrupted(journal, claim.session_id, claim.turn_id, Node())

    await interrupted(journal, claim.session_id, claim.turn_id, Node())

    assert (await types_of(database, claim.session_id)).count("turn_interrupted") == 1


async def test_interrupt_of_a_turn_that_came_to_its_own_end_first_is_refused(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    await completed(journal, claim, node)

    with pytest.raises(SessionNotRunning):
        await interrupted(journal, claim.session_id, claim.turn_id, node)

    assert (await read_turn(database, claim.session_id, claim.turn_id)).status == "completed"


async def test_archive_ends_the_live_turn_cancels_the_queue_and_says_so_last(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    await pen(journal, claim).write(said("Par"))
    for _ in range(2):
        await start(journal, claim.session_id, node, on_busy="queue")

    await archived(journal, claim.session_id)

    log = await log_of(database, claim.session_id)
    assert [event["type"] for event in log[-4:]] == ["turn_interrupted", "turn_cancelled", "turn_cancelled", "session_archived"]
    assert {event["reason"] for event in log[-4:-1]} == {"archived"}
    session = await read_session(database, claim.session_id)
    assert (session.status, session.queued_turns, session.archived_at is not None) == ("idle", 0, True)
    assert len(node.claims) == 1


async def test_prompt_of_blocks_is_told_and_kept_as_blocks(database: Database, journal: Journal) -> None:
    session_id = await open_session(journal)
    blocks = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]

    async with journal.transaction(DEFAULT_REALM) as tx:
        new = desk.NewTurn(orjson.dumps(blocks).decode(), {})
        await desk.start(tx, await sessions.lock(tx, session_id), new, Node())

    assert (await log_of(database, session_id))[-1]["prompt"] == blocks
    assert (await messages_of(database, session_id))[-1]["content"] == blocks
