"""How turns end from below: failed by their attempt, completed while others wait, and never twice."""

import orjson
import pytest

from app import sessions
from app.db.engine import Database
from app.errors import AgentError, Fenced
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from app.turns import endings
from app.turns.claims import Claim
from tests.journal.ledger import Node, claimed, log_of, messages_of, pen, read_session, said, start, types_of
from tests.turns.acts import completed, interrupted, read_turn

pytestmark = pytest.mark.anyio

ERROR = AgentError("PROVIDER_AUTH", "The key was refused.")


async def failed(journal: Journal, claim: Claim, node: Node) -> None:
    """Fail a claim's turn."""
    async with journal.transaction(DEFAULT_REALM) as tx:
        await endings.fail(tx, claim, ERROR, node)


async def test_failed_turn_says_why_and_keeps_its_words(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    await pen(journal, claim).write(said("Par"))

    await failed(journal, claim, Node())

    found = await read_turn(database, claim.session_id, claim.turn_id)
    told = {"code": "AGENT_ERROR", "reason": "PROVIDER_AUTH", "message": "The key was refused."}
    [*_, last] = await log_of(database, claim.session_id)
    assert (found.status, found.text, found.stop_reason, orjson.loads(found.error or "")) == ("failed", "Par", None, told)
    assert (last["type"], last["error"], last["text"]) == ("turn_failed", told, "Par")
    assert [message["role"] for message in await messages_of(database, claim.session_id)] == ["user", "assistant"]
    assert (await read_session(database, claim.session_id)).status == "idle"


async def test_failed_turn_begins_the_next_of_the_queue(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    queued = await start(journal, claim.session_id, node, on_busy="queue")

    await failed(journal, claim, node)

    assert node.claims[-1].turn_id == queued
    assert (await read_session(database, claim.session_id)).current_turn_id == queued


async def test_turn_that_another_hand_has_ended_neither_fails_nor_completes(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    await interrupted(journal, claim.session_id, claim.turn_id, Node())

    with pytest.raises(Fenced):
        await failed(journal, claim, Node())
    with pytest.raises(Fenced):
        await completed(journal, claim, Node())

    assert (await types_of(database, claim.session_id))[-1] == "turn_interrupted"


async def test_turn_of_an_erased_session_is_fenced_like_any_other(journal: Journal) -> None:
    claim = await claimed(journal)
    async with journal.transaction(DEFAULT_REALM) as tx:
        await sessions.erase(tx, await sessions.lock(tx, claim.session_id))

    with pytest.raises(Fenced):
        await failed(journal, claim, Node())
    with pytest.raises(Fenced):
        await completed(journal, claim, Node())


async def test_ending_and_promotion_are_one_commit(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    await start(journal, claim.session_id, node, on_busy="queue")

    await completed(journal, claim, node)

    async with database.transaction(DEFAULT_REALM) as db:
        commits = await db.fetchval(
            "SELECT count(DISTINCT xmin::text) FROM events WHERE session_id = $1 AND seq > 3", claim.session_id
        )
    assert (await types_of(database, claim.session_id))[3:] == ["text_complete", "turn_completed", "turn_started"]
    assert commits == 1


async def test_node_without_room_still_promotes_and_leaves_the_turn_for_others(database: Database, journal: Journal) -> None:
    node = Node(room=1)
    claim = await claimed(journal, node)
    queued = await start(journal, claim.session_id, node, on_busy="queue")

    await completed(journal, claim, node)

    found = await read_turn(database, claim.session_id, queued)
    assert (found.status, found.owner, found.attempt, len(node.claims)) == ("running", None, 0, 1)
