"""Parts b, e and f: live streams, a few, a thousand, and many readers of one."""

import asyncio

from tests.bench.figures import median
from tests.bench.ground import FLOOR, PLAIN, SESSION, SURICATE, Ground, Server
from tests.bench.table import Aim, Row
from tests.bench.turns import PROMPT, Run, run_turns
from tests.provider_double import scripts

RATE = 50
CROWD = 1_000
RAMP_SECONDS = 7.0
SPREAD_SECONDS = 0.3  # part b looks at streams that run, not at how they begin together
READERS = (1, 100, 1_000)
READ_TOKENS, READ_RATE = 200, 150


async def chunk_to_client(ground: Ground, *, quick: bool) -> list[Row]:
    """Part b."""
    seconds, rounds = (1, 1) if quick else (1.5, 3)
    rows: list[Row] = []
    for turns in (1, 8, 128):
        p50: dict[str, list[float]] = {SURICATE: [], FLOOR: []}
        p99: dict[str, list[float]] = {SURICATE: [], FLOOR: []}
        for _ in range(rounds):
            for name in (SURICATE, FLOOR):
                run = await _live(ground, await ground.server(name), turns=turns, seconds=seconds, ramp_seconds=SPREAD_SECONDS)
                p50[name].append(run.seen["lateness"]["p50"])
                p99[name].append(run.seen["lateness"]["p99"])
        what = f"provider chunk to client, {turns} turns of {RATE} tokens/s"
        is_aimed = turns == 8
        rows.append(_row("b", f"b-{turns}-p50", f"{what}, p50", "ms", p50, Aim(4) if is_aimed else None))
        rows.append(_row("b", f"b-{turns}-p99", f"{what}, p99", "ms", p99, Aim(25) if is_aimed else None))
    return rows


async def crowd(ground: Ground, *, quick: bool) -> list[Row]:
    """Part e."""
    turns, seconds = (50, 2) if quick else (CROWD, 12)
    p50: dict[str, list[float]] = {}
    p99: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    for name in (SURICATE, FLOOR):
        server = await ground.server(name)
        before = server.rss_bytes
        async with asyncio.TaskGroup() as tasks:
            peak = tasks.create_task(_peak(server))
            run = await _live(ground, server, turns=turns, seconds=seconds, ramp_seconds=RAMP_SECONDS)
            peak.cancel()
        p50[name], p99[name] = [run.seen["lateness"]["p50"]], [run.seen["lateness"]["p99"]]
        memory[name] = [(max(_PEAKS.pop(server.name, before), before) - before) / turns / 1024]
        cpu[name] = [run.cpu.server / run.seen["elapsed"] * 100]
    what = f"{turns} turns of {RATE} tokens/s at once, one process: a token's lateness"
    return [
        _row("e", "e-p50", f"{what}, p50", "ms", p50),
        _row("e", "e-p99", f"{what}, p99", "ms", p99, Aim(300)),
        _row("e", "e-cpu", "the same: server's CPU", "% of a core", cpu),
        _row("e", "e-memory", "the same: memory a stream", "KiB", memory),
    ]


async def readers(ground: Ground, *, quick: bool) -> list[Row]:
    """Part f."""
    rows: list[Row] = []
    for count in READERS[:2] if quick else READERS:
        ours = [await _read_together(ground, SURICATE, count) for _ in range(1 if quick else 3)]
        others = {PLAIN: await _read_together(ground, PLAIN, count)} if count == 100 else {}
        what = f"one session, {count} readers: server's CPU for each event delivered"
        rows.append(Row("f", f"f-{count}", what, "µs", median(ours), others))
    return rows


async def _live(ground: Ground, server: Server, *, turns: int, seconds: float, ramp_seconds: float = 0) -> Run:
    script = (scripts.tokens(int(RATE * seconds), rate=RATE, stamped=True), scripts.finish())
    await ground.double.play(*[script] * turns)
    return await run_turns(ground, server, turns=turns, concurrency=turns, ramp_seconds=ramp_seconds)


_PEAKS: dict[str, int] = {}


async def _peak(server: Server) -> None:
    while True:
        _PEAKS[server.name] = max(_PEAKS.get(server.name, 0), server.rss_bytes)
        await asyncio.sleep(0.25)


async def _read_together(ground: Ground, name: str, count: int) -> float:
    """Let many read one turn, and return the server's microseconds for each event that any of them was sent."""
    server = await ground.server(name)
    created = await ground.load("create", base_url=server.base_url, count=1, body=SESSION)
    path = f"/v1/sessions/{created['ids'][0]}"
    await ground.double.play((scripts.tokens(READ_TOKENS, rate=READ_RATE), scripts.finish()))
    await ground.load("open_readers", base_url=server.base_url, path=f"{path}/events", count=count)
    before = ground.cpu(server)
    read = await ground.load("read_turn", base_url=server.base_url, path=f"{path}/turns", body={"prompt": PROMPT})
    return 1e6 * ground.cpu(server).since(before).server / float(read["events"] + read["own"])


def _row(part: str, key: str, what: str, unit: str, figures: dict[str, list[float]], aim: Aim | None = None) -> Row:
    found = {name: median(each) for name, each in figures.items()}
    return Row(part, key, what, unit, found.pop(SURICATE), found, aim)
