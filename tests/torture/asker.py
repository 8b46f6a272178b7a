"""An asker who does not give up: every POST bears a key and is asked again with it until its outcome is known."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx2

from tests.service import Service

ANSWER_SECONDS = 25.0  # for one act, its repeats and a take-over included
PAUSE_SECONDS = 0.03


class Asker:
    """Asks one node after the other until it knows.

    Args:
        nodes: those that are up now, the one to be asked first in front.
        mark: makes its keys unlike all others.
    """

    def __init__(self, nodes: Callable[[], Sequence[Service]], mark: str) -> None:
        self.nodes = nodes
        self.mark = mark
        self.tries = 0
        self._keys = itertools.count()

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        """Ask until there is an answer that says what became of it; `tries` tells how often that took."""
        self.tries = 0
        named = {name.replace("_", "-"): value for name, value in headers.items() if value}
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                for node in self.nodes():
                    self.tries += 1
                    answer = await _answer(node, method, path, body, named)
                    if answer is not None:
                        return answer
                await asyncio.sleep(PAUSE_SECONDS)

    async def read(self, path: str) -> Any:
        """Return what a route tells."""
        answer = await self.ask("GET", path, accept="application/json")
        assert answer.status_code == 200, f"GET {path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def post(self, path: str, body: Any = None, *, prefer: str = "") -> dict[str, Any]:
        """Do something once, and see that a repeat tells of the same."""
        key = f"{self.mark}-{next(self._keys)}"
        first = await self.ask("POST", path, body, idempotency_key=key, prefer=prefer)
        assert first.is_success, f"POST {path}: {first.status_code} {first.text}"
        again = await self.ask("POST", path, body, idempotency_key=key, prefer=prefer)
        assert again.is_success, f"POST {path} again: {again.status_code} {again.text}"
        assert again.headers.get("Idempotency-Replayed") == "true", f"POST {path}: the repeat was not told to be one"
        found: dict[str, Any] = first.json()
        assert _names(again.json()) == _names(found), f"POST {path}: the repeat tells of another"
        return found

    async def patch(self, path: str, body: Any) -> None:
        """Change something."""
        answer = await self.ask("PATCH", path, body)
        assert answer.is_success, f"PATCH {path}: {answer.status_code} {answer.text}"

    async def delete(self, path: str, *, gone: int) -> None:
        """Delete something; the status `gone` says so where the first answer was lost."""
        answer = await self.ask("DELETE", path)
        is_lost = self.tries > 1 and answer.status_code == gone
        assert answer.is_success or is_lost, f"DELETE {path}: {answer.status_code} {answer.text}"


async def _answer(node: Service, method: str, path: str, body: Any, headers: Mapping[str, str]) -> httpx2.Response | None:
    """Ask one node; None where it does not say what became of the request."""
    try:
        answer = await node.client.request(method, path, json=body, headers=dict(headers))
    except httpx2.TransportError:
        return None
    is_open = answer.status_code == 503 or "IDEMPOTENCY_IN_PROGRESS" in answer.text
    return None if is_open else answer


def _names(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer.get(name) for name in ("session_id", "turn_id")}
