"""Reads as clients do them: what is shown never goes back behind what was shown before, and pages have no holes."""

from collections.abc import Sequence
from typing import Any

from tests.torture.caller import Act, Json, wrong
from tests.torture.pool import Known

JSON = {"accept": "application/json"}
MOST_LISTED = 200


def session(known: Known) -> Act:
    """Read a session."""
    floor = known.seen_seq

    def read(_status: int, view: Any) -> Json:
        state = view["state"]
        active = state["status"] in {"running", "waiting"}
        known.is_archived = state["archived_at"] is not None
        claims = wrong(
            went_back=state["last_seq"] < floor,
            another=state["session_id"] != known.id,
            status_of_another_kind=active != state["is_active"] or active != (state["current_turn_id"] is not None),
        )
        return {"last_seq": state["last_seq"], **claims}

    return Act("read", "GET", known.path, known=known, read=read)


def listed(query: str, limit: int) -> Act:
    """List sessions that are not archived."""

    def read(_status: int, page: Any) -> Json:
        found = page["sessions"]
        ids = [one["session_id"] for one in found]
        return wrong(
            too_many=len(found) > limit,
            twice=len(set(ids)) < len(ids),
            archived=any(one["archived_at"] is not None for one in found),
        )

    return Act("list", "GET", f"/v1/sessions?limit={limit}&{query}", read=read)


def messages(known: Known) -> Act:
    """Read the first page of a history."""

    def read(_status: int, page: Any) -> Json:
        return wrong(holes=not _is_run([one["ordinal"] for one in page["messages"]], 0))

    return Act("messages", "GET", f"{known.path}/messages?limit=50", known=known, read=read)


def events(known: Known, after: int) -> Act:
    """Read a page of a log."""
    floor = known.seen_seq

    def read(_status: int, page: Any) -> Json:
        numbers = [one["seq"] for one in page["events"]]
        claims = wrong(
            holes=not _is_run(numbers, after),
            went_back=page["last_seq"] < floor,
            empty_before_the_head=not numbers and after < page["last_seq"],
            another_next=page["next_after"] != (numbers[-1] if numbers else after),
        )
        return {"last_seq": page["last_seq"], **claims}

    return Act("events", "GET", f"{known.path}/events?after={after}&limit=100", headers=JSON, known=known, read=read)


def turns(known: Known, query: str = "") -> Act:
    """List turns."""

    def read(_status: int, page: Any) -> Json:
        numbers = [one["number"] for one in page["turns"]]
        return wrong(out_of_order=numbers != sorted(set(numbers)))

    return Act("turns", "GET", f"{known.path}/turns?{query}", known=known, read=read)


def export(known: Known) -> Act:
    """Read a whole session as a document."""

    def read(_status: int, document: Any) -> Json:
        return wrong(another=document["session"]["session_id"] != known.id)

    return Act("export", "GET", f"{known.path}/export", known=known, read=read)


def _is_run(numbers: Sequence[int], after: int) -> bool:
    return list(numbers) == list(range(after + 1, after + 1 + len(numbers)))
