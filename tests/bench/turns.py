"""Parts c and d: whole turns, and long replies."""

from dataclasses import dataclass
from typing import Any

from tests.bench.figures import median
from tests.bench.ground import FLOOR, PLAIN, PLAIN_BY_EVENT, SERVERS, SESSION, SURICATE, Cpu, Ground, Server
from tests.bench.table import Aim, Row
from tests.provider_double import scripts

PROMPT = "Tell me something about sessions, in some sixty words."
TOKENS, LONG_TOKENS = 64, 512
CONCURRENCY = 16
COMPLETION = {"model": "double", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: turns of each server a round, and rounds."""

    turns: dict[str, int]
    single: int
    rounds: int

    @classmethod
    def of(cls, *, quick: bool) -> "Sizes":
        """Choose a smoke run's or a whole run's."""
        if quick:
            return cls(dict.fromkeys(SERVERS, 32), 8, 1)
        return cls({SURICATE: 400, FLOOR: 1000, PLAIN: 64, PLAIN_BY_EVENT: 16}, 16, 3)


@dataclass(frozen=True, slots=True)
class Run:
    """One server under load for a while."""

    turns: int
    cpu: Cpu
    seen: dict[str, Any]

    @property
    def turns_per_second(self) -> float:
        return float(self.turns / self.seen["elapsed"])

    @property
    def server_ms(self) -> float:
        return 1000 * self.cpu.server / self.turns

    @property
    def postgres_ms(self) -> float:
        return 1000 * self.cpu.postgres / self.turns

    @property
    def first_ms(self) -> float:
        return float(self.seen["first"]["p50"])


async def short_turns(ground: Ground, *, quick: bool) -> list[Row]:
    """Part c."""
    sizes = Sizes.of(quick=quick)
    saturated: dict[str, list[Run]] = {name: [] for name in SERVERS}
    alone: dict[str, list[float]] = {name: [] for name in SERVERS}
    double: list[float] = []
    for round_ in range(sizes.rounds + 1):
        double.append(await _first_token_of_double(ground, sizes.single))
        for name in SERVERS:
            server = await ground.server(name)
            turns = sizes.turns[name] if round_ else CONCURRENCY
            single = await run_turns(ground, server, turns=sizes.single, concurrency=1)
            run = await run_turns(ground, server, turns=turns, concurrency=CONCURRENCY)
            if round_:  # the one before them warms up
                alone[name].append(single.first_ms)
                saturated[name].append(run)
    later = {name: median(alone[name]) - median(double) for name in SERVERS}
    first = f"first token later than the double's own ({median(double):.2f} ms), one turn at a time"
    what = f"of a turn of {TOKENS} tokens, {CONCURRENCY} at once"
    return [
        _row("c", "c-cpu", f"server's CPU {what}", "ms", _medians(saturated, "server_ms"), Aim(4)),
        _row("c", "c-postgres", f"Postgres' CPU {what}", "ms", _medians(saturated, "postgres_ms")),
        _row("c", "c-turns", f"turns of {TOKENS} tokens, {CONCURRENCY} at once", "a second",
             _medians(saturated, "turns_per_second"), Aim(200, ">=")),
        _row("c", "c-first", first, "ms", later, Aim(8)),
    ]  # fmt: skip


async def long_replies(ground: Ground, *, quick: bool) -> list[Row]:
    """Part d."""
    sizes = Sizes.of(quick=quick)
    rates: dict[str, list[float]] = {name: [] for name in SERVERS}
    cpu: dict[str, list[float]] = {name: [] for name in SERVERS}
    for round_ in range(sizes.rounds + 1):
        for name in SERVERS:
            if name == PLAIN_BY_EVENT and round_ != 1:
                continue  # ten seconds each
            turns = max(sizes.turns[name] // 3, CONCURRENCY) if round_ else CONCURRENCY
            script = (scripts.tokens(LONG_TOKENS), scripts.finish())
            await ground.double.play(*[script] * turns)
            run = await run_turns(ground, await ground.server(name), turns=turns, concurrency=CONCURRENCY)
            if round_:
                rates[name].append(LONG_TOKENS * run.turns_per_second)
                cpu[name].append(run.server_ms)
    what = f"replies of {LONG_TOKENS} tokens, {CONCURRENCY} at once"
    return [
        _row("d", "d-tokens", what, "tokens/s", {n: median(found) for n, found in rates.items()}, Aim(50_000, ">=")),
        _row("d", "d-cpu", what, "ms of server's CPU each", {n: median(found) for n, found in cpu.items()}),
    ]


async def run_turns(ground: Ground, server: Server, *, turns: int, concurrency: int, **load: Any) -> Run:
    """Make sessions, then run a turn in each, and measure the turns alone."""
    created = await ground.load("create", base_url=server.base_url, count=turns, body=SESSION, key=server.key)
    requests = [(f"/v1/sessions/{session_id}/turns", {"prompt": PROMPT}) for session_id in created["ids"]]
    before = ground.cpu(server)
    asked = {"base_url": server.base_url, "requests": requests, "concurrency": concurrency, "key": server.key}
    seen = await ground.load("turns", **asked, **load)
    used = ground.cpu(server).since(before)
    assert not seen["failed"], f"{server.name}: {seen['failed']} of {turns} answers were not complete"
    return Run(turns, used, seen)


async def _first_token_of_double(ground: Ground, turns: int) -> float:
    base_url = ground.double.base_url.removesuffix("/v1")
    requests = [("/v1/chat/completions", COMPLETION)] * turns
    seen = await ground.load("turns", base_url=base_url, requests=requests, concurrency=1)
    return float(seen["first"]["p50"])


def _medians(runs: dict[str, list[Run]], figure: str) -> dict[str, float]:
    return {name: median([getattr(run, figure) for run in found]) for name, found in runs.items()}


def _row(part: str, key: str, what: str, unit: str, figures: dict[str, float], aim: Aim | None = None) -> Row:
    others = {name: figure for name, figure in figures.items() if name != SURICATE}
    return Row(part, key, what, unit, figures[SURICATE], others, aim)
