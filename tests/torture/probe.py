"""After healing: every session takes one more small turn to its end, archived ones once they are open again.

python -m tests.torture.probe --folder F --node n1=http://… --node n2=http://…
"""

import argparse
import asyncio
import random
from collections.abc import Iterator, Sequence

import uvloop

from tests.torture import acts, outside
from tests.torture.caller import Act, Caller
from tests.torture.plan import Plan
from tests.torture.pool import Known
from tests.torture.records import Book

AT_ONCE = 8
PAGE = 200


def _page(cursor: str | None) -> Act:
    query = f"limit={PAGE}&archived=any&order=-created_at" + (f"&cursor={cursor}" if cursor else "")
    return Act("list", "GET", f"/v1/sessions?{query}")


async def _sessions(caller: Caller) -> list[tuple[str, bool]]:
    """List all, and whether each is archived."""
    found: list[tuple[str, bool]] = []
    cursor = None
    while True:
        page = (await caller.do(_page(cursor))).body
        found += [(one["session_id"], one["archived_at"] is not None) for one in page["sessions"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def probe(callers: Sequence[Caller]) -> None:
    """Have every session take a turn; how each went is on record."""
    left: Iterator[tuple[int, tuple[str, bool]]] = iter(enumerate(await _sessions(callers[0])))

    async def work(caller: Caller) -> None:
        for number, (session_id, is_archived) in left:
            known = Known(session_id)
            if is_archived:
                await caller.do(acts.unarchive(known, f"probe{number}open"))
            await caller.do(acts.start(known, f"probe{number}", Plan(f"probe{number}", tokens=3), "reject", "plain"))

    async with asyncio.TaskGroup() as tasks:
        for caller in callers:
            tasks.create_task(work(caller))


async def _run(given: argparse.Namespace) -> None:
    with Book(given.folder / "operations-probe.jsonl") as book:
        callers = [Caller("probe", dict(given.node), book, random.Random(number)) for number in range(AT_ONCE)]
        await probe(callers)
        for caller in callers:
            caller.close()


def main() -> None:
    """Probe once."""
    uvloop.run(_run(outside.parser("probe", __doc__).parse_args()))


if __name__ == "__main__":
    main()
