"""What routes are given: the house's rooms, and the caller's words read strictly."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import structlog
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from app import audit
from app.agent.loop import Limits
from app.api import front, problems, strict_json
from app.api.defaults import Defaults
from app.audit import Act
from app.credentials.caller import OPEN, Caller
from app.credentials.gate import Gate
from app.db.engine import Connection
from app.errors import BodyTooLarge, InvalidCursor, InvalidRequest, RequestTimeout, UnsupportedMediaType
from app.hooks.registry import Registry as Hooks
from app.idempotency import Request as KeyedRequest
from app.journal.journal import Journal, Transaction
from app.limits.quotas import Quotas
from app.outbound.door import Door, OutboundError
from app.providers import models
from app.providers.vendors import Vendors
from app.realms import Config
from app.seals import Seals
from app.sessions import Options
from app.tools.registry import Registry
from app.turns.claims import Claimant

_Model = TypeVar("_Model", bound=BaseModel)
_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")
_WAIT = re.compile(r"wait=(\d{1,6})\Z")
_CURSOR = re.compile(r"[0-9]{1,18}\Z")


@dataclass(frozen=True, slots=True)
class House:
    """The rooms and values that routes work with; built in `main`.

    Args:
        seals: what secrets of realms are sealed with.
        outside: the way to URLs that callers name.
    """

    journal: Journal
    claimant: Claimant
    vendors: Vendors
    seals: Seals
    outside: Door
    tools: Registry
    hooks: Hooks
    default_model: str
    max_body_bytes: int
    max_wait_seconds: float
    sse_ping_seconds: float
    pool_size: int
    limits: Limits
    is_ready: Callable[[], Mapping[str, bool]]
    """What `/readyz` tells: each thing that must be so, and whether it is."""
    gate: Gate
    quotas: Quotas
    caller: Caller = OPEN
    """Who asks; each request has a house of its own."""
    act: Act | None = None
    """What the request does, for the audit trail; None where it only reads."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction of the ledger in the caller's realm; what it does goes on the realm's audit trail with it."""
        async with self.journal.transaction(self.caller.realm, credential=self.caller.credential) as tx:
            yield tx
            if self.act is not None and not tx.is_repeat:
                await audit.record(tx.db, replace(self.act, target=_made(tx) | dict(self.act.target)))

    async def check_session(self, tx: Transaction) -> None:
        """Refuse one more session of a realm that has as many, or as much, as it may.

        Raises:
            CapacityExceeded: it has.
        """
        if self.caller.is_known:
            await self.quotas.check_session(tx.db)

    async def check_turn(self, tx: Transaction) -> None:
        """Refuse one more turn of a realm that has as many live ones, or stores as much, as it may.

        Raises:
            CapacityExceeded: it has.
        """
        if self.caller.is_known:
            await self.quotas.check_turn(tx.db)

    def check_stream(self) -> None:
        """Refuse one more stream of a realm that has as many open as it may.

        Raises:
            CapacityExceeded: it has.
        """
        if self.caller.is_known:
            self.quotas.check_stream(self.caller)

    def within(self, realm: str) -> "House":
        """Return the house as the caller has it in another realm."""
        return replace(self, caller=replace(self.caller, realm=realm))

    def reading(self) -> AbstractAsyncContextManager[Connection]:
        """Open a transaction in the caller's realm that appends nothing."""
        return self.journal.database.transaction(self.caller.realm)

    def defaults(self, config: Config) -> Defaults:
        """Return what holds in a realm where a session says nothing."""
        return Defaults(config, self.vendors.of(config.brought), self.default_model, self.tools, self.hooks)

    async def url_fault(self, url: str, loc: str) -> InvalidRequest | None:
        """Return why a URL that a caller names may not be reached, to be raised; whoever calls it later checks again."""
        try:
            await self.outside.check(url)
        except OutboundError as error:
            return InvalidRequest.at(loc, str(error))
        return None

    def context_tokens(self, options: Options) -> int:
        """Return how much a session's model reads at most."""
        return models.context_tokens(options.provider, options.model, unknown=self.limits.unknown_context_tokens)


def house(request: Request) -> House:
    """Return the house that this app was built with."""
    found: House = request.app.state.house
    return found


def _made(tx: Transaction) -> dict[str, str]:
    """Return the ids of what a transaction has written to first: of the session and the turn that it made, say."""
    entries = [appended.entry for appended in tx.appended]
    sessions = [entry.session_id for entry in entries]
    turns = [entry.turn_id for entry in entries if entry.turn_id is not None]
    return {name: found[0] for name, found in (("session_id", sessions), ("turn_id", turns)) if found}


async def _house(request: Request) -> House:
    caller: Caller = request.state.caller
    return replace(house(request), caller=caller, act=_act(request, caller))


def _act(request: Request, caller: Caller) -> Act | None:
    if request.method in {"GET", "HEAD"}:
        return None
    action = f"{request.method} {request.scope['route'].path}"
    return Act(
        caller.credential, action, front.ids_of(request.scope), structlog.contextvars.get_contextvars().get("request_id")
    )


Rooms = Annotated[House, Depends(_house)]  # a coroutine, because FastAPI sends plain functions to a thread


async def read_json(request: Request, limit: int) -> Any:
    """Read a request's body as strict JSON; without one it is `{}`.

    Raises:
        BodyTooLarge: it is over the limit; the rest is not read.
        UnsupportedMediaType: it is not `application/json` in UTF-8, or is compressed.
        MalformedJson: as `strict_json.parse`.
    """
    data = await _body(request, limit)
    if not data:
        return {}
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if kind.strip().lower() != "application/json" or charset not in {"", "utf-8", "utf8"}:
        raise UnsupportedMediaType("Send the body as application/json in UTF-8.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body uncompressed.")
    return strict_json.parse(data)


async def _body(request: Request, limit: int) -> bytes:
    too_large = BodyTooLarge(f"The body is over {limit} bytes.")
    if int(request.headers.get("content-length", "0")) > limit:
        raise too_large
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                raise too_large
    except ClientDisconnect as error:
        raise RequestTimeout("The request did not come whole.") from error
    return bytes(data)


def body(model: type[_Model]) -> Callable[[Request], Awaitable[_Model]]:
    """Make the dependency that reads a body as a model, strictly."""

    async def read(request: Request) -> _Model:
        return validated(model, await read_json(request, house(request).max_body_bytes))

    return read


def validated(model: type[_Model], value: Any) -> _Model:
    """Read a parsed value as a model.

    Raises:
        InvalidRequest: it breaks the schema; each place is named, no value is.
    """
    try:
        return model.model_validate(value, strict=True)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequest("The request is not valid.", errors=problems.as_errors(faults)) from error


class Query:
    """A request's query, read strictly: unknown and repeated names are refused, empty ones count as absent."""

    def __init__(self, request: Request, *known: str, repeatable: frozenset[str] = frozenset()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in _pairs(request.scope["query_string"]):
            if name not in known:
                raise InvalidRequest.at(f"query.{name[:64]}", f"Unknown parameter; known are: {', '.join(known)}.")
            if value:
                self._values.setdefault(name, []).append(value)
        for name, values in self._values.items():
            if len(values) > 1 and name not in repeatable:
                raise InvalidRequest.at(f"query.{name}", "Give this parameter once.")

    def text(self, name: str) -> str | None:
        """Return a parameter, or None."""
        return self._values.get(name, [None])[0]

    def texts(self, name: str) -> list[str]:
        """Return all values of a repeatable parameter."""
        return self._values.get(name, [])

    def integer(self, name: str, default: int, *, most: int) -> int:
        """Return a whole number from 0 to `most`."""
        text = self.text(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) > most:  # noqa: PLR2004
            raise InvalidRequest.at(f"query.{name}", f"A whole number from 0 to {most}.")
        return int(text)

    def choice(self, name: str, *choices: str) -> str | None:
        """Return one of a few words, or None."""
        text = self.text(name)
        if text is not None and text not in choices:
            raise InvalidRequest.at(f"query.{name}", f"One of: {', '.join(choices)}.")
        return text

    def cursor(self, name: str) -> int:
        """Return an event or message number to read from behind; absent is 0."""
        return read_cursor(self.text(name) or "0")


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise InvalidRequest.at("query", "Not percent-encoded UTF-8.") from error


def read_cursor(text: str) -> int:
    """Read an event cursor.

    Raises:
        InvalidCursor: it is not 1 to 18 decimal digits.
    """
    if not _CURSOR.match(text):
        raise InvalidCursor("A cursor is the number of an event: 1 to 18 decimal digits.")
    return int(text)


def keyed(request: Request, value: BaseModel) -> KeyedRequest | None:
    """Return what is needed to answer a repeat of this POST; None where the caller sent no key.

    Raises:
        InvalidRequest: the key is not 1 to 255 visible ASCII characters.
    """
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.match(keys[0]):
        raise InvalidRequest.at("header.Idempotency-Key", "One key of 1 to 255 visible ASCII characters.")
    return KeyedRequest.of(request.url.path, keys[0], value.model_dump(mode="json", exclude_unset=True))


@dataclass(frozen=True, slots=True)
class Manner:
    """How the caller wants a turn answered.

    Args:
        is_stream: the turn's events as SSE.
        wait_seconds: how long to wait for the end; 0 answers at once.
        applied: what of `Prefer` is honoured, for `Preference-Applied`; None where it did not come.
    """

    is_stream: bool
    wait_seconds: float
    applied: str | None

    def at_once(self) -> "Manner":
        """Return this manner without any waiting."""
        return replace(self, wait_seconds=0)


def manner(request: Request) -> Manner:
    """Read how a turn is asked for from `Accept` and `Prefer`.

    Raises:
        InvalidRequest: `wait` is not a whole number of seconds.
    """
    longest = house(request).max_wait_seconds
    if "text/event-stream" in request.headers.get("accept", ""):
        return Manner(is_stream=True, wait_seconds=0, applied=None)
    wanted = [item.strip().lower() for line in request.headers.getlist("prefer") for item in line.split(",")]
    waits = [item.replace(" ", "") for item in wanted if item.replace(" ", "").startswith("wait")]
    if waits:
        match = _WAIT.match(waits[0])
        if match is None:
            raise InvalidRequest.at("header.Prefer", "wait is a whole number of seconds, e.g. wait=10.")
        seconds = min(int(match[1]), longest)
        return Manner(is_stream=False, wait_seconds=seconds, applied=f"wait={seconds:g}")
    if "respond-async" in wanted:
        return Manner(is_stream=False, wait_seconds=0, applied="respond-async")
    return Manner(is_stream=False, wait_seconds=longest, applied=None)
