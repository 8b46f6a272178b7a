"""The provider of a run: the double, as strict as ever, where each request plays what the last plan of its transcript says.

    python -m tests.torture.provider --folder F --port P [--until-stdin-closes]

Numbers of requests grow over restarts too: each start of it in a folder has a million of its own, and a file of its own.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app import clock
from tests.provider_double import scripts
from tests.provider_double.connection import Answer, HttpRequest, Reply
from tests.provider_double.ledger import Record
from tests.provider_double.scripts import Action, Script
from tests.provider_double.server import Double, Options
from tests.provider_double.transcript import last_user_text
from tests.provider_double.wheel import Wheel
from tests.torture import doubling, plan
from tests.torture.plan import Plan, ProviderFault
from tests.torture.records import Asked, Book

NUMBERS_A_START = 1_000_000
SILENT_SECONDS = 8.0  # then the connection is cut, for nodes that are more patient
WITHOUT_PLAN = Plan("", tokens=8)
REFUSALS: Mapping[ProviderFault, Action] = {
    "busy": scripts.status(429, retry_after=0.2),
    "down": scripts.status(503),
    "html": scripts.html(),
}
BREAKS: Mapping[ProviderFault, Script] = {
    "cut": [scripts.cut()],
    "reset": [scripts.cut(is_reset=True)],
    "end_early": [],
    "error_event": [scripts.error_event()],
    "silent": [scripts.wait(SILENT_SECONDS), scripts.cut()],
}


class Planned(Double):
    """Plays plans; without tools a request asks for a summary, whatever it quotes."""

    def __init__(self, wheel: Wheel, book: Book, first: int) -> None:
        super().__init__(Options(records=1), wheel)
        self._book = book
        self._first = first
        self._asked_for: Counter[str] = Counter()
        self._played: dict[int, tuple[str | None, int, str]] = {}

    def script_for(self, record: Record) -> Script:
        """Choose what a request gets, and remember what that was."""
        found = plan.last_in(last_user_text(record.body)) if "tools" in record.body else None
        step = _step(record.body["messages"])
        number = self._first + record.number
        fault = self._fault(found)
        self._played[record.number] = (found.id if found else None, step, fault or "whole")
        whole = answer(found or WITHOUT_PLAN, step, number)
        return broken(whole, fault) if fault else whole

    async def _judge_and_play(self, reply: Reply, record: Record, request: HttpRequest) -> None:
        try:
            await super()._judge_and_play(reply, record, request)
        finally:
            plan_id, step, played = self._played.pop(record.number, (None, 0, "refusal"))
            number = self._first + record.number
            self._book.write(Asked(number, plan_id, step, played, record.usage, record.rejected, clock.monotonic()))

    def _fault(self, found: Plan | None) -> ProviderFault | None:
        if found is None or not found.faults:
            return None
        self._asked_for[found.id] += 1
        place = self._asked_for[found.id] - 1
        return found.faults[place] if place < len(found.faults) else None


def answer(played: Plan, step: int, number: int) -> Script:
    """Play a step of a plan whole: its calls, or behind the last of them the text."""
    reasoning, text = played.reasoning, played.tokens
    said = [*spoken(number, 0, reasoning, played.rate, "reasoning_content")]
    if step < len(played.calls):
        calls = [
            scripts.tool_call(
                name, plan.arguments(played.id, step, place), index=place, call_id=f"call_{number}_{place}", size=20
            )
            for place, name in enumerate(played.calls[step])
        ]
        return [*said, *calls, scripts.finish("tool_calls")]
    return [*said, *spoken(number, reasoning, reasoning + text, played.rate, "content"), scripts.finish()]


def broken(whole: Script, fault: ProviderFault) -> Script:
    """Break an answer: refused before its first word, or cut in the middle."""
    if fault in REFUSALS:
        return [REFUSALS[fault]]
    return [*_half(whole), *BREAKS[fault]]


def spoken(number: int, first: int, end: int, rate: float, member: str) -> Sequence[Action]:
    """Say tokens with these places in the answer to a request, so many a second; 0 is full speed."""
    pieces = [f"{number}.{place} " for place in range(first, end)]
    if rate == 0:
        return [scripts.Text(pieces, member)] if pieces else []
    return [action for piece in pieces for action in (scripts.Text([piece], member), scripts.wait(1 / rate))]


def _half(whole: Script) -> Script:
    said = whole[:-1]  # without the finish
    if len(said) == 1 and isinstance(said[0], scripts.Text):
        return [scripts.Text(said[0].pieces[: len(said[0].pieces) // 2], said[0].member)]
    return [scripts.head(), *said[: len(said) // 2]]


def _step(messages: Sequence[Mapping[str, Any]]) -> int:
    roles = [message["role"] for message in reversed(messages)]
    return roles[: roles.index("user")].count("assistant")


@contextmanager
def opened(folder: Path) -> Iterator[Answer]:
    """Open its book, and give what answers requests."""
    start = len(list(folder.glob("asked-*.jsonl")))
    with Book(folder / f"asked-{start}.jsonl") as book:
        yield Planned(Wheel(asyncio.get_running_loop()), book, start * NUMBERS_A_START).answer


if __name__ == "__main__":
    doubling.run("python -m tests.torture.provider", __doc__, opened)
