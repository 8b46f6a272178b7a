"""The plain app: FastAPI, SQLAlchemy's ORM, sse-starlette and httpx used as their guides show, by a team that knows them.

Its log is a table of events that readers can read again. With `--commit turn` an answer is stored when it is whole, and what
was shown may be lost; with `--commit event` each event is stored before it is shown, as Suricate does.
"""

import asyncio
import json
import uuid
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

import httpx2
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import DateTime, ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sse_starlette.sse import EventSourceResponse

from app import clock, ids
from tests.bench.hosting import serve

Frame = dict[str, Any]


class Base(DeclarativeBase):
    """The tables."""


class Session(Base):
    """A conversation."""

    __tablename__ = "sessions"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    model: Mapped[str]
    last_seq: Mapped[int] = mapped_column(default=0)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now(), index=True)
    messages: Mapped[list["Message"]] = relationship(order_by="Message.id", lazy="selectin")


class Message(Base):
    """What was said."""

    __tablename__ = "messages"
    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sessions.id"), index=True)
    role: Mapped[str]
    content: Mapped[str]


class Event(Base):
    """What was shown."""

    __tablename__ = "events"
    session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    data: Mapped[str]


class NewSession(BaseModel):
    """A request."""

    model: str
    provider: str
    title: str | None = None


class NewTurn(BaseModel):
    """A request."""

    prompt: str


class SessionOut(BaseModel):
    """An answer."""

    session_id: uuid.UUID
    title: str | None
    model: str
    last_seq: int
    updated_at: datetime


async def database(request: Request) -> AsyncIterator[AsyncSession]:
    """Lend the request a session of the ORM."""
    async with request.app.state.sessions() as db:
        yield db


Db = Annotated[AsyncSession, Depends(database)]


def make_app(arguments: Namespace) -> FastAPI:
    """Build the app."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = create_async_engine(arguments.database_url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=16)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=arguments.provider, timeout=None, limits=limits, trust_env=False) as provider:
            app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
            app.state.provider = provider
            app.state.commits_each = arguments.commit == "event"
            app.state.listeners = {}
            yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.post("/v1/sessions", status_code=201)(create)
    app.get("/v1/sessions")(find)
    app.get("/v1/sessions/{session_id}")(get)
    app.post("/v1/sessions/{session_id}/turns")(start)
    app.get("/v1/sessions/{session_id}/events")(events)
    return app


async def create(asked: NewSession, db: Db) -> SessionOut:
    """Create a session."""
    session = Session(id=uuid.UUID(ids.session_id()), title=asked.title, model=asked.model, updated_at=clock.now())
    db.add(session)
    await db.commit()
    return _out(session)


async def find(db: Db, limit: int = 50, offset: int = 0) -> list[SessionOut]:
    """List sessions, the one changed last first."""
    query = select(Session).order_by(Session.updated_at.desc()).limit(limit).offset(offset)
    return [_out(session) for session in await db.scalars(query)]


async def get(session_id: uuid.UUID, db: Db) -> SessionOut:
    """Read a session."""
    return _out(await _session(db, session_id))


async def start(session_id: uuid.UUID, asked: NewTurn, request: Request, db: Db) -> EventSourceResponse:
    """Start a turn and stream it."""
    session = await _session(db, session_id)
    db.add(Message(session_id=session_id, role="user", content=asked.prompt))
    await db.commit()
    messages = [{"role": message.role, "content": message.content} for message in session.messages]
    return EventSourceResponse(_turn(request, session_id, [*messages, {"role": "user", "content": asked.prompt}]), sep="\n")


async def events(session_id: uuid.UUID, request: Request, follow: bool = True) -> EventSourceResponse:
    """Read a session's events, and follow them; the connection is given back before, or 26 readers would be the most."""
    async with request.app.state.sessions() as db:
        await _session(db, session_id)
        stored = await db.scalars(select(Event).where(Event.session_id == session_id).order_by(Event.seq))
        frames = [_frame(event.seq, event.type, event.data) for event in stored]
    return EventSourceResponse(_log(request, session_id, frames, follow=follow), sep="\n")


async def _log(request: Request, session_id: uuid.UUID, frames: list[Frame], *, follow: bool) -> AsyncIterator[Frame]:
    for frame in frames:
        yield frame
    if not follow:
        return
    queue: asyncio.Queue[Frame] = asyncio.Queue()
    listeners = request.app.state.listeners.setdefault(session_id, set())
    listeners.add(queue)
    try:
        while True:
            yield await queue.get()
    finally:
        listeners.discard(queue)


async def _turn(request: Request, session_id: uuid.UUID, messages: list[dict[str, str]]) -> AsyncIterator[Frame]:
    state = request.app.state
    text = ""
    async with state.sessions() as db:
        session = await db.get_one(Session, session_id)

        async def tell(kind: str, **payload: str) -> Frame:
            session.last_seq += 1
            told = _frame(session.last_seq, kind, json.dumps({"seq": session.last_seq, "type": kind, **payload}))
            db.add(Event(session_id=session_id, seq=session.last_seq, type=kind, data=told["data"]))
            if state.commits_each:
                await db.commit()
            for queue in state.listeners.get(session_id, ()):
                queue.put_nowait(told)
            return told

        yield await tell("turn_started")
        async for piece in _ask(state.provider, messages):
            text += piece
            yield await tell("text_delta", delta=piece)
        db.add(Message(session_id=session_id, role="assistant", content=text))
        session.updated_at = clock.now()
        last = await tell("turn_completed", text=text)
        await db.commit()
        yield last


async def _ask(provider: httpx2.AsyncClient, messages: list[dict[str, str]]) -> AsyncIterator[str]:
    body = {"model": "double", "stream": True, "messages": messages}
    async with provider.stream("POST", "/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
            if delta.get("content"):
                yield delta["content"]


async def _session(db: AsyncSession, session_id: uuid.UUID) -> Session:
    session = await db.get(Session, session_id)
    if session is None:
        raise HTTPException(404)
    return session


def _frame(seq: int, kind: str, payload: str) -> Frame:
    return {"id": str(seq), "event": kind, "data": payload}


def _out(session: Session) -> SessionOut:
    return SessionOut(
        session_id=session.id,
        title=session.title,
        model=session.model,
        last_seq=session.last_seq,
        updated_at=session.updated_at,
    )


if __name__ == "__main__":
    serve(make_app)
