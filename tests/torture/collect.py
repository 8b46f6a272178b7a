"""Copies what a run has left in the database into its folder, for the checker: `<table>.csv`, and where the clocks stand.

python -m tests.torture.collect --database-url postgresql://… --folder F
"""

import argparse
import asyncio
from pathlib import Path

import asyncpg
import orjson

from app import clock

USAGE = ("input_tokens", "output_tokens", "cache_creation_tokens", "cache_read_tokens")
TABLES = {
    "sessions": """SELECT id, archived_at IS NOT NULL AS is_archived, title, status, last_seq, message_count, turn_count,
        queued_turns, current_turn_id, input_tokens, output_tokens, cache_creation_tokens, cache_read_tokens
        FROM sessions ORDER BY id""",
    "turns": """SELECT session_id, id, number, status, prompt, attempt, steps, tool_calls, input_tokens, output_tokens,
        cache_creation_tokens, cache_read_tokens, first_seq, last_seq, allowed FROM turns ORDER BY session_id, number""",
    "events": "SELECT session_id, seq, turn_id, type, payload FROM events ORDER BY session_id, seq",
    "messages": "SELECT session_id, ordinal, turn_id, role, content, is_summary FROM messages ORDER BY session_id, ordinal",
    "usage": f"""SELECT {", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in USAGE)}
        FROM (SELECT {", ".join(USAGE)} FROM usage_reports UNION ALL SELECT {", ".join(USAGE)} FROM usage_days) used""",
    "idempotency_keys": "SELECT path, key, session_id, turn_id FROM idempotency_keys ORDER BY path, key",
}
CLOCKS = "clocks.json"
COPY_SECONDS = 300.0


async def collect(database_url: str, folder: Path) -> None:
    """Write one file for each table."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for table, query in TABLES.items():
                await connection.copy_from_query(
                    query, output=folder / f"{table}.csv", format="csv", header=True, timeout=COPY_SECONDS
                )
    finally:
        await connection.close()
    (folder / CLOCKS).write_bytes(orjson.dumps({"wall": clock.now().timestamp(), "monotonic": clock.monotonic()}))


def main() -> None:
    """Collect once."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.collect", description=__doc__)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    asyncio.run(collect(given.database_url, given.folder))


if __name__ == "__main__":
    main()
