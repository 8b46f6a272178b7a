"""Who asks: the realm that a request acts in, the credential that it came with, and what that one may."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from app.errors import Forbidden
from app.sessions import DEFAULT_REALM

Scope: TypeAlias = Literal["read", "write", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("read", "write", "admin")
"""From the least to the most; one that is held holds those before it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        credential: what the audit trail and the ledger call it: `key:<id>`, `jwt:<subject>`, or `open` without one.
        scope: the most that it may.
        expires_at: when it ends by itself; None: never.
        session_id: the one session that it is for; None: all of the realm.
    """

    realm: str
    credential: str
    scope: Scope
    expires_at: datetime | None = None
    session_id: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether it came with a credential; who did is held to limits."""
        return self not in {OPEN, NOBODY}

    @property
    def is_operator(self) -> bool:
        """Whether it speaks for the whole service: an admin of the operator's own realm."""
        return self.realm == DEFAULT_REALM and self.scope == "admin"

    def check(self, needed: Scope) -> None:
        """Refuse what the credential does not allow.

        Raises:
            Forbidden: it has not that scope.
        """
        if SCOPES.index(self.scope) < SCOPES.index(needed):
            raise Forbidden(f"This credential has the scope {self.scope}; this needs {needed}.")


OPEN: Final = Caller(DEFAULT_REALM, "open", "admin")
"""Everyone, where no credentials are asked for."""


NOBODY: Final = Caller(DEFAULT_REALM, "none", "read")
"""Who asks where nothing of a realm is told: for the health of the process."""


def highest(scopes: object) -> Scope | None:
    """Return the most of a credential's scopes; None where there is none that is known."""
    known = [scope for scope in SCOPES if isinstance(scopes, list | tuple | set | frozenset) and scope in scopes]
    return known[-1] if known else None
