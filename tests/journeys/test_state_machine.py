"""Random lives of sessions over HTTP, held against a model that fits on a page.

A turn whose prompt is `HELD` does not end by itself; any other ends at once. So the model knows after each act what must be
so: which turn is live, which are queued, how each has ended.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx2
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.api import shapes
from tests.api.databases import fresh_database
from tests.service import Service

HELD, QUICK = "long slow", "hello"
JSON = {"Accept": "application/json"}
EXAMPLES = 30
STEPS = 30
MOST_SESSIONS = 2
ACTS = ("queue", "queue", "queue", "queue", "reject", "edit", "edit", "cancel", "cancel", "interrupt", "interrupt", "patch",
        "read_on", "unarchive", "archive", "list")  # fmt: skip
MANY_TURNS = 6  # sessions live for a while before one is erased

sessions = Bundle("sessions")
prompts = st.sampled_from([HELD, HELD, QUICK])  # a session that is busy has more to tell
titles = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
labels = st.dictionaries(st.sampled_from(["a", "b", "é"]), st.none() | st.sampled_from(["", "1", "ü"]), max_size=3)


@dataclass
class Turn:
    """What the model knows of a turn."""

    id: str
    prompt: str
    status: str


@dataclass
class Session:
    """What the model knows of a session."""

    id: str
    title: str | None
    labels: dict[str, str]
    turns: list[Turn] = field(default_factory=list)
    is_archived: bool = False
    seen: list[dict[str, Any]] = field(default_factory=list)
    """What one reader that comes back now and then has seen."""

    @property
    def path(self) -> str:
        return f"/v1/sessions/{self.id}"

    @property
    def live(self) -> Turn | None:
        return next((turn for turn in self.turns if turn.status == "running"), None)

    @property
    def queue(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.status == "queued"]

    @property
    def status(self) -> str:
        return "archived" if self.is_archived else "running" if self.live else "idle"


class Lives(RuleBasedStateMachine):
    """Lives of a few sessions side by side."""

    client: ClassVar[httpx2.Client]

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Session] = {}

    @initialize(target=sessions, title=titles)
    def create_busy(self, title: str | None) -> Session:
        return self._create(title, HELD)

    @precondition(lambda self: len(self.known) < MOST_SESSIONS)
    @rule(target=sessions, title=titles, prompt=st.none() | prompts)
    def create(self, title: str | None, prompt: str | None) -> Session:
        return self._create(title, prompt)

    @rule(session=sessions, act=st.sampled_from(ACTS), prompt=prompts, choice=st.integers(0, 3), title=titles, changes=labels)
    def act(  # one rule for all, or hypothesis would leave most of them out of most lives
        self, session: Session, act: str, prompt: str, choice: int, title: str | None, changes: dict[str, str | None]
    ) -> None:
        match act:
            case "queue" | "reject":
                self._start(session, prompt, act)
            case "edit" | "cancel":
                self._edit_or_cancel(session, choice, prompt if act == "edit" else None)
            case "patch":
                self._patch(session, title, changes)
            case _:
                getattr(self, f"_{act}")(session)

    @precondition(lambda self: any(len(session.turns) > MANY_TURNS for session in self.known.values()))
    @rule(session=consumes(sessions))
    def erase(self, session: Session) -> None:
        assert self.client.delete(session.path).status_code == 204
        _refused(self.client.get(session.path), 404, "SESSION_NOT_FOUND")
        del self.known[session.id]

    @invariant()
    def every_session_is_as_the_model_says(self) -> None:
        for session in self.known.values():
            state = self.client.get(session.path).json()["state"]
            live = session.live
            assert (state["title"], state["labels"]) == (session.title, session.labels)
            assert (state["status"], state["is_active"]) == (session.status, live is not None)
            assert (state["current_turn_id"], state["queued_turns"]) == (live.id if live else None, len(session.queue))

    def _list(self, _session: Session) -> None:
        for archived in ("true", "false"):
            page = self.client.get(f"/v1/sessions?limit=200&archived={archived}").json()["sessions"]
            expected = {session.id for session in self.known.values() if session.is_archived == (archived == "true")}
            assert {summary["session_id"] for summary in page} == expected

    def teardown(self) -> None:
        """Hold every log, transcript and turn against the promises, and leave nothing behind."""
        for session in self.known.values():
            turns = self.client.get(f"{session.path}/turns?limit=200").json()["turns"]
            assert [(turn["turn_id"], turn["status"]) for turn in turns] == [(turn.id, turn.status) for turn in session.turns]
            assert [turn["number"] for turn in turns] == list(range(1, len(turns) + 1))
            self.client.post(f"{session.path}/archive")
            log = self.client.get(f"{session.path}/events?limit=1000", headers=JSON).json()["events"]
            shapes.assert_log(log, is_at_rest=len(log) < 1000)
            assert session.seen == log[: len(session.seen)]
            messages = self.client.get(f"{session.path}/messages?limit=200").json()["messages"]
            shapes.assert_transcript(messages)
            self.client.delete(session.path)

    def _create(self, title: str | None, prompt: str | None) -> Session:
        body = {"model": "scripted", "title": title, "prompt": prompt, "provider_params": {"tokens_per_second": 1000}}
        answer = self.client.post("/v1/sessions", json=body, headers=_way(prompt))
        assert answer.status_code == 201, answer.text
        session = Session(answer.json()["session_id"], title, {})
        self.known[session.id] = session
        if prompt is not None:
            self._began(session, answer.json()["turn"]["turn_id"], prompt)
        return session

    def _start(self, session: Session, prompt: str, on_busy: str | None) -> None:
        is_behind = session.live is not None
        body = {"prompt": prompt, "on_busy": on_busy}
        answer = self.client.post(f"{session.path}/turns", json=body, headers=_way(HELD if is_behind else prompt))
        if session.is_archived:
            _refused(answer, 409, "SESSION_ARCHIVED")
        elif is_behind and on_busy != "queue":
            _refused(answer, 409, "SESSION_BUSY")
        elif is_behind:
            assert (answer.status_code, answer.json()["status"]) == (202, "queued")
            session.turns.append(Turn(answer.json()["turn_id"], prompt, "queued"))
        else:
            assert answer.status_code == (202 if prompt == HELD else 200), answer.text
            self._began(session, answer.json()["turn_id"], prompt)

    def _edit_or_cancel(self, session: Session, choice: int, prompt: str | None) -> None:
        if not session.turns:
            return
        turn = session.turns[-1 - choice % len(session.turns)]
        path = f"{session.path}/turns/{turn.id}"
        answer = self.client.delete(path) if prompt is None else self.client.patch(path, json={"prompt": prompt})
        if turn.status != "queued":
            _refused(answer, 409, "TURN_NOT_QUEUED")
            return
        turn.prompt, turn.status = (turn.prompt, "cancelled") if prompt is None else (prompt, "queued")
        assert (answer.status_code, answer.json()["status"]) == (200, turn.status)

    def _interrupt(self, session: Session) -> None:
        live = session.live
        answer = self.client.post(f"{session.path}/interrupt")
        if live is None:
            _refused(answer, 409, "SESSION_NOT_RUNNING")
            return
        assert (answer.status_code, answer.json()["turn_id"], answer.json()["status"]) == (200, live.id, "interrupted")
        live.status = "interrupted"
        self._promote(session)

    def _archive(self, session: Session) -> None:
        answer = self.client.post(f"{session.path}/archive")
        assert (answer.status_code, answer.json()["state"]["status"]) == (200, "archived")
        for turn in session.turns:
            turn.status = {"running": "interrupted", "queued": "cancelled"}.get(turn.status, turn.status)
        session.is_archived = True

    def _unarchive(self, session: Session) -> None:
        assert self.client.post(f"{session.path}/unarchive").status_code == 200
        session.is_archived = False

    def _patch(self, session: Session, title: str | None, changes: dict[str, str | None]) -> None:
        assert self.client.patch(session.path, json={"title": title, "labels": changes}).status_code == 200
        session.title = title
        merged = {**session.labels, **changes}
        session.labels = {name: value for name, value in merged.items() if value is not None}

    def _read_on(self, session: Session) -> None:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(len(session.seen))}
        answer = self.client.get(f"{session.path}/events?follow=false", headers=headers)
        assert answer.status_code in {200, 204}
        data = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
        session.seen += [httpx2.Response(200, text=text).json() for text in data]
        assert [event["seq"] for event in session.seen] == list(range(1, len(session.seen) + 1))

    def _began(self, session: Session, turn_id: str, prompt: str) -> None:
        session.turns.append(Turn(turn_id, prompt, "running" if prompt == HELD else "completed"))

    def _promote(self, session: Session) -> None:
        """Let the queue move up: quick turns run through, the first that is held becomes the live one."""
        for turn in session.queue:
            if turn.prompt == HELD:
                turn.status = "running"
                return
            self.client.get(f"{session.path}/turns/{turn.id}/events", headers={"Accept": "text/event-stream"})
            turn.status = "completed"


def _way(prompt: str | None) -> dict[str, str]:
    """A quick turn is waited for, plainly or by its stream; one that is held is not."""
    return {"Prefer": "respond-async"} if prompt == HELD else {}


def _refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.fixture(scope="module")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server of its own, whose lists show these sessions alone."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(fresh_database(postgres)) as url:
        started = Service.started(tmp_path_factory.mktemp("lives"), {"SURICATE_DATABASE_URL": url})
        with portal.wrap_async_context_manager(started) as service:
            yield service


@pytest.mark.slow
def test_sessions_live_as_the_model_says(server: Service) -> None:
    with httpx2.Client(base_url=server.base_url, trust_env=False, timeout=20) as client:
        Lives.client = client
        run_state_machine_as_test(
            Lives,
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
    assert "request_crashed" not in server.log.read_text()
    assert "attempt_crashed" not in server.log.read_text()
