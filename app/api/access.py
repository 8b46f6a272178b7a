"""Who may what: the one table from route and method to what a credential must allow, and the check of it before anything else.

The OpenAPI document is made from the same table, so that it cannot say otherwise.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qs

from fastapi import Request

from app.credentials.caller import NOBODY, SCOPES, Caller, Scope
from app.credentials.gate import Gate
from app.errors import Forbidden
from app.limits.quotas import Quotas
from app.limits.rates import Limiter


@dataclass(frozen=True, slots=True)
class Guards:
    """What stands before the routes: who asks, how often they may, and how much they may have."""

    gate: Gate
    limiter: Limiter
    quotas: Quotas


Need: TypeAlias = Scope | Literal["nothing", "operator"]
"""`nothing` is open to all; `operator` is an admin of the realm `default`, for what concerns the whole service."""

_OPEN: Final = frozenset({"/livez", "/readyz"})
_OPERATOR: Final = ("/metrics", "/v1/nodes")
_ADMIN: Final = ("/v1/keys", "/v1/audit", "/v1/webhooks")
_ADMIN_CHANGES: Final = ("/v1/realm",)
_READING: Final = frozenset({"GET", "HEAD"})
_TICKETS: Final = "/stream-tickets"  # asked for with a POST, by who may read
_STREAMS: Final = "/events"


def needed(route: str, method: str) -> Need:
    """Return what a credential must allow for a route, given as its template."""
    if route in _OPEN:
        return "nothing"
    if route.startswith(_OPERATOR):
        return "operator"
    if route.startswith(_ADMIN) or (route.startswith(_ADMIN_CHANGES) and method not in _READING):
        return "admin"
    return "read" if method in _READING or route.endswith(_TICKETS) else "write"


def takes_ticket(route: str, method: str) -> bool:
    """Tell whether a route may be asked with a ticket in the query instead of a credential in a header."""
    return route.endswith(_STREAMS) and method in _READING


async def admit(request: Request) -> None:
    """Find out who asks, and refuse what its credential does not allow; later steps find the caller in the request's state.

    Raises:
        Unauthenticated, Forbidden, StoreUnavailable: as `Gate`.
        RateLimited: as `Limiter`.
    """
    guards: Guards = request.app.state.guards
    route, method = request.scope["route"].path, request.method
    need = needed(route, method)
    request.state.caller = caller = NOBODY if need == "nothing" else await _caller(request, guards.gate, route)
    if caller.is_known:
        standing = await guards.limiter.take(caller)
        request.state.headers = {} if standing is None else standing.headers
    if need == "operator" and not caller.is_operator:
        raise Forbidden("This is for the operator: an admin of the realm default.")
    if need in SCOPES:
        caller.check(need)


async def _caller(request: Request, gate: Gate, route: str) -> Caller:
    authorization = request.headers.get("authorization")
    if authorization is None and takes_ticket(route, request.method):
        tickets = parse_qs(request.scope["query_string"].decode("latin-1")).get("ticket")
        if tickets:
            return await gate.ticket(tickets[0], request.path_params["session_id"])
    return await gate.bearer(authorization)
