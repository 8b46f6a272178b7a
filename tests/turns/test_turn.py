"""Turns read, listed and shown."""

import orjson
import pytest

from app import ids
from app.db.engine import Database
from app.errors import TurnNotFound
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from app.turns import turn
from app.turns.turn import Status, Turn
from tests.journal.ledger import Node, claimed, open_session, read_session, start
from tests.turns.acts import cancelled, completed, read_turn

pytestmark = pytest.mark.anyio


async def find(
    database: Database, session_id: str, *, status: Status | None = None, after: int = 0, limit: int = 50
) -> tuple[list[Turn], int | None]:
    """List turns."""
    async with database.transaction(DEFAULT_REALM) as db:
        return await turn.find(db, session_id, status=status, after=after, limit=limit)


async def test_view_has_every_field_of_the_contract(database: Database, journal: Journal) -> None:
    claim = await claimed(journal, node := Node())
    await completed(journal, claim, node)

    shown = orjson.loads(orjson.dumps(turn.view(await read_turn(database, claim.session_id, claim.turn_id))))

    times = {name: shown.pop(name) for name in ("created_at", "started_at", "ended_at")}
    assert all(moment.endswith("Z") for moment in times.values())
    usage = {"input_tokens": 3, "output_tokens": 2, "cache_creation_tokens": 0, "cache_read_tokens": 0, "total_tokens": 5}
    assert shown == {
        "session_id": claim.session_id, "turn_id": claim.turn_id, "number": 1, "status": "completed", "text": "Done.",
        "steps": 1, "tool_calls": 0, "attempt": 1, "usage": usage, "stop_reason": "end_turn", "structured_output": None,
        "schema_warnings": [], "skill_diagnostics": None, "pending_tool_calls": [], "error": None,
        "first_seq": 2, "last_seq": 4,
    }  # fmt: skip


async def test_live_turn_ends_at_the_head_of_its_session_for_now(database: Database, journal: Journal) -> None:
    claim = await claimed(journal, node := Node())
    await start(journal, claim.session_id, node, on_busy="queue")

    found = await read_turn(database, claim.session_id, claim.turn_id)

    assert found.last_seq == (await read_session(database, claim.session_id)).last_seq == 3
    assert not found.is_over


async def test_list_is_oldest_first_in_pages(database: Database, journal: Journal) -> None:
    claim = await claimed(journal, node := Node())
    others = [await start(journal, claim.session_id, node, on_busy="queue") for _ in range(4)]

    first, after = await find(database, claim.session_id, limit=3)
    second, end = await find(database, claim.session_id, after=after or 0, limit=3)

    assert [found.id for found in first + second] == [claim.turn_id, *others]
    assert (len(first), after, end) == (3, 3, None)


async def test_list_filters_by_status(database: Database, journal: Journal) -> None:
    claim = await claimed(journal, node := Node())
    waiting, gone = [await start(journal, claim.session_id, node, on_busy="queue") for _ in range(2)]
    await cancelled(journal, claim.session_id, gone)

    found = {status: [one.id for one in (await find(database, claim.session_id, status=status))[0]] for status in turn.STATUSES}

    assert {status: ids_ for status, ids_ in found.items() if ids_} == {
        "running": [claim.turn_id],
        "queued": [waiting],
        "cancelled": [gone],
    }


async def test_list_of_nothing_is_empty_and_the_last_page(database: Database, journal: Journal) -> None:
    session_id = await open_session(journal)

    assert await find(database, session_id) == ([], None)
    assert await find(database, session_id, limit=0) == ([], None)


async def test_turn_of_another_session_is_not_found(database: Database, journal: Journal) -> None:
    one, other = await claimed(journal), await claimed(journal)

    for turn_id in (other.turn_id, ids.turn_id(), "no-id", "\0"):
        with pytest.raises(TurnNotFound):
            await read_turn(database, one.session_id, turn_id)
