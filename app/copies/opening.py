"""How a copy begins: its own log, and what follows from the turns and messages that it was given."""

import orjson

from app import sessions
from app.journal.journal import Transaction
from app.sessions import Options, Session

FIRST_SEQ, LAST_SEQ = 2, 1
"""Where a copied turn stands on the copy's log: behind `session_created`, and with no event of its own."""


async def settle(tx: Transaction, session_id: str, options: Options) -> Session:
    """Set what a copy's row says of its history, once turns and messages are there.

    A system prompt that the history does not end with is put on record with the next turn, as after a change.
    """
    content = await tx.db.fetchval(
        "SELECT content FROM messages WHERE session_id = $1 AND role = 'system' ORDER BY ordinal DESC LIMIT 1", session_id
    )
    told = None if content is None else "\n\n".join(block["text"] for block in orjson.loads(content))
    await tx.db.execute(
        """UPDATE sessions SET
             message_count = (SELECT count(*) FROM messages WHERE session_id = $1),
             stored_bytes = stored_bytes + (SELECT coalesce(sum(octet_length(content)), 0) FROM messages WHERE session_id = $1),
             turn_count = (SELECT count(*) FROM turns WHERE session_id = $1),
             last_assistant_text = (SELECT text FROM turns WHERE session_id = $1 AND text <> '""'
                                    ORDER BY started_at DESC NULLS LAST, number DESC LIMIT 1),
             summed_up_to = coalesce((SELECT sums_up_to FROM messages WHERE session_id = $1 AND is_summary
                                      ORDER BY ordinal DESC LIMIT 1), 0),
             is_system_prompt_due = $2
           WHERE id = $1""",
        session_id,
        options.system_prompt is not None and options.system_prompt != told,
    )
    return await sessions.lock(tx, session_id)
