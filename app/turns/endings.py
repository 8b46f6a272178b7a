"""How a live turn ends, and what follows: the next of the queue begins in the same transaction."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from app import sessions
from app.agent import transcript
from app.errors import AgentError, Fenced, SessionNotFound
from app.journal import reader
from app.journal.entry import Ending, Entry, TurnChange
from app.journal.event import Event
from app.journal.journal import Transaction
from app.journal.types import Failure, TurnFailed, TurnInterrupted, TurnUsage
from app.sessions import Session
from app.turns import opening, steering, turn
from app.turns.claims import Claim, Claimant
from app.turns.turn import Turn

Reason: TypeAlias = Literal["user", "archived", "superseded"]


async def end(
    tx: Transaction,
    session: Session,
    live: Turn,
    ending: Ending,
    terminal: Callable[[str, TurnUsage], Event],
    *,
    spent: TurnChange | None = None,
) -> None:
    """End a live turn from its log: the text that was streamed is kept, every open tool use gets its result.

    Args:
        session: locked by this transaction; its fence is taken from whoever runs the turn.
        terminal: makes the terminal event of the text so far and the usage.
        spent: what is counted with it that is not on record yet.
    """
    closing = transcript.close(transcript.fold(await reader.current_step(tx.db, session.id, live.id)))
    text = closing.text or live.text or ""
    change = replace(spent or TurnChange(), text=text, assistant_text=closing.text or None, ending=ending)
    usage = TurnUsage.of(live.usage + change.usage)
    events: Sequence[Event] = [*closing.events, *steering.told(live), terminal(text, usage)]
    messages = [*closing.messages, *steering.words(live)]  # accepted, so they are kept for the next turn
    await tx.append(Entry(session.id, session.fence, live.id, events, messages, change, is_settled=True))


async def fail(tx: Transaction, claim: Claim, error: AgentError, claimant: Claimant, spent: TurnChange | None = None) -> None:
    """End a claimed turn `failed`; the next queued turn begins.

    Raises:
        Fenced: the claim is not in force any more; nothing is done.
    """
    session = await claimed(tx, claim.session_id, claim.fence)
    await fail_live(tx, session, await turn.get(tx.db, session.id, claim.turn_id), error, spent)
    await promote_next(tx, session.id, claimant)


async def fail_live(tx: Transaction, session: Session, live: Turn, error: AgentError, spent: TurnChange | None = None) -> None:
    """End a session's live turn `failed`, from its log."""
    failure = Failure("AGENT_ERROR", error.reason, error.detail)
    await end(
        tx,
        session,
        live,
        Ending("failed", None, failure),
        lambda text, usage: TurnFailed(failure, text, usage),
        spent=spent,
    )


async def interrupt(tx: Transaction, session: Session, live: Turn, reason: Reason, note: str | None = None) -> None:
    """End a session's live turn `interrupted`, from its log."""
    await end(
        tx,
        session,
        live,
        Ending("interrupted", "interrupted"),
        lambda text, usage: TurnInterrupted(reason, note, text, usage),
    )


async def promote_next(tx: Transaction, session_id: str, claimant: Claimant) -> None:
    """Begin the first queued turn of a session that has become idle; without one, nothing happens."""
    session = await sessions.lock(tx, session_id)
    if session.queued_turns and session.current_turn_id is None:
        [first, *_] = await turn.queued(tx.db, session_id)
        await opening.promote(tx, session, first, claimant)


async def claimed(tx: Transaction, session_id: str, fence: int) -> Session:
    """Lock a session whose fence is still the given one.

    Raises:
        Fenced: it is not, or the session is gone.
    """
    try:
        session = await sessions.lock(tx, session_id)
    except SessionNotFound as error:
        raise Fenced from error  # erased under the attempt's hands
    if session.fence != fence:
        raise Fenced
    return session
