"""The door's acts and the workshop's endings, each in a transaction of its own, as the rooms above open them."""

import orjson

from app import sessions
from app.db.engine import Database
from app.journal.entry import Ending, Entry, TurnChange
from app.journal.journal import Journal
from app.journal.types import TextComplete, TurnCompleted, TurnUsage
from app.messages import Message, Text, Usage
from app.sessions import DEFAULT_REALM
from app.turns import boundary, desk, endings, turn
from app.turns.claims import Claim, Claimant
from app.turns.turn import Turn


def ending_of(claim: Claim, text: str = "Done.") -> Entry:
    """Make the entry that completes a claim's turn."""
    usage = Usage(3, 2)
    events = [TextComplete(1, text), TurnCompleted(text, TurnUsage.of(usage), 1, 0)]
    change = TurnChange(1, 0, usage, text, text, Ending("completed", "end_turn"))
    return Entry(
        claim.session_id, claim.fence, claim.turn_id, events, [Message("assistant", (Text(text),), "end_turn")], change
    )


async def completed(journal: Journal, claim: Claim, claimant: Claimant) -> None:
    """Complete a claim's turn; the next of the queue begins."""
    async with journal.transaction(DEFAULT_REALM) as tx:
        session = await endings.claimed(tx, claim.session_id, claim.fence)
        await boundary.cross(tx, session, ending_of(claim), claimant)


async def interrupted(journal: Journal, session_id: str, turn_id: str, claimant: Claimant, *, note: str | None = None) -> None:
    """Interrupt the turn that was seen to be live."""
    async with journal.transaction(DEFAULT_REALM) as tx:
        await desk.interrupt(tx, await sessions.lock(tx, session_id), turn_id, note=note, claimant=claimant)


async def archived(journal: Journal, session_id: str) -> None:
    """Archive a session, whatever it is doing."""
    async with journal.transaction(DEFAULT_REALM) as tx:
        session = await sessions.lock(tx, session_id)
        if session.current_turn_id is not None:
            await endings.interrupt(tx, session, await turn.get(tx.db, session.id, session.current_turn_id), "archived")
            session = await sessions.lock(tx, session_id)
        await desk.cancel_queued(tx, session)
        await sessions.archive(tx, session)


async def edited(journal: Journal, session_id: str, turn_id: str, prompt: str) -> None:
    """Give a queued turn another prompt."""
    async with journal.transaction(DEFAULT_REALM) as tx:
        await desk.edit(tx, await sessions.lock(tx, session_id), turn_id, orjson.dumps(prompt).decode())


async def cancelled(journal: Journal, session_id: str, turn_id: str) -> None:
    """Cancel a queued turn."""
    async with journal.transaction(DEFAULT_REALM) as tx:
        await desk.cancel(tx, await sessions.lock(tx, session_id), turn_id)


async def read_turn(database: Database, session_id: str, turn_id: str) -> Turn:
    """Read a turn's row."""
    async with database.transaction(DEFAULT_REALM) as db:
        return await turn.get(db, session_id, turn_id)
