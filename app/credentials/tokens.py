"""Tokens of an issuer that is trusted: signed JWTs, checked with its published keys, for one audience, under pinned algorithms.

Which keys those are is asked of the issuer when one is not known, and seldom, so that made-up key names make no traffic.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import jwt
import orjson
import structlog

from app import clock
from app.credentials.caller import Caller, highest
from app.db.walls import REALM_ID
from app.errors import Unauthenticated

REFRESH_SECONDS: Final = 300.0  # how old the issuer's keys may be
AGAIN_SECONDS: Final = 10.0  # between two questions for a key that is not known
LEEWAY_SECONDS: Final = 30.0  # between the issuer's clock and ours
SUBJECT_CHARACTERS: Final = 100

Fetch: TypeAlias = Callable[[str], Awaitable[bytes]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens are good.

    Args:
        name: what `iss` says.
        audience: what `aud` holds.
        jwks_url: where its keys are.
        algorithms: those that a signature may be of; asymmetric ones alone.
        realm_claim, scopes_claim: the claims that name the realm, and what the bearer may.
    """

    name: str
    audience: str
    jwks_url: str
    algorithms: Sequence[str]
    realm_claim: str
    scopes_claim: str


class Tokens:
    """Checks an issuer's tokens.

    Args:
        fetch: gets what stands behind a URL.
    """

    def __init__(self, issuer: Issuer, fetch: Fetch) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._keys: dict[str | None, Any] = {}
        self._asked_at: float | None = None
        self._lock = asyncio.Lock()

    async def bearer(self, token: str) -> Caller:
        """Return whom a token speaks for.

        Raises:
            Unauthenticated: it is not a good token of this issuer, or names no realm or no scope.
        """
        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=list(self._issuer.algorithms),
                audience=self._issuer.audience,
                issuer=self._issuer.name,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise Unauthenticated("The token is not good.") from error
        return self._caller(claims)

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        realm, given = claims.get(self._issuer.realm_claim), claims.get(self._issuer.scopes_claim)
        if not isinstance(realm, str) or not REALM_ID.match(realm):
            raise Unauthenticated(f"The token's claim {self._issuer.realm_claim} names no realm.")
        scope = highest(given.split() if isinstance(given, str) else given)
        if scope is None:
            raise Unauthenticated(f"The token's claim {self._issuer.scopes_claim} holds none of: read, write, admin.")
        expires_at = datetime.fromtimestamp(claims["exp"] + LEEWAY_SECONDS, UTC)
        return Caller(realm, f"jwt:{str(claims['sub'])[:SUBJECT_CHARACTERS]}", scope, expires_at)

    async def _key(self, key_id: str | None) -> Any:
        async with self._lock:
            age = None if self._asked_at is None else clock.monotonic() - self._asked_at
            if age is None or age > REFRESH_SECONDS or (key_id not in self._keys and age > AGAIN_SECONDS):
                await self._ask()
        if key_id in self._keys:
            return self._keys[key_id]
        raise Unauthenticated("The token is signed with a key that its issuer does not name.")

    async def _ask(self) -> None:
        """Get the issuer's keys; where that fails, those that are known go on to hold."""
        self._asked_at = clock.monotonic()
        try:
            published = jwt.PyJWKSet.from_dict(orjson.loads(await self._fetch(self._issuer.jwks_url)))
        except Exception as error:  # noqa: BLE001 - whatever an issuer sends must not take the service down
            log.warning("jwks_not_read", error=type(error).__name__)
            return
        self._keys = {key.key_id: key for key in published.keys if key.public_key_use in {None, "sig"}}
