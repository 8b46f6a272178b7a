"""A reader that comes back: it keeps every frame it has seen and resumes behind the last one, on whichever server there is."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx2

from app import clock
from tests.api import shapes
from tests.service import Frame, Service, read_frames

SAW_SECONDS = 20.0  # for the events of one wait


@dataclass
class Follower:
    """Follows the events of one session."""

    session_id: str
    frames: list[Frame] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    """Seconds from when each event was made to when it came."""
    farewells: list[str] = field(default_factory=list)
    """Names of frames without an id, as they came."""
    wanted: int = 0
    has_wanted: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def last_id(self) -> int:
        """The number of the last event that was seen."""
        return self.frames[-1].id or 0 if self.frames else 0

    @property
    def data(self) -> list[dict[str, Any]]:
        """The events that were seen."""
        return [frame.data for frame in self.frames]

    def count(self, event: str) -> int:
        """Count the events of a type that were seen."""
        return sum(frame.event == event for frame in self.frames)

    async def follow(self, service: Service, *, until: Sequence[str] = (), most: int = 1_000_000) -> None:
        """Read on from the last event until one of a type, so many frames, or the end of the connection, however it ends."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(self.last_id)}
        path = f"/v1/sessions/{self.session_id}/events"
        try:
            async with service.client.stream("GET", path, headers=headers) as answer:
                assert answer.status_code == 200, answer.status_code
                async for frame in read_frames(answer):
                    most -= 1
                    if self._take(frame) in until or most == 0:
                        return
        except httpx2.TransportError:
            return

    async def saw(self, more: int) -> None:
        """Wait until so many more events have come."""
        self.wanted = len(self.frames) + more
        self.has_wanted.clear()
        async with asyncio.timeout(SAW_SECONDS):
            await self.has_wanted.wait()

    def assert_saw_everything(self, log: Sequence[dict[str, Any]]) -> None:
        """Hold what was seen against the log: nothing is missing, doubled or different."""
        assert [frame.id for frame in self.frames] == [event["seq"] for event in log]
        assert self.data == log
        shapes.assert_log(log)

    def _take(self, frame: Frame) -> str:
        if frame.id is None:
            self.farewells.append(frame.event)
        else:
            self.frames.append(frame)
            self.lateness.append((clock.now() - datetime.fromisoformat(frame.data["at"])).total_seconds())
            if len(self.frames) == self.wanted:
                self.has_wanted.set()
        return frame.event
