"""One client's way to the nodes: an act is asked for at a random one, and again with its key until its outcome is known.

Every try is put on record, with what its answer says, with what a 2xx may not say, and with refusals that have no ground.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import orjson

from app import clock
from tests.bench.wire import Answer, Connection, Sink, connect
from tests.torture.pool import Known
from tests.torture.records import Book, Operation, Outcome

PATIENCE_SECONDS = 15.0
CONNECT_SECONDS = 3.0
GIVES_UP_SECONDS = 60.0
PAUSES_SECONDS = (0.1, 1.0)
MAY_PASS = frozenset({"SESSION_STORE_ERROR", "IDEMPOTENCY_IN_PROGRESS"})

Json: TypeAlias = dict[str, Any]
Read: TypeAlias = Callable[[int, Any], Json]
"""Given a 2xx's status and body, says what they hold: `session_id`, `turn_id`, and facts."""


@dataclass(frozen=True, slots=True)
class Act:
    """What is asked for.

    Args:
        key: None is not tried again.
        known: the session that it is done to; only one that is doomed may be gone.
        session_id: of one that it is to make.
        refusals: codes that are an answer like others.
        read: None passes over the answer.
        sink: takes the body of an answer that is a stream; its head is then the answer.
        read_again: in place of `read` where a repeat hears of it at once.
    """

    name: str
    method: str
    path: str
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    known: Known | None = None
    session_id: str | None = None
    turn_id: str | None = None
    plan: str | None = None
    facts: Json = field(default_factory=dict)
    refusals: frozenset[str] = frozenset()
    read: Read | None = None
    sink: Sink | None = None
    read_again: Read | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """How a try went."""

    outcome: Outcome
    status: int | None = None
    code: str | None = None
    body: Any = None
    facts: Json = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Whether trying again would tell no more."""
        return self.outcome == "ok" or (self.outcome == "fail" and self.code not in MAY_PASS)


def wrong(**claims: bool) -> Json:
    """Name the claims that are true: each is something that an answer may not say."""
    found = [claim for claim, is_so in claims.items() if is_so]
    return {"wrong": found} if found else {}


class Caller:
    """Asks, a request at a time.

    Args:
        nodes: addresses by names.
    """

    def __init__(self, name: str, nodes: Mapping[str, str], book: Book, rng: random.Random) -> None:
        self.name = name
        self._nodes = nodes
        self._book = book
        self._rng = rng
        self._connections: dict[str, Connection] = {}

    async def do(self, act: Act) -> Told:
        """Do one act, as often as it takes or patience lasts."""
        gives_up_at = clock.monotonic() + GIVES_UP_SECONDS
        told = await self.ask(act)
        while not told.is_known and act.key is not None and clock.monotonic() < gives_up_at:
            await asyncio.sleep(self._rng.uniform(*PAUSES_SECONDS))
            told = await self.ask(_repeated(act))
        if told.outcome == "unknown":
            await asyncio.sleep(self._rng.uniform(*PAUSES_SECONDS))
        return told

    async def ask(self, act: Act) -> Told:
        """Ask once, and put it on record."""
        node, began = self._rng.choice(list(self._nodes)), clock.monotonic()
        told = _read(act, await self._answer(node, act))
        if act.known is not None:
            act.known.saw(told.facts.get("last_seq", 0))
        self._book.write(self._operation(act, told, node, began))
        return told

    def close(self) -> None:
        """Leave all nodes."""
        for connection in self._connections.values():
            connection.close()

    def _operation(self, act: Act, told: Told, node: str, began: float) -> Operation:
        facts = {**act.facts, **told.facts}
        session_id = facts.pop("session_id", act.session_id or (act.known.id if act.known else None))
        turn_id = facts.pop("turn_id", act.turn_id)
        return Operation(
            self.name, act.name, node, began, clock.monotonic(), told.outcome,
            told.status, told.code, session_id, turn_id, act.plan, act.key, facts,
        )  # fmt: skip

    async def _answer(self, node: str, act: Act) -> Answer:
        """Return what comes; an answer without a head where nothing does."""
        headers = {**act.headers, **({"idempotency-key": act.key} if act.key else {})}
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self._connection(node)
        except (OSError, TimeoutError):
            return Answer()
        timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, connection.close)
        try:
            return await connection.request(act.method, act.path, body=act.body, headers=headers, sink=act.sink)
        finally:
            timer.cancel()

    async def _connection(self, node: str) -> Connection:
        found = self._connections.get(node)
        if found is None or not found.is_open:
            found = self._connections[node] = await connect(self._nodes[node])
        return found


def _repeated(act: Act) -> Act:
    """Ask for the same effect, and hear of it at once."""
    if act.sink is None and "prefer" not in act.headers:
        return act
    return replace(act, headers={"prefer": "respond-async"}, sink=None, read=act.read_again or act.read)


def _read(act: Act, answer: Answer) -> Told:
    status = answer.status
    if status == 0 or not (answer.is_complete or (act.sink is not None and status < 300)):
        return Told("unknown")
    if act.sink is not None and status < 300:
        return Told("ok", status, facts=act.read(status, None) if act.read else {})
    try:
        body: Any = orjson.loads(answer.body) if answer.body else None
        if status >= 300:
            code = str(body["code"])
            return Told("fail", status, code, facts=wrong(refused_without_ground=not _has_ground(act, code)))
        return Told("ok", status, None, body, act.read(status, body) if act.read else {})
    except (ValueError, KeyError, TypeError) as error:
        return Told("ok" if status < 300 else "fail", status, facts={"wrong": [f"another shape: {error!r}"]})


def _has_ground(act: Act, code: str) -> bool:
    is_gone = code in {"SESSION_NOT_FOUND", "TURN_NOT_FOUND"} and act.known is not None and act.known.is_doomed
    return is_gone or code in MAY_PASS or code in act.refusals


def terminal(view: Mapping[str, Any]) -> bool:
    """Tell whether a turn is over."""
    return view["status"] in {"completed", "failed", "interrupted", "cancelled"}
