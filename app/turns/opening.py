"""A turn becomes its session's live one: fresh from the door, or as the next of the queue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from app import clock, sessions
from app.journal.entry import Entry
from app.journal.journal import Transaction
from app.journal.types import TurnStarted
from app.messages import Block, Message, Text, load_content
from app.sessions import Session
from app.turns.claims import LEASE_UNTIL, Claim, Claimant, Grant, session_used
from app.turns.turn import Turn
from app.webhooks import outbox

_TAKE_SESSION = """
UPDATE sessions SET fence = fence + 1, append_number = 0, status = 'running', current_turn_id = $2, updated_at = $3,
  turn_count = greatest(turn_count, $4), queued_turns = queued_turns - $5, kept_prompt = NULL, is_system_prompt_due = false
WHERE id = $1 RETURNING fence, last_seq
"""
_INSERT = f"""
WITH taken AS ({_TAKE_SESSION})
INSERT INTO turns (session_id, id, number, status, prompt, overrides, fence, owner, lease_expires_at, attempt, first_seq,
                   created_at, started_at, credential)
SELECT $1, $2, $4, 'running', $6, $7, taken.fence, $8, {LEASE_UNTIL.format("$9::float8")}, $10, taken.last_seq + 1, $3, $3, $11
FROM taken
"""
_PROMOTE = f"""
WITH taken AS ({_TAKE_SESSION})
UPDATE turns SET status = 'running', fence = taken.fence, owner = $6, lease_expires_at = {LEASE_UNTIL.format("$7::float8")},
  attempt = $8, last_seq = NULL, started_at = $3
FROM taken WHERE session_id = $1 AND id = $2
"""


@dataclass(frozen=True, slots=True)
class Opening:
    """A turn that is about to be live.

    Args:
        prompt: JSON text: a string or blocks.
        overrides: options that hold for this turn alone.
    """

    turn_id: str
    number: int
    prompt: str
    overrides: Mapping[str, Any]


async def begin(tx: Transaction, session: Session, opening: Opening, claimant: Claimant) -> None:
    """Make a new turn of an idle session its live one."""
    if session.is_watched:
        await outbox.mark(tx.db, session.id, opening.turn_id)
    grant = Grant.by(claimant)
    await tx.db.execute(
        _INSERT,
        session.id,
        opening.turn_id,
        clock.now(),
        opening.number,
        0,
        opening.prompt,
        orjson.dumps(opening.overrides).decode(),
        grant.owner,
        grant.lease_seconds,
        int(grant.owner is not None),
        tx.credential,
    )
    await _announce(tx, session, opening, grant, claimant)


async def promote(tx: Transaction, session: Session, turn: Turn, claimant: Claimant) -> None:
    """Make a queued turn the live one of a session that has become idle."""
    grant = Grant.by(claimant)
    await tx.db.execute(
        _PROMOTE,
        session.id,
        turn.id,
        clock.now(),
        turn.number,
        1,
        grant.owner,
        grant.lease_seconds,
        int(grant.owner is not None),
    )
    await _announce(tx, session, Opening(turn.id, turn.number, turn.prompt, turn.overrides), grant, claimant)


def prompt_blocks(prompt: str) -> Sequence[Block]:
    """Read a prompt's JSON text, a string or blocks, as blocks."""
    value = orjson.loads(prompt)
    return (Text(value),) if isinstance(value, str) else load_content(prompt)


async def _announce(tx: Transaction, session: Session, opening: Opening, grant: Grant, claimant: Claimant) -> None:
    """Put the beginning on the log and in the transcript, and leave the claim for after the commit."""
    fence = session.fence + 1
    started = TurnStarted(opening.number, orjson.loads(opening.prompt), 1)
    messages = _messages(session, opening.prompt)
    await tx.append(Entry(session.id, fence, opening.turn_id, [started], messages))
    if grant.owner is not None:
        options = sessions.with_overrides(session.options, opening.overrides)
        history = messages[-1:] if _is_blank(session, opening) else None
        claim = Claim(
            session.realm,
            session.id,
            opening.turn_id,
            fence,
            1,
            options,
            grant.claimed_at,
            history=history,
            summed_up_to=session.summed_up_to,
            session_used=session_used(session),
            brings_providers=session.brings_providers,
        )
        tx.after_commit.append(partial(claimant.take, claim))


def _is_blank(session: Session, opening: Opening) -> bool:
    """Tell whether a model would see nothing before this turn: no message but the system prompt that the session began with."""
    return opening.number == 1 and session.message_count == int(session.options.system_prompt is not None)


def _messages(session: Session, prompt: str) -> list[Message]:
    kept = prompt_blocks(session.kept_prompt) if session.kept_prompt is not None else ()
    user = Message("user", (*kept, *prompt_blocks(prompt)))
    if session.is_system_prompt_due and session.options.system_prompt is not None:
        return [Message("system", (Text(session.options.system_prompt),)), user]
    return [user]
