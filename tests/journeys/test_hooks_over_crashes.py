"""A server is killed while hooks are asked: they are asked again, what they decide holds, and no tool takes effect twice."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.api import shapes, talk
from tests.api.desk import Desk
from tests.hooks.receiver import SECRET, Received, Receiver, deciding, receiving
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service
from tests.tools.endpoint import Endpoint, answer, listening

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ALLOW: dict[str, Any] = {"decision": "allow"}
DENY: dict[str, Any] = {"decision": "deny", "reason": "Not here."}
PARIS = (scripts.text("Paris."), scripts.finish())
REFUSED = (scripts.status(400),)


def patch(**fields: Any) -> dict[str, Any]:
    """Make the decision of a rewriter."""
    return {"decision": "rewrite", "patch": fields}


def pay(case: str, euros: int = 5) -> dict[str, Any]:
    """Make the arguments of a call; the tool sees by them whose it is."""
    return {"case": case, "euros": euros}


def calling(case: str) -> scripts.Script:
    """Make an answer that asks for the tool."""
    return (scripts.tool_call("pay", pay(case)), scripts.finish("tool_calls"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn came out.

    Args:
        text: the turn's, or the reason of its failure.
        kept: the last words of the assistant in the transcript.
        paid: the tool's effects.
        read: what the model read of the tool.
        asked: how often the hook was asked.
    """

    text: str = "Paris."
    kept: str = "Paris."
    paid: Sequence[int] = (5,)
    read: str = "paid"
    asked: int = 2


@dataclass(frozen=True, slots=True)
class Case:
    """A session with one hook, that is asked when its server is killed.

    Args:
        says: what the hook says when it is asked again.
        calls: how often the model asks for the tool; a step that is not on record is asked for again.
        answers: what it says after that.
    """

    point: str
    outcome: Outcome
    says: Mapping[str, Any] = field(default_factory=lambda: ALLOW)
    capability: str = "guardrail"
    calls: int = 1
    answers: Sequence[scripts.Script] = (PARIS,)


SPOKEN = Outcome(paid=(), read="")
CASES: Mapping[str, Case] = {
    "begin": Case("turn_started", Outcome()),
    "request": Case("pre_model_request", Outcome(asked=3)),
    "answer": Case("post_model_response", Outcome(asked=3), calls=2),
    "call": Case("pre_tool_execution", Outcome()),
    "result": Case("post_tool_execution", Outcome(read="unknown", asked=1)),  # it had run, and its result was not on record
    "boundary": Case("step_boundary", Outcome()),
    "end": Case("turn_completed", Outcome(), answers=[PARIS, PARIS]),
    "failure": Case("turn_failed", replace(SPOKEN, asked=1), capability="observe", calls=0, answers=[REFUSED, PARIS]),
    "call denied": Case("pre_tool_execution", Outcome(paid=(), read="Not here."), DENY),
    "call rewritten": Case("pre_tool_execution", Outcome(paid=(1,)), patch(args=pay("call rewritten", 1)), "rewrite"),
    "answer denied": Case(
        "post_model_response", replace(SPOKEN, text="HOOK_DENIED", kept=""), DENY, calls=0, answers=[PARIS, PARIS]
    ),
    "answer rewritten": Case(
        "post_model_response", replace(SPOKEN, text="Rome.", kept="Rome."), patch(text="Rome."), "rewrite", 0, [PARIS, PARIS]
    ),
    "end denied": Case("turn_completed", replace(SPOKEN, text="HOOK_DENIED", kept=""), DENY, calls=0, answers=[PARIS, PARIS]),
    "end rewritten": Case("turn_completed", replace(SPOKEN, text="Rome."), patch(text="Rome."), "rewrite", 0, [PARIS, PARIS]),
}  # fmt: skip


@dataclass
class House:
    """Servers on one database whose sessions can have hooks and a tool; `says` has the answer for each hook."""

    serve: Callable[..., Awaitable[Service]]
    double: ProviderDouble
    folder: Path
    tool: Endpoint
    receiver: Receiver | None = None
    says: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    are_asked: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, received: Received) -> bytes:
        """Answer a hook; one for which nothing is said is kept waiting."""
        hook_id = received.payload["hook_id"]
        if hook_id in self.says:
            return deciding(self.says[hook_id])
        if len({payload["hook_id"] for payload in self.asked}) == len(CASES):
            self.are_asked.set()
        return b""

    async def server(self) -> Service:
        """Start a server."""
        tool = {"name": "pay", "description": "Pays.", "input_schema": {"type": "object"}, "url": self.tool.url()}
        tools = self.folder / "tools.json"
        tools.write_text(json.dumps({"http_tools": [tool]}), encoding="utf-8")
        return await self.serve(
            SURICATE_LEASE_SECONDS="3",
            SURICATE_OPENAI_COMPATIBLE_BASE_URL=self.double.base_url,
            SURICATE_HOOKS=json.dumps({"secret": SECRET, "allowed_hosts": ["127.0.0.1"]}),
            SURICATE_TOOLS_FILE=str(tools),
            SURICATE_OUTBOUND_INSIDE='["127.0.0.1"]',
            SURICATE_OUTBOUND_HTTP="true",
        )

    async def begin(self, service: Service, name: str, case: Case, **fields: Any) -> dict[str, Any]:
        """Start a session's turn."""
        assert self.receiver is not None
        await self.double.play(*[calling(name)] * case.calls, *case.answers, match=f"<{name}>")
        hook = {"id": name.replace(" ", "."), "point": case.point, "url": self.receiver.url, "capability": case.capability}
        return await service.create(f"<{name}>", hooks_override={"entries": [hook]}, **fields)

    @property
    def asked(self) -> list[dict[str, Any]]:
        """What hooks were asked, in order."""
        assert self.receiver is not None
        return [received.payload for received in self.receiver.requests]

    def asked_of(self, name: str) -> list[dict[str, Any]]:
        """What a session's hook was asked, in order."""
        return [payload for payload in self.asked if payload["hook_id"] == name.replace(" ", ".")]

    def paid_for(self, name: str) -> tuple[int, ...]:
        """The effects of a session's calls."""
        return tuple(call["args"]["euros"] for call in self.tool.calls if call["args"]["case"] == name)


@pytest.fixture
async def house(serve: Callable[..., Awaitable[Service]], double: ProviderDouble, tmp_path: Path) -> AsyncIterator[House]:
    """A house in which nothing is said."""
    async with listening(Endpoint(answer(b"paid"))) as tool:
        house = House(serve, double, tmp_path, tool)
        async with receiving(house.answer, hangs=True) as house.receiver:
            yield house


async def test_hooks_that_are_asked_while_a_server_is_killed_are_asked_again_and_what_they_say_holds(house: House) -> None:
    before = await house.server()
    begun = await asyncio.gather(*(house.begin(before, name, case) for name, case in CASES.items()))
    async with asyncio.timeout(10):
        await house.are_asked.wait()
    await before.kill()
    house.says = {name.replace(" ", "."): case.says for name, case in CASES.items()}

    after = await house.server()
    found = [await outcome_of(house, after, name, created) for name, created in zip(CASES, begun, strict=True)]

    assert dict(zip(CASES, found, strict=True)) == {name: case.outcome for name, case in CASES.items()}
    for name, case in CASES.items():
        first, *again = house.asked_of(name)
        assert again[:1] == [first] * (case.outcome.asked > 1)


async def test_approved_call_runs_with_the_arguments_that_were_approved(house: House) -> None:
    case = Case("pre_tool_execution", Outcome(), capability="rewrite")
    house.says["call"] = patch(args=pay("call", 1))
    before = await house.server()
    created = await house.begin(before, "call", case, approval_tools=["pay"])
    desk = Desk(before, created["session_id"])
    await before.frames(f"{desk.path}/events", until=["tool_call_pending"])
    await before.kill()
    house.says["call"] = patch(args=pay("call", 1000))

    after = await house.server()
    allowed = await after.client.post(f"{desk.path}/approvals/call_0", json={"decision": "allow"})
    view = await after.ended(desk.id, created["turn"]["turn_id"])

    assert (allowed.status_code, view["status"], house.paid_for("call"), len(house.asked)) == (200, "completed", (1,), 1)
    [pending] = [event for event in await after.log_of(desk.id) if event["type"] == "tool_call_pending"]
    assert pending["args"] == pay("call", 1)


async def outcome_of(house: House, service: Service, name: str, created: Mapping[str, Any]) -> Outcome:
    """Wait for a turn's end, hold its log and transcript against the promises, and say how it came out."""
    session_id = created["session_id"]
    view = await service.ended(session_id, created["turn"]["turn_id"])
    log, messages = await service.log_of(session_id), await talk.history(Desk(service, session_id))
    shapes.assert_log(log)
    shapes.assert_transcript(messages)
    types = [event["type"] for event in log]
    assert (types.count("turn_resumed"), view["attempt"]) == (1, 2)
    assert types.count("step_started") == types.count("step_completed") + types.count("step_discarded")
    texts = [block["text"] for message in messages[1:] for block in message["content"] if block["type"] == "text"]
    results = [block["content"] for message in messages for block in message["content"] if block["type"] == "tool_result"]
    return Outcome(
        text=view["error"]["reason"] if view["error"] else view["text"],
        kept="".join(texts),
        paid=house.paid_for(name),
        read=next((word for word in ("paid", "unknown", "Not here.") if word in "".join(results)), ""),
        asked=len(house.asked_of(name)),
    )
