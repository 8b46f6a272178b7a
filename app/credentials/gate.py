"""Who a request's credential speaks for, and the end of streams whose credential has lapsed.

What was found is believed for some seconds, so that a busy key costs no question each time; a revoked one is refused after
them. Streams are looked after in one place: a question for all of them, every few seconds.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

import structlog

from app import clock
from app.cache import TtlCache
from app.credentials import keys, tickets
from app.credentials.caller import OPEN, Caller
from app.credentials.keys import hashed
from app.credentials.tokens import Tokens
from app.db.engine import EVERY_REALM, Connection, Database
from app.errors import Forbidden, StoreUnavailable, Unauthenticated

BELIEVED_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 5.0  # between two looks at the credentials of open streams; a lapse shows within twice that

Mode: TypeAlias = Literal["auto", "required", "off"]
"""Whether credentials are asked for: `auto` does where a token's issuer is configured or a key was ever made."""

log = structlog.get_logger()


class Gate:
    """Tells who asks.

    Args:
        tokens: those of the configured issuer; None where there is none.
    """

    def __init__(self, database: Database, mode: Mode, tokens: Tokens | None) -> None:
        self._database = database
        self._mode = mode
        self._tokens = tokens
        self._is_required = mode == "required" or (mode == "auto" and tokens is not None)
        self._asked_at: float | None = None
        self._believed: TtlCache[bytes, Caller] = TtlCache(BELIEVED_SECONDS)
        self._streams: dict[Caller, set[Callable[[], None]]] = defaultdict(set)

    async def is_required(self) -> bool:
        """Tell whether a caller needs a credential.

        Raises:
            StoreUnavailable: it could not be found out.
        """
        if self._mode == "off" or self._is_required:
            return self._is_required
        if self._asked_at is None or clock.monotonic() - self._asked_at > BELIEVED_SECONDS:
            async with self._database.transaction(EVERY_REALM) as db:
                self._is_required = await keys.exist(db)
            self._asked_at = clock.monotonic()
        return self._is_required

    async def bearer(self, authorization: str | None) -> Caller:
        """Return whom an `Authorization` header speaks for; everyone, where none is needed.

        Raises:
            Unauthenticated: there is none, or it is not good.
            StoreUnavailable: it could not be found out.
        """
        if not await self.is_required():
            return OPEN
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthenticated("Send a credential: Authorization: Bearer <API key or token>.")
        return await self._known(secret.strip(), self._of_secret)

    async def ticket(self, ticket: str, session_id: str) -> Caller:
        """Return whom a ticket speaks for that is shown for a session's events.

        Raises:
            Unauthenticated: it is not good.
            Forbidden: it is for another session.
            StoreUnavailable: it could not be found out.
        """
        if not await self.is_required():
            return OPEN
        if keys.is_key(ticket):
            raise Unauthenticated("An API key does not belong into a URL; ask for a ticket: POST …/stream-tickets.")
        caller = await self._known(ticket, self._of_ticket)
        if caller.session_id != session_id:
            raise Forbidden("This ticket is for another session.")
        return caller

    def forget(self) -> None:
        """Believe nothing that was found out: a credential has just been ended."""
        self._believed.clear()

    @contextmanager
    def streaming(self, caller: Caller, end: Callable[[], None]) -> Iterator[None]:
        """Have a stream ended when its caller's credential lapses while the block runs."""
        ends = self._streams[caller]
        ends.add(end)
        try:
            yield
        finally:
            ends.discard(end)
            if not ends and self._streams.get(caller) is ends:
                del self._streams[caller]

    async def watch(self) -> None:
        """End streams of credentials that have lapsed, for as long as the process lives."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except StoreUnavailable:
                continue

    async def _look(self) -> None:
        now, streaming = clock.now(), list(self._streams)
        by_key = [caller.credential.removeprefix("key:") for caller in streaming if caller.credential.startswith("key:")]
        good: set[str] = set()
        if by_key:
            async with self._database.transaction(EVERY_REALM) as db:
                good = await keys.good(db, by_key)
        for caller in streaming:
            is_revoked = caller.credential.startswith("key:") and caller.credential.removeprefix("key:") not in good
            if is_revoked or (caller.expires_at is not None and caller.expires_at <= now):
                ends = self._streams.get(caller, set())
                self.forget()
                log.info("credential_lapsed", credential=caller.credential, streams=len(ends))
                for end in list(ends):
                    end()

    async def _known(self, secret: str, ask: Callable[[str], Awaitable[Caller | None]]) -> Caller:
        if not secret.isascii():
            raise Unauthenticated("The credential is not good.")
        place, now = hashed(secret), clock.monotonic()
        caller = self._believed.get(place)
        if caller is None:
            caller = await ask(secret)
            if caller is not None:
                self._believed.put(place, caller, found_at=now)
        if caller is None or (caller.expires_at is not None and caller.expires_at <= clock.now()):
            raise Unauthenticated("The credential is not good, or not any more.")
        return caller

    async def _of_secret(self, secret: str) -> Caller | None:
        if keys.is_key(secret):
            return await self._asked(secret, keys.bearer)
        return None if self._tokens is None else await self._tokens.bearer(secret)

    async def _of_ticket(self, ticket: str) -> Caller | None:
        return await self._asked(ticket, tickets.bearer)

    async def _asked(self, secret: str, ask: Callable[[Connection, str], Awaitable[Caller | None]]) -> Caller | None:
        async with self._database.transaction(EVERY_REALM) as db:
            return await ask(db, secret)
