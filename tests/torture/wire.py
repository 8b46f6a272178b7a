"""A wire to Postgres that knows where commits are, and breaks before or after the one that is wanted.

It reads as much of the wire protocol as that takes: which statement is run, by its text or by the name it was prepared under,
and the transaction's status in each ReadyForQuery. A point is what the client waits for outside of a transaction: a COMMIT,
named by what its transaction wrote, or a statement that stands alone, a read too. Points of one name are told apart by their
count since the wire was told to count anew.

What surprises: a break after a commit waits for the server's word that it is done, and keeps that word from the client; where
the server refuses instead, nothing was committed, and the refusal is passed on and no break.
"""

import asyncio
import re
import zlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit

Side: TypeAlias = Literal["before", "after"]

SSL_REQUEST = 80_877_103  # what a client that would like TLS says first
_WRITE = re.compile(
    r"\b(INSERT INTO|DELETE FROM|(?<!KEY )(?<!FOR )(?<!DO )UPDATE|NOTIFY)\s+(\w+)|\b(pg_notify)\(", re.IGNORECASE
)
_READ = re.compile(r"\bFROM\s+(\w+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """One commit among all that a client makes.

    Args:
        name: whose connection, what is written or read, and a checksum of the statements.
        nth: which of that name, from 1.
    """

    name: str
    nth: int


@dataclass(slots=True)
class Trap:
    """Where the wire is to break.

    Args:
        on_break: called at that moment, before the client can notice anything.
    """

    point: Point
    side: Side
    on_break: Callable[[], None] = lambda: None
    has_sprung: asyncio.Event = field(default_factory=asyncio.Event)

    def spring(self) -> None:
        """Break."""
        self.on_break()
        self.has_sprung.set()


class Wire:
    """Carries clients' talk to one Postgres. `dsn` leads through it; `counted` has the points that have passed."""

    def __init__(self) -> None:
        self.dsn = ""
        self.counted: Counter[str] = Counter()
        self._trap: Trap | None = None
        self._is_counting = True

    def count_anew(self, trap: Trap | None = None) -> None:
        """Begin to count points at 1, and break at the trap's."""
        self.counted.clear()
        self._trap = trap
        self._is_counting = True

    def hold(self) -> None:
        """Count no more, and do not break."""
        self._is_counting = False

    def pass_point(self, name: str) -> Trap | None:
        """Count a point; return the trap that lies there."""
        if not self._is_counting:
            return None
        self.counted[name] += 1
        trap = self._trap
        if trap is None or trap.point != Point(name, self.counted[name]):
            return None
        return trap


class Talk:
    """What one client has said so far, as far as it tells where its commits are."""

    def __init__(self, owner: str) -> None:
        self.status = b"I"
        self._owner = owner
        self._prepared: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}
        self._run: list[str] = []
        self._transaction: list[str] = []

    def hear(self, kind: bytes, payload: bytes) -> None:
        """Take one message of the client."""
        match kind:
            case b"P":
                name, query, _ = payload.split(b"\0", 2)
                self._prepared[name] = query.decode()
            case b"B":
                portal, name, _ = payload.split(b"\0", 2)
                self._portals[portal] = self._prepared.get(name, "")
            case b"E":
                self._run.append(self._portals.get(payload.split(b"\0", 1)[0], ""))
            case b"Q":
                self._run.append(payload.rstrip(b"\0").decode())
            case _:
                pass

    def end_unit(self) -> str | None:
        """Take the end of what the server runs at once; return the point's name where it is one."""
        run, self._run = [statement for statement in self._run if statement], []
        if not run:
            return None
        verb = run[0].split(None, 1)[0].rstrip(";").upper()
        if verb in {"BEGIN", "ROLLBACK"}:
            self._transaction = []
            return None
        if self.status == b"I":
            return name_of(self._owner, run)
        if verb == "COMMIT":
            return name_of(self._owner, self._transaction)
        self._transaction += run
        return None


def name_of(owner: str, statements: Iterable[str]) -> str:
    """Name a commit by what it wrote; where it wrote nothing, by what it read."""
    statements = list(dict.fromkeys(" ".join(statement.split()) for statement in statements))
    writes = [statement for statement in statements if _WRITE.search(statement)]
    told = [_words(*found) for statement in writes for found in _WRITE.findall(statement)]
    if not writes:
        told = [f"read {table}" for statement in statements for table in _READ.findall(statement)[:1]] or ["read"]
    checksum = zlib.crc32("\n".join(writes or statements).encode()) & 0xFFFF
    return f"{owner}: {', '.join(dict.fromkeys(told))} #{checksum:04x}"


def _words(verb: str, table: str, notify: str) -> str:
    return "notify" if notify else f"{verb.split(maxsplit=1)[0].lower()} {table}"


class Line:
    """One client's connection, and the server's behind it."""

    def __init__(self, wire: Wire, client: asyncio.StreamWriter, server: asyncio.StreamWriter, talk: Talk) -> None:
        self._wire = wire
        self._client = client
        self._server = server
        self._talk = talk
        self._held = bytearray()
        self._withheld = bytearray()
        self._awaited: deque[Trap | None] = deque()
        self._is_refused = False

    async def carry_questions(self, reader: asyncio.StreamReader) -> None:
        """Pass on what the client says; what the server is to run at once goes at once, or not at all."""
        while True:
            kind, message = await _message(reader)
            self._held += message
            self._talk.hear(kind, message[5:])
            if kind in {b"S", b"Q"} and not self._send_unit():
                return
            if kind not in {b"P", b"B", b"D", b"E", b"C"}:
                self._server.write(self._held)
                self._held.clear()
                await self._server.drain()

    async def carry_answers(self, reader: asyncio.StreamReader) -> None:
        """Pass on what the server says."""
        while True:
            kind, message = await _message(reader)
            self._withheld += message
            self._is_refused |= kind == b"E"
            if kind == b"Z" and not self._take_ready(message[5:6]):
                return
            if not (self._awaited and self._awaited[0]):
                self._client.write(self._withheld)
                self._withheld.clear()
                await self._client.drain()

    async def until_cut(self, way: Coroutine[None, None, None]) -> None:
        """Carry one way until it ends, and break both then."""
        with suppress(OSError, asyncio.IncompleteReadError):
            await way
        self._client.transport.abort()
        self._server.transport.abort()

    def _send_unit(self) -> bool:
        """Let a unit go, unless the wire is to break before it."""
        name = self._talk.end_unit()
        trap = self._wire.pass_point(name) if name is not None else None
        if trap is not None and trap.side == "before":
            trap.spring()
            return False
        self._awaited.append(trap)
        return True

    def _take_ready(self, status: bytes) -> bool:
        """Let the end of a unit's answer go, unless the wire is to break after it."""
        self._talk.status = status
        trap = self._awaited.popleft() if self._awaited else None
        if trap is not None and not self._is_refused:
            trap.spring()
            return False
        self._is_refused = False
        return True


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:]) - 4)


async def _opening(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Read a client's first message; who asks for TLS is told that there is none."""
    while True:
        size = await reader.readexactly(4)
        opening = size + await reader.readexactly(int.from_bytes(size) - 4)
        if int.from_bytes(opening[4:8]) != SSL_REQUEST:
            return opening
        writer.write(b"N")


def _owner(opening: bytes) -> str:
    words = opening[8:].split(b"\0")
    told = dict(zip(words[::2], words[1::2], strict=False))
    return told.get(b"application_name", b"").decode().removeprefix("suricate").strip() or "pool"


async def _serve(wire: Wire, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one client until one side closes or the wire breaks."""
    try:
        opening = await _opening(reader, writer)
        server_reader, server_writer = await asyncio.open_unix_connection(path)
    except (OSError, asyncio.IncompleteReadError):
        writer.transport.abort()
        return
    server_writer.write(opening)
    line = Line(wire, writer, server_writer, Talk(_owner(opening)))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(line.until_cut(line.carry_questions(reader)))
        tasks.create_task(line.until_cut(line.carry_answers(server_reader)))


@asynccontextmanager
async def wire_to(dsn: str) -> AsyncIterator[Wire]:
    """Lay a wire to a Postgres that is reached by a Unix socket."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    path = f"{query['host'][0]}/.s.PGSQL.{query.get('port', ['5432'])[0]}"
    wire = Wire()
    server = await asyncio.start_server(lambda reader, writer: _serve(wire, path, reader, writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = query.get("user", [parts.username or "postgres"])[0]
    wire.dsn = f"postgresql://{user}@127.0.0.1:{port}{parts.path}"
    try:
        yield wire
    finally:
        server.close()
