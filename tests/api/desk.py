"""What the tests of turns sit at: a session, and what its client may ask."""

import asyncio
from typing import Any

import httpx2

from tests.service import Service

ASYNC = {"Prefer": "respond-async"}


class Desk:
    """One session, and how a client speaks of its turns."""

    def __init__(self, service: Service, session_id: str) -> None:
        self.client = service.client
        self.id = session_id
        self.path = f"/v1/sessions/{session_id}"

    async def start(self, prompt: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        return await self.client.post(f"{self.path}/turns", json={"prompt": prompt, **fields}, headers=headers or {})

    async def queue(self, prompt: str) -> dict[str, Any]:
        answer = await self.start(prompt, ASYNC, on_busy="queue")
        assert answer.status_code == 202, answer.text
        view: dict[str, Any] = answer.json()
        return view

    async def turn(self, turn_id: str) -> dict[str, Any]:
        view: dict[str, Any] = (await self.client.get(f"{self.path}/turns/{turn_id}")).json()
        return view

    async def turns(self, query: str = "") -> dict[str, Any]:
        page: dict[str, Any] = (await self.client.get(f"{self.path}/turns?{query}")).json()
        return page

    async def log_at_rest(self) -> list[dict[str, Any]]:
        """Return the log once no turn is live or queued."""
        async with asyncio.timeout(10):
            while (state := (await self.client.get(self.path)).json()["state"])["is_active"] or state["queued_turns"]:
                await asyncio.sleep(0.01)
        page = await self.client.get(f"{self.path}/events?limit=1000", headers={"Accept": "application/json"})
        log: list[dict[str, Any]] = page.json()["events"]
        return log

    async def interrupt(self) -> None:
        assert (await self.client.post(f"{self.path}/interrupt")).status_code == 200
