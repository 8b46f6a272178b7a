"""A summary enters a session: it stands in for older messages from then on, and the history keeps them all."""

from dataclasses import replace

from app.agent.compaction import Compacted
from app.journal.entry import Entry, TurnChange
from app.journal.journal import Transaction
from app.sessions import Session


async def keep(tx: Transaction, session: Session, turn_id: str | None, compacted: Compacted, *, number: int = 0) -> None:
    """Write a summary.

    Args:
        session: locked by this transaction.
        turn_id: the live turn that it is made in; None outside a turn.
        number: of the attempt's entry; 0 where no attempt writes.
    """
    first_kept = await tx.db.fetchval(
        """SELECT ordinal FROM messages WHERE session_id = $1 AND role <> 'system' AND NOT is_summary
           ORDER BY ordinal DESC OFFSET $2 LIMIT 1""",
        session.id,
        compacted.kept - 1,
    )
    summary = compacted.summary
    counted = TurnChange.of(summary.usage, compacted.model)
    change = replace(counted, calls=1, model=compacted.model, credential=tx.credential)
    await tx.append(Entry(session.id, session.fence, turn_id, [compacted.told], [summary.message], change, number=number))
    await tx.db.execute(
        """WITH marked AS (UPDATE sessions SET summed_up_to = $2 WHERE id = $1)
           UPDATE messages SET is_summary = true, sums_up_to = $2 WHERE session_id = $1 AND ordinal = $3""",
        session.id,
        first_kept - 1,
        session.message_count + 1,
    )
