"""Parts g and h: what is stored, read again."""

import asyncpg

from app import catalog
from tests.bench.figures import median
from tests.bench.ground import PLAIN, SESSION, SURICATE, Ground, Server
from tests.bench.table import Aim, Row

EVENTS = 10_000
SESSIONS = 100_000
DEEP = 0.9
PAGE = 50

_FILL_EVENTS = {
    SURICATE: """
WITH filled AS (
  INSERT INTO events (realm_id, session_id, seq, type, scope_id, at, payload)
  SELECT 'default', $1, n, 'text_delta', 'primary', now(), '"session_id":"' || $1 || '","turn_id":null,"type":"text_delta",'
    || '"at":"2026-01-01T00:00:00.000Z","scope_id":"primary","step":1,"delta":"hello"}'
  FROM generate_series(2, $2 + 1) n
) UPDATE sessions SET last_seq = $2 + 1 WHERE id = $1""",
    PLAIN: """
INSERT INTO events (session_id, seq, type, data)
SELECT $1, n, 'text_delta', '{"seq":' || n || ',"type":"text_delta","delta":"hello"}' FROM generate_series(1, $2) n""",
}
_FILL_SESSIONS = {
    SURICATE: """
INSERT INTO sessions (realm_id, id, created_at, updated_at, title, title_search, labels, label_terms, options, status)
SELECT 'default', gen_random_uuid(), now() - n * interval '1 second', now() - n * interval '1 second', '"Session ' || n || '"',
  'session ' || n, '{"team":"web"}', ARRAY['"team:web"'], '{"model":"double","provider":"openai_compatible"}', 'idle'
FROM generate_series(1, $1::int) n""",
    PLAIN: """
INSERT INTO sessions (id, title, model, last_seq, updated_at)
SELECT gen_random_uuid(), 'Session ' || n, 'double', 0, now() - n * interval '1 second' FROM generate_series(1, $1::int) n""",
}


async def replay(ground: Ground, *, quick: bool) -> list[Row]:
    """Part g."""
    rounds, rates = (1 if quick else 5), dict[str, float]()
    for name, fill in _FILL_EVENTS.items():
        server = await ground.server(name)
        created = await ground.load("create", base_url=server.base_url, count=1, body=SESSION)
        session_id = created["ids"][0]
        await _execute(server, fill.replace("$1", f"'{session_id}'").replace("$2", str(EVENTS)))
        path = f"/v1/sessions/{session_id}/events?follow=false"
        headers = {"accept": "text/event-stream"}
        read = await ground.load("fetch", base_url=server.base_url, method="GET", path=path, count=rounds, headers=headers)
        assert read["events"] >= EVENTS, read
        rates[name] = read["events"] / read["took"]["p50"] * 1000
    ours = rates.pop(SURICATE)
    return [Row("g", "g-replay", f"replay of {EVENTS:,} events over HTTP", "events/s", ours, rates)]


async def full_house(ground: Ground, *, quick: bool) -> list[Row]:
    """Part h."""
    sessions, count = (2_000, 10) if quick else (SESSIONS, 50)
    took: dict[str, dict[str, float]] = {}
    for name, fill in _FILL_SESSIONS.items():
        server = await ground.server(name)
        await _execute(server, fill.replace("$1", str(sessions)))
        await _execute(server, "ANALYZE sessions")
        took[name] = await _times(ground, server, deep=int(sessions * DEEP), count=count)
    return [
        Row("h", f"h-{what}", f"{what}, {sessions:,} sessions stored, p50", "ms", ours, {PLAIN: took[PLAIN][what]}, Aim(5))
        for what, ours in took[SURICATE].items()
    ]


async def _times(ground: Ground, server: Server, *, deep: int, count: int) -> dict[str, float]:
    connection = await asyncpg.connect(server.database_url)
    row = await connection.fetchrow(f"SELECT id, updated_at FROM sessions ORDER BY updated_at DESC OFFSET {deep} LIMIT 1")
    await connection.close()
    far = f"offset={deep}"
    if server.name == SURICATE:
        far = f"cursor={catalog._cursor('-updated_at', row['updated_at'], str(row['id']))}"
    requests = {
        "create": ("POST", "/v1/sessions", SESSION),
        "read": ("GET", f"/v1/sessions/{row['id']}", None),
        "list, first page": ("GET", f"/v1/sessions?limit={PAGE}", None),
        "list, deep page": ("GET", f"/v1/sessions?limit={PAGE}&{far}", None),
    }
    took: dict[str, float] = {}
    for what, (method, path, body) in requests.items():
        runs = [
            await ground.load("fetch", base_url=server.base_url, method=method, path=path, count=count, body=body)
            for _ in range(3)
        ]
        took[what] = median([run["took"]["p50"] for run in runs])
    return took


async def _execute(server: Server, statement: str) -> None:
    connection = await asyncpg.connect(server.database_url)
    await connection.execute(statement)
    await connection.close()
