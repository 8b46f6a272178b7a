"""The right to run a turn: granted with a fence, kept by renewing, judged by the database's clock.

A claim adds one to the session's fence; every write under it names that number. A lease that ran out is no harm in itself:
it only lets another node claim, and from then on the old fence writes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app import clock, nodes, sessions
from app.agent.budget import Used
from app.db.engine import Connection, Row
from app.errors import AgentError
from app.messages import NO_USAGE, Message, Usage
from app.nodes import Node
from app.sessions import Options, Session
from app.turns.turn import Turn


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt's right to a turn, and where the attempts before it have got to.

    Args:
        options: what holds for this turn.
        claimed_at: the node's monotonic clock before the database granted the lease.
        history: the whole transcript where it is at hand, as with a session's first turn; None must be read.
        session_used, turn_used: what budgets count, before this attempt.
        summed_up_to: the session's, when the claim was made.
        has_open_step: whether an attempt before this one has left a step whose calls are to be looked at.
        brings_providers: whether the realm has keys or URLs of vendors of its own.
    """

    realm: str
    session_id: str
    turn_id: str
    fence: int
    attempt: int
    options: Options
    claimed_at: float
    steps: int = 0
    tool_calls: int = 0
    usage: Usage = NO_USAGE
    text: str = ""
    history: Sequence[Message] | None = None
    has_open_step: bool = False
    summed_up_to: int = 0
    session_used: Used = field(default_factory=Used)
    turn_used: Used = field(default_factory=Used)
    brings_providers: bool = False


class Claimant(Protocol):
    """A node, as far as acts that hand out claims know it."""

    @property
    def node_id(self) -> str:
        """Who owns the claim."""

    @property
    def lease_seconds(self) -> float:
        """How long a claim lasts without renewal."""

    def has_room(self) -> bool:
        """Tell whether one more turn may be claimed now."""

    def take(self, claim: Claim) -> None:
        """Begin the attempt; called after the commit that granted the claim."""

    def gave_up(self, session: Session, live: Turn, error: AgentError) -> None:
        """Let know whom failures concern; called after the commit that ended a turn without an attempt."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The columns of a claim that is being made: this node's, or nobody's where it has no room."""

    owner: str | None
    lease_seconds: float
    claimed_at: float

    @classmethod
    def by(cls, claimant: Claimant) -> "Grant":
        """Ask a node whether it takes one more."""
        owner = claimant.node_id if claimant.has_room() else None
        return cls(owner, claimant.lease_seconds if owner else 0.0, clock.monotonic())


def claim_of(session: Session, live: Turn, grant: Grant, *, attempt: int) -> Claim:
    """Make the claim of a turn that goes on where an earlier attempt has left it."""
    return Claim(
        realm=session.realm,
        session_id=session.id,
        turn_id=live.id,
        fence=session.fence + 1,
        attempt=attempt,
        options=sessions.with_overrides(session.options, live.overrides),
        claimed_at=grant.claimed_at,
        steps=live.steps,
        tool_calls=live.tool_calls,
        usage=live.usage,
        text=live.text or "",
        has_open_step=live.attempt > 0,
        summed_up_to=session.summed_up_to,
        session_used=session_used(session),
        turn_used=Used(live.spent_tokens, live.running_ms / 1000, live.tool_calls),
        brings_providers=session.brings_providers,
    )


def session_used(session: Session) -> Used:
    """Return what a session's budgets have counted so far."""
    return Used(session.spent_tokens, session.running_ms / 1000, session.tool_call_count)


LEASE_UNTIL = "clock_timestamp() + make_interval(secs => {})"


_HELD = """
SELECT t.session_id, t.id FROM turns t JOIN unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS c(session_id, id, fence)
  ON t.session_id = c.session_id AND t.id = c.id
WHERE t.fence = c.fence AND t.owner = $4 AND t.status IN ('running', 'waiting')
"""
_LOCKED = f"locked AS ({_HELD} FOR NO KEY UPDATE OF t SKIP LOCKED)"
"""Those of the turns whose rows no other transaction holds: to wait for one would let the leases of all run out."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a node learns when it renews.

    Args:
        held: the ids of the turns that it holds still; of the others the attempt must stop.
        renewed: those of them whose leases are new; another transaction had the others, which is to be tried again soon.
        is_draining: whether its row says that it is to drain.
    """

    held: frozenset[str]
    renewed: frozenset[str]
    is_draining: bool


async def renew(db: Connection, node: Node, claims: Sequence[Claim], *, is_stopping: bool = False) -> Renewal:
    """Renew a node's leases and its own row, all in one statement.

    Args:
        is_stopping: whether the node is about to leave; its row says then that it drains.
    """
    row: Row = await db.fetchrow(
        f"""WITH held AS ({_HELD}), {_LOCKED}, renewed AS (
              UPDATE turns t SET lease_expires_at = {LEASE_UNTIL.format("$5::float8")} FROM locked l
              WHERE t.session_id = l.session_id AND t.id = l.id RETURNING t.id
            ), seen AS ({nodes.SEEN.format(lease_until=LEASE_UNTIL.format("$5::float8"))})
            SELECT is_draining, ARRAY(SELECT id FROM held) AS held, ARRAY(SELECT id FROM renewed) AS renewed FROM seen""",
        *_columns(claims),
        *node.columns,
        is_stopping,
    )
    return Renewal(frozenset(map(str, row["held"])), frozenset(map(str, row["renewed"])), row["is_draining"])


async def is_in_force(db: Connection, claim: Claim) -> bool:
    """Tell whether nobody has taken the session's fence since the claim."""
    return bool(await db.fetchval("SELECT fence = $2 FROM sessions WHERE id = $1", claim.session_id, claim.fence))


async def release(db: Connection, node_id: str, claims: Sequence[Claim]) -> None:
    """Give turns back unfinished, so that any node may go on at once; what another transaction holds runs out."""
    await db.execute(
        f"""WITH {_LOCKED} UPDATE turns t SET owner = NULL, lease_expires_at = clock_timestamp() FROM locked l
            WHERE t.session_id = l.session_id AND t.id = l.id""",
        *_columns(claims),
        node_id,
    )


async def expire_all(db: Connection) -> None:
    """Let every lease run out now: for a database that only this process can reach, where no other holder can be alive."""
    await nodes.forget_all(db)
    await db.execute("UPDATE turns SET lease_expires_at = clock_timestamp() WHERE status IN ('running', 'waiting')")


async def due(db: Connection, limit: int) -> list[tuple[str, str]]:
    """Return realms and ids of sessions whose live turn nobody holds, oldest lease first."""
    rows = await db.fetch(
        """SELECT realm_id, session_id FROM turns WHERE status = 'running' AND lease_expires_at <= clock_timestamp()
           ORDER BY lease_expires_at LIMIT $1""",
        limit,
    )
    return [(row["realm_id"], str(row["session_id"])) for row in rows]


def _columns(claims: Sequence[Claim]) -> tuple[list[str], list[str], list[int]]:
    return (
        [claim.session_id for claim in claims],
        [claim.turn_id for claim in claims],
        [claim.fence for claim in claims],
    )
