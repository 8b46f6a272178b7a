"""Parts i and j: how soon a stop reaches the provider, and how soon a started process answers."""

from app import clock
from tests.bench.figures import median
from tests.bench.ground import FLOOR, PLAIN, SESSION, SURICATE, Ground
from tests.bench.table import Aim, Row
from tests.bench.turns import PROMPT
from tests.provider_double import scripts

RATE = 50


async def interrupts(ground: Ground, *, quick: bool) -> list[Row]:
    """Part i."""
    rounds = 3 if quick else 15
    closed: dict[str, float] = {}
    answered = 0.0
    for name in (SURICATE, PLAIN):  # the floor does not notice that its client has gone
        server = await ground.server(name)
        created = await ground.load("create", base_url=server.base_url, count=rounds, body=SESSION)
        found: list[tuple[float, float]] = []
        for session_id in created["ids"]:
            await ground.double.reset()
            await ground.double.play((scripts.endless(rate=RATE),))
            path = f"/v1/sessions/{session_id}"
            stop = f"{path}/interrupt" if name == SURICATE else None
            job = {"start": f"{path}/turns", "stop": stop, "body": {"prompt": PROMPT}}
            seen = await ground.load("interrupt", base_url=server.base_url, **job)
            ended = (await ground.double.ended(1)).closed_by_client_at
            assert ended is not None
            found.append(((ended - seen["asked_at"]) * 1000, seen["answered"]))
        closed[name] = median([one for one, _ in found])
        answered = answered or median([other for _, other in found])
    ours = closed.pop(SURICATE)
    others = {f"{name}, whose client goes away": figure for name, figure in closed.items()}
    return [
        Row("i", "i-closed", "interrupt to provider connection closed", "ms", ours, others, Aim(20)),
        Row("i", "i-answered", "interrupt to its answer", "ms", answered),
    ]


async def starts(ground: Ground, *, quick: bool) -> list[Row]:
    """Part j."""
    took: dict[str, float] = {}
    for name in (SURICATE, FLOOR, PLAIN):
        url = (await ground.server(name)).database_url
        found: list[float] = []
        for _ in range(1 if quick else 3):
            began = clock.monotonic()
            async with ground.started(name, url) as server:
                await ground.load("create", base_url=server.base_url, count=1, body=SESSION)
                found.append(clock.monotonic() - began)
        took[name] = median(found)
    ours = took.pop(SURICATE)
    return [Row("j", "j-start", "start of the process to the first answered request, warm", "s", ours, took, Aim(2))]
