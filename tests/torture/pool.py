"""The sessions that clients work on: a moving set, and what each client knows of them."""

import random
from collections import deque
from dataclasses import dataclass, field

SESSIONS = 40
TURNS_A_SESSION = 60  # then it is left in peace, so that transcripts stay short


@dataclass(slots=True)
class Known:
    """One session as far as clients know it.

    Args:
        turns: how many were asked for.
        is_unused: whether it was only seen in a list so far.
        is_doomed: whether someone asks or has asked for its end.
        seen_seq: a number that its log has reached; no later answer may show less.
        queued: turns that were told to be queued, newest last.
    """

    id: str
    turns: int = 0
    is_unused: bool = True
    is_archived: bool = False
    is_doomed: bool = False
    seen_seq: int = 0
    queued: deque[str] = field(default_factory=lambda: deque(maxlen=8))

    @property
    def path(self) -> str:
        """Where it is."""
        return f"/v1/sessions/{self.id}"

    def saw(self, seq: int) -> None:
        """Take note of a number that was shown."""
        self.seen_seq = max(self.seen_seq, seq)


class Pool:
    """All of them, for all clients of a process.

    Args:
        sessions: how many are worked on at a time.
    """

    def __init__(self, rng: random.Random, sessions: int = SESSIONS) -> None:
        self._rng = rng
        self._sessions = sessions
        self._all: dict[str, Known] = {}
        self._used: dict[str, Known] = {}

    @property
    def is_short(self) -> bool:
        """Whether a new session is wanted."""
        return len(self._used) < self._sessions

    def add(self, session_id: str) -> None:
        """Take in a session that exists; one that was here before does not come back."""
        if session_id not in self._all or self._all[session_id].is_unused:
            self._used[session_id] = self.find(session_id)
            self._used[session_id].is_unused = False

    def find(self, session_id: str) -> Known:
        """Return what is known of a session."""
        return self._all.setdefault(session_id, Known(session_id))

    def pick(self) -> Known:
        """Choose one."""
        return self._rng.choice(list(self._used.values()))

    def doom(self, known: Known) -> None:
        """Let nobody begin anything more with it, because it is about to go."""
        known.is_doomed = True
        self._used.pop(known.id, None)

    def started(self, known: Known) -> None:
        """Count a turn; who has had enough of them leaves."""
        known.turns += 1
        if known.turns >= TURNS_A_SESSION:
            self._used.pop(known.id, None)
