"""The acts of the contract as clients do them, and what each answer must say.

Facts that the checker reads: `turn_status` (of the turn that is named), `last_seq` (the log has reached), `title` and
`archived_at` (set), `results` (call id → content), `decision` and `call`, `mode` (of an interrupt), `replaces` (the prompt of a
queued turn), `source` (of a fork), `base_usage` (of an import), `frames` ([seq, sum] that a stream showed).
"""

from typing import Any

from tests.torture.caller import Act, Json, Read, terminal, wrong
from tests.torture.frames import Frames, checksum
from tests.torture.plan import SCHEMA, Plan
from tests.torture.pool import Known

STREAM = {"accept": "text/event-stream"}


def create(key: str | None, plan: Plan | None, *, is_kept: bool = False) -> Act:
    """Open a session: empty, with words that are kept for its first turn, or with that turn."""
    body: Json = {
        "model": "double",
        "provider": "openai_compatible",
        "labels": {"made": key or "once"},
        "system_prompt": "You are tortured.",
        "external_tools": [{"name": "ask", "description": "Asks the caller.", "input_schema": SCHEMA}],
        "approval_tools": ["guarded"],
    }
    headers = {"prefer": "respond-async"}
    if plan is not None:
        body["prompt"] = plan.prompt
    elif is_kept:
        body |= {"prompt": "These words are kept.", "initial_turn": "defer"}

    def read(_status: int, view: Any) -> Json:
        turn, session = view["turn"], view["session"]["state"]
        claims = wrong(no_turn=(turn is None) != (plan is None), another_session=session["session_id"] != view["session_id"])
        return {"session_id": view["session_id"], **(_turn_facts(turn) if turn else {}), **claims}

    return Act("create", "POST", "/v1/sessions", body, headers, key, plan=plan.id if plan else None, read=read)


def start(known: Known, key: str | None, plan: Plan, on_busy: str, way: str) -> Act:
    """Start a turn; `way` is `plain`, `async`, `wait` or `stream`."""
    refusals = frozenset({"SESSION_ARCHIVED"} | ({"SESSION_BUSY"} if on_busy == "reject" else set()))
    common: Json = {
        "name": "start_turn", "method": "POST", "path": f"{known.path}/turns", "key": key, "known": known,
        "plan": plan.id, "refusals": refusals, "body": {"prompt": plan.prompt, "on_busy": on_busy},
        "facts": {"on_busy": on_busy, "way": way},
    }  # fmt: skip
    if way == "stream":
        return _streamed(known, common)
    prefer = {"async": {"prefer": "respond-async"}, "wait": {"prefer": "wait=1"}, "plain": {}}[way]
    return Act(**common, headers=prefer, read=_reads_turn(known))


def _streamed(known: Known, common: Json) -> Act:
    shown: list[tuple[int, int]] = []
    kinds: list[bytes] = []

    def take(seq: int, kind: bytes, envelope: bytes) -> None:
        shown.append((seq, checksum(envelope)))
        kinds.append(kind)

    frames = Frames(take)

    def read(_status: int, _body: Any) -> Json:
        numbers = [seq for seq, _ in shown]
        claims = wrong(malformed=frames.is_malformed, out_of_order=numbers != sorted(set(numbers)))
        return {"frames": shown, "said": frames.said, "last": kinds[-1].decode() if kinds else None, **claims}

    return Act(**common, headers=STREAM, sink=frames, read=read, read_again=_reads_turn(known))


def interrupt(known: Known, key: str | None, mode: str) -> Act:
    """Stop the live turn."""

    def read(status: int, view: Any) -> Json:
        return _turn_facts(view) | wrong(live=status == 200 and not terminal(view), late=status == 202 and mode == "now")

    refusals = frozenset({"SESSION_NOT_RUNNING"})
    return _post(known, "interrupt", "interrupt", key, body={"mode": mode}, read=read, refusals=refusals, facts={"mode": mode})


def answer(known: Known, key: str | None, contents: dict[str, str]) -> Act:
    """Give results of calls that the caller runs."""

    def read(_status: int, view: Any) -> Json:
        left = {call["id"] for call in view["pending_tool_calls"]}
        return _turn_facts(view) | wrong(still_pending=bool(left & contents.keys()))

    body = {"results": [{"tool_call_id": call_id, "content": content} for call_id, content in contents.items()]}
    refusals = frozenset({"TOOL_CALL_NOT_PENDING"})
    return _post(
        known, "tool_results", "tool_results", key, body=body, read=read, refusals=refusals, facts={"results": contents}
    )


def decide(known: Known, key: str | None, call_id: str, decision: str) -> Act:
    """Allow a call or deny it."""

    def read(_status: int, view: Any) -> Json:
        left = {call["id"] for call in view["pending_tool_calls"] if call["kind"] == "approval"}
        return _turn_facts(view) | wrong(still_pending=call_id in left)

    refusals = frozenset({"TOOL_CALL_NOT_PENDING"})
    body, facts = {"decision": decision}, {"decision": decision, "call": call_id}
    return _post(known, "approval", f"approvals/{call_id}", key, body=body, read=read, refusals=refusals, facts=facts)


def archive(known: Known, key: str | None) -> Act:
    """Archive a session."""

    def read(_status: int, view: Any) -> Json:
        state = view["state"]
        claims = wrong(open=state["archived_at"] is None, active=state["is_active"] or state["queued_turns"] > 0)
        return {"archived_at": state["archived_at"], "last_seq": state["last_seq"], **claims}

    return _post(known, "archive", "archive", key, read=read)


def unarchive(known: Known, key: str | None) -> Act:
    """Open it again."""

    def read(_status: int, view: Any) -> Json:
        state = view["state"]
        return {"last_seq": state["last_seq"]} | wrong(archived=state["archived_at"] is not None)

    return _post(known, "unarchive", "unarchive", key, read=read)


def compact(known: Known, key: str | None) -> Act:
    """Have its transcript summed up."""
    return _post(
        known, "compact", "compact", key, read=_reads_session, refusals=frozenset({"SESSION_BUSY", "SESSION_ARCHIVED"})
    )


def fork(known: Known, key: str | None) -> Act:
    """Copy it."""

    def read(_status: int, view: Any) -> Json:
        return {"session_id": view["session_id"]} | wrong(the_same=view["session_id"] == known.id)

    return Act("fork", "POST", f"{known.path}/fork", {}, {}, key, facts={"source": known.id}, known=known, read=read)


def bring_in(document: Json, session_id: str, key: str | None) -> Act:
    """Open a session from another's document, under an id of its own."""
    document = {**document, "session": {**document["session"], "session_id": session_id}}

    def read(_status: int, view: Any) -> Json:
        return {"session_id": view["session_id"]} | wrong(another_id=view["session_id"] != session_id)

    facts = {"base_usage": document["session"]["usage"]}
    body = {"resume_session": document}
    return Act("import", "POST", "/v1/sessions", body, {}, key, session_id=session_id, facts=facts, read=read)


def change(known: Known, title: str) -> Act:
    """Give a session another title."""

    def read(_status: int, view: Any) -> Json:
        state = view["state"]
        return {"last_seq": state["last_seq"]} | wrong(another_title=state["title"] != title)

    body = {"title": title}
    return Act(
        "patch", "PATCH", known.path, body, known=known, facts={"title": title}, read=read
    )  # fmt: skip


def edit(known: Known, turn_id: str, plan: Plan) -> Act:
    """Give a queued turn another prompt."""

    def read(_status: int, view: Any) -> Json:
        return _turn_facts(view) | wrong(not_queued=view["status"] != "queued")

    path, facts = f"{known.path}/turns/{turn_id}", {"replaces": plan.id}
    refusals = frozenset({"TURN_NOT_QUEUED"})
    body = {"prompt": plan.prompt}
    return Act("edit", "PATCH", path, body, known=known, turn_id=turn_id, facts=facts, refusals=refusals, read=read)


def cancel(known: Known, turn_id: str) -> Act:
    """Take a turn out of the queue."""

    def read(_status: int, view: Any) -> Json:
        return _turn_facts(view) | wrong(not_cancelled=view["status"] != "cancelled")

    path, refusals = f"{known.path}/turns/{turn_id}", frozenset({"TURN_NOT_QUEUED"})
    return Act("cancel", "DELETE", path, known=known, turn_id=turn_id, refusals=refusals, read=read)


def erase(known: Known) -> Act:
    """Erase a session; asked again it is gone."""

    def read(status: int, _body: Any) -> Json:
        return wrong(has_body=status != 204)

    return Act("delete", "DELETE", known.path, known=known, read=read)


def _post(known: Known, name: str, path: str, key: str | None, **rest: Any) -> Act:
    return Act(name, "POST", f"{known.path}/{path}", key=key, known=known, **rest)


def _turn_facts(view: Any) -> Json:
    return {"turn_id": view["turn_id"], "turn_status": view["status"], "last_seq": view["last_seq"]}


def _reads_turn(known: Known) -> Read:
    def read(status: int, view: Any) -> Json:
        if view["status"] == "queued" and view["turn_id"] not in known.queued:
            known.queued.append(view["turn_id"])
        return _turn_facts(view) | wrong(live=status == 200 and not terminal(view), over=status == 202 and terminal(view))

    return read


def _reads_session(_status: int, view: Any) -> Json:
    return {"last_seq": view["state"]["last_seq"]}
