"""The one clock: wall time for what people read, monotonic time for how long things take.

Expiry of leases and keys is never judged here: the database's clock does that (docs/architecture.md, invariant 8).
"""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Return the wall time as an aware UTC datetime."""
    return datetime.now(UTC)  # noqa: TID251 - this is the clock


def monotonic() -> float:
    """Return seconds on a clock that never goes back; only differences mean anything."""
    return time.monotonic()  # noqa: TID251 - this is the clock


def rfc3339(moment: datetime) -> str:
    """Write an aware UTC datetime as the wire does: milliseconds and `Z`."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def epoch_milliseconds() -> int:
    """Return milliseconds since 1970, as UUIDv7 begins with them."""
    return time.time_ns() // 1_000_000
