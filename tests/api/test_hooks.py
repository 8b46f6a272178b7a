"""Hooks on a turn's way, over real HTTP: who is asked when, and what denials, patches and failures come to."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from tests.api import shapes, talk
from tests.api.databases import fresh_database
from tests.api.desk import ASYNC, Desk
from tests.hooks.receiver import SECRET, Received, Receiver, deciding, receiving, whole
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

ALLOW: dict[str, Any] = {"decision": "allow"}
DENY: dict[str, Any] = {"decision": "deny", "reason": "Not here."}
EIGHT = (
    "turn_started", "pre_model_request", "post_model_response", "pre_tool_execution", "post_tool_execution", "step_boundary",
    "turn_completed", "turn_failed",
)  # fmt: skip
CALL = (scripts.tool_call("datetime", {"timezone": "Europe/Paris"}), scripts.finish("tool_calls"))
PARIS = (scripts.text("Paris."), scripts.finish())
ERROR = whole(b"", status="503 Service Unavailable")


def patch(**fields: Any) -> dict[str, Any]:
    return {"decision": "rewrite", "patch": fields}


@dataclass
class House:
    """A server whose hooks are one receiver; `says` has the receiver's answer for each hook."""

    receiver: Receiver
    double: ProviderDouble
    shared: Service | None = None
    serve: Callable[..., Any] | None = None
    says: dict[str, Any] = field(default_factory=dict)

    def answer(self, received: Received) -> bytes:
        """Answer one request as the test wants it."""
        said = self.says.get(received.payload["hook_id"].split(".")[0], ALLOW)
        return said if isinstance(said, bytes) else deciding(said)

    def settings(self, hooks: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Write the settings of a server with these hooks, that lets sessions add their own."""
        url = self.receiver.url
        own = [{"url": url} | dict(hook) for hook in hooks]
        configuration = {"secret": SECRET, "allowed_hosts": [url.split("/")[2]], "hooks": own}
        return {
            "SURICATE_OPENAI_COMPATIBLE_BASE_URL": self.double.base_url,
            "SURICATE_HOOKS": orjson.dumps(configuration).decode(),
        }

    async def service(self, *hooks: Mapping[str, Any]) -> Service:
        """Start a server with these hooks."""
        assert self.serve is not None
        service: Service = await self.serve(**self.settings(hooks))
        return service

    async def desk(self, *hooks: Mapping[str, Any], **fields: Any) -> Desk:
        """Open a session that adds these hooks, one for each of their points."""
        assert self.shared is not None
        entries = [_entry(hook, point, self.receiver.url) for hook in hooks for point in hook["points"]]
        return Desk(self.shared, (await self.shared.create(hooks_override={"entries": entries}, **fields))["session_id"])

    @property
    def asked(self) -> list[str]:
        """The hooks and points that were asked, in order."""
        payloads = [received.payload for received in self.receiver.requests]
        return [f"{payload['hook_id'].split('.')[0]} {payload['point']}" for payload in payloads]


def _entry(hook: Mapping[str, Any], point: str, url: str) -> dict[str, Any]:
    fields = {name: value for name, value in hook.items() if name != "points"}
    return fields | {"id": f"{hook['id']}.{point}", "point": point, "url": url}


@pytest.fixture(scope="module")
async def shared_house(
    postgres: str, shared_double: ProviderDouble, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """A server without hooks of its own, for sessions that add theirs."""
    built: list[House] = []
    async with (
        receiving(lambda received: built[0].answer(received)) as receiver,
        fresh_database(postgres) as url,
    ):
        house = House(receiver, shared_double)
        built.append(house)
        settings = {"SURICATE_DATABASE_URL": url} | house.settings([])
        async with Service.started(tmp_path_factory.mktemp("hooks"), settings) as house.shared:
            yield house


@pytest.fixture
def house(shared_house: House, serve: Callable[..., Any], double: ProviderDouble) -> House:
    """The shared house, with nothing asked and nothing said; it can start further servers."""
    shared_house.serve, shared_house.double = serve, double
    shared_house.says.clear()
    shared_house.receiver.requests.clear()
    return shared_house


def hook(hook_id: str, *points: str, capability: str = "observe", **fields: Any) -> dict[str, Any]:
    return {"id": hook_id, "points": list(points), "capability": capability, **fields}


def of_hooks(log: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in log if event["type"].startswith("hook_")]


async def test_hooks_are_asked_at_each_point_of_a_turn_in_order(house: House) -> None:
    desk = await house.desk(hook("watch", *EIGHT))
    await house.double.play(CALL, PARIS)

    turn = (await desk.start("Where?")).json()

    assert turn["status"] == "completed"
    assert [name.split()[1] for name in house.asked] == [
        "turn_started", "pre_model_request", "post_model_response", "pre_tool_execution", "post_tool_execution",
        "step_boundary", "pre_model_request", "post_model_response", "turn_completed",
    ]  # fmt: skip
    payloads = [received.payload for received in house.receiver.requests]
    assert {(payload["session_id"], payload["turn_id"]) for payload in payloads} == {(desk.id, turn["turn_id"])}
    assert (payloads[0]["prompt"], payloads[3]["args"], payloads[-1]["text"]) == (
        "Where?", {"timezone": "Europe/Paris"}, "Paris.",
    )  # fmt: skip
    log = await desk.log_at_rest()
    assert of_hooks(log) == ["hook_started", "hook_completed"] * 9
    shapes.assert_log(log)


async def test_lower_priority_is_asked_first_and_a_denial_stops_the_rest(house: House) -> None:
    house.says["second"] = DENY
    hooks = ({"id": "third", "priority": 9}, {"id": "first", "priority": -1}, {"id": "second", "capability": "guardrail"})
    service = await house.service(*({"points": ["turn_started"], "capability": "observe"} | one for one in hooks))
    desk = Desk(service, (await service.create())["session_id"])

    await desk.start("Hello")

    assert house.asked == ["first turn_started", "second turn_started"]


@pytest.mark.parametrize("point", ["turn_started", "pre_model_request", "post_model_response", "turn_completed"])
async def test_denied_turn_fails_and_keeps_no_answer(house: House, point: str) -> None:
    house.says["guard"] = DENY
    desk = await house.desk(hook("guard", point, capability="guardrail"), hook("watch", "turn_failed"))
    await house.double.play(PARIS)

    turn = (await desk.start("Where?")).json()

    assert (turn["status"], turn["error"]["reason"], turn["text"] or "") == ("failed", "HOOK_DENIED", "")
    assert "Not here." in turn["error"]["message"]
    assert house.asked == [f"guard {point}", "watch turn_failed"]
    log = await desk.log_at_rest()
    assert of_hooks(log) == ["hook_started", "hook_completed", "hook_denied", "hook_started", "hook_completed"]
    assert [message["role"] for message in await talk.history(desk)] == ["user"]
    shapes.assert_log(log)


async def test_denied_tool_call_is_not_run_and_the_turn_goes_on(house: House) -> None:
    house.says["guard"] = DENY
    desk = await house.desk(hook("guard", "pre_tool_execution", capability="guardrail"))
    await house.double.play(CALL, PARIS)

    turn, log = (await desk.start("Where?")).json(), await desk.log_at_rest()

    assert (turn["status"], turn["text"]) == ("completed", "Paris.")
    assert "tool_execution_started" not in [event["type"] for event in log]
    messages = await talk.history(desk)
    assert messages[2]["content"][0]["is_error"]
    assert "Not here." in messages[2]["content"][0]["content"]
    shapes.assert_transcript(messages)


async def test_denied_result_is_withheld_and_ends_the_turn(house: House) -> None:
    house.says["guard"] = DENY
    desk = await house.desk(hook("guard", "post_tool_execution", capability="guardrail"))
    await house.double.play(CALL)

    turn, log = (await desk.start("Where?")).json(), await desk.log_at_rest()

    assert turn["error"]["reason"] == "HOOK_DENIED"
    [told] = [event for event in log if event["type"] == "tool_execution_completed"]
    assert (told["result"], told["is_error"]) == ("The result was withheld, and the turn ended.", True)
    shapes.assert_transcript(await talk.history(desk))


async def test_denial_between_two_steps_ends_the_turn_with_a_valid_transcript(house: House) -> None:
    house.says["guard"] = DENY
    desk = await house.desk(hook("guard", "step_boundary", capability="guardrail"))
    await house.double.play(CALL)

    turn = (await desk.start("Where?")).json()

    assert (turn["error"]["reason"], turn["steps"]) == ("HOOK_DENIED", 1)
    shapes.assert_transcript(await talk.history(desk))


async def test_request_is_made_with_the_parameters_of_a_patch(house: House) -> None:
    house.says["tune"] = patch(max_tokens=7, provider_params={"temperature": 0.5})
    desk = await house.desk(hook("tune", "pre_model_request", capability="rewrite"), provider_params={"top_p": 0.9})
    await house.double.play(PARIS)

    await desk.start("Where?")

    [request] = await house.double.requests()
    assert (request.body["temperature"], request.body["top_p"], request.body["max_tokens"]) == (0.5, 0.9, 7)
    [applied] = [event for event in await desk.log_at_rest() if event["type"] == "hook_rewrite_applied"]
    assert applied["fields"] == ["max_tokens", "provider_params.temperature"]


async def test_parameters_that_the_provider_does_not_know_are_the_failure_of_their_hook(house: House) -> None:
    house.says["tune"] = patch(provider_params={"nonsense": 1})
    desk = await house.desk(hook("tune", "pre_model_request", capability="rewrite"))

    turn = (await desk.start("Where?")).json()

    assert turn["error"]["reason"] == "HOOK_FAILED"
    assert await house.double.requests() == []


async def test_rewritten_answer_is_what_is_kept_while_the_log_has_what_was_streamed(house: House) -> None:
    house.says["tidy"] = patch(text="London.")
    desk = await house.desk(hook("tidy", "post_model_response", capability="rewrite"))
    await house.double.play(PARIS)

    turn, log = (await desk.start("Where?")).json(), await desk.log_at_rest()

    assert (turn["text"], log[-1]["text"]) == ("London.", "London.")
    assert [event["content"] for event in log if event["type"] == "text_complete"] == ["Paris."]
    assert (await talk.history(desk))[-1]["content"] == [{"type": "text", "text": "London."}]
    shapes.assert_log(log)


async def test_tool_runs_with_the_arguments_of_a_patch(house: House) -> None:
    house.says["move"] = patch(args={"timezone": "Asia/Tokyo"})
    desk = await house.desk(hook("move", "pre_tool_execution", capability="rewrite"))
    await house.double.play(CALL, PARIS)

    await desk.start("What time is it?")

    assert "+09:00" in (await talk.history(desk))[2]["content"][0]["content"]


async def test_arguments_that_break_the_tools_schema_are_the_failure_of_their_hook(house: House) -> None:
    house.says["move"] = patch(args={"timezone": 1})
    desk = await house.desk(hook("move", "pre_tool_execution", capability="rewrite"))
    await house.double.play(CALL)

    turn = (await desk.start("What time is it?")).json()

    assert turn["error"]["reason"] == "HOOK_FAILED"
    shapes.assert_transcript(await talk.history(desk))


async def test_result_of_a_patch_is_told_and_read(house: House) -> None:
    house.says["tidy"] = patch(result="noon")
    desk = await house.desk(hook("tidy", "post_tool_execution", capability="rewrite"))
    await house.double.play(CALL, PARIS)

    await desk.start("What time is it?")

    assert (await talk.history(desk))[2]["content"][0]["content"] == "noon"
    [told] = [event for event in await desk.log_at_rest() if event["type"] == "tool_execution_completed"]
    assert (told["result"], told["is_error"]) == ("noon", False)


async def test_callers_answer_passes_the_hooks_before_the_model_reads_it(house: House) -> None:
    house.says["tidy"] = patch(result="mild")
    tool = {"name": "weather", "description": "The weather.", "input_schema": {"type": "object", "properties": {}}}
    desk = await house.desk(hook("tidy", "post_tool_execution", capability="rewrite"), external_tools=[tool])
    call = scripts.tool_call("weather", {})
    await house.double.play([call, scripts.finish("tool_calls")], PARIS)
    turn = (await desk.start("What is it like?", ASYNC)).json()
    assert house.shared is not None
    await house.shared.frames(f"{desk.path}/events", until=["tool_call_pending"])
    [waiting] = (await desk.turn(turn["turn_id"]))["pending_tool_calls"]
    results = [{"tool_call_id": waiting["id"], "content": "21 °C"}]

    await desk.client.post(f"{desk.path}/tool_results", json={"results": results})
    await desk.log_at_rest()

    assert (await talk.history(desk))[2]["content"][0]["content"] == "mild"


async def test_rewritten_end_is_the_turns_text(house: House) -> None:
    house.says["sign"] = patch(text="Paris. Yours, Suricate")
    desk = await house.desk(hook("sign", "turn_completed", capability="rewrite"))
    await house.double.play(PARIS)

    turn, log = (await desk.start("Where?")).json(), await desk.log_at_rest()

    assert turn["text"] == log[-1]["text"] == "Paris. Yours, Suricate"
    assert (await talk.history(desk))[-1]["content"] == [{"type": "text", "text": "Paris."}]


async def test_observer_that_fails_changes_nothing(house: House) -> None:
    house.says["watch"] = ERROR
    desk = await house.desk(hook("watch", *EIGHT))
    await house.double.play(CALL, PARIS)

    turn, log = (await desk.start("Where?")).json(), await desk.log_at_rest()

    assert turn["status"] == "completed"
    assert of_hooks(log) == ["hook_started", "hook_failed"] * 9


@pytest.mark.parametrize("point", EIGHT[:-1])
async def test_guardrail_that_fails_ends_the_turn(house: House, point: str) -> None:
    house.says["guard"] = ERROR
    desk = await house.desk(hook("guard", point, capability="guardrail"))
    await house.double.play(CALL, PARIS)

    turn, log = (await desk.start("Where?")).json(), await desk.log_at_rest()

    assert (turn["status"], turn["error"]["reason"]) == ("failed", "HOOK_FAILED")
    assert of_hooks(log) == ["hook_started", "hook_failed"]
    shapes.assert_log(log)
    shapes.assert_transcript(await talk.history(desk))


async def test_hook_in_the_background_is_asked_and_not_told(house: House) -> None:
    house.says["audit"] = ERROR
    desk = await house.desk(hook("audit", "turn_started", mode="background"), hook("last", "turn_failed"))
    await house.double.play([scripts.status(400)])

    await desk.start("Hello")
    await house.receiver.heard(2)

    assert sorted(house.asked) == ["audit turn_started", "last turn_failed"]
    assert of_hooks(await desk.log_at_rest()) == ["hook_started", "hook_completed"]


async def test_session_leaves_a_hook_out_and_adds_its_own(house: House) -> None:
    own = {"id": "own", "point": "turn_completed", "url": house.receiver.url, "capability": "rewrite"}
    house.says |= {"guard": DENY, "own": patch(text="Mine.")}
    service = await house.service(hook("guard", "turn_started", capability="guardrail"))
    created = await service.create(hooks_override={"disable": ["guard"], "entries": [own]})
    desk = Desk(service, created["session_id"])

    turn = (await desk.start("Where?")).json()

    assert turn["text"] == "Mine."
    removed = await desk.client.patch(desk.path, json={"hooks_override": None})
    assert removed.status_code == 200
    assert (await desk.start("Where?")).json()["error"]["reason"] == "HOOK_DENIED"


async def test_override_goes_with_forks_and_exports(house: House) -> None:
    house.says["guard"] = DENY
    service = await house.service(hook("guard", "turn_started", capability="guardrail"))
    desk = Desk(service, (await service.create(hooks_override={"disable": ["guard"]}))["session_id"])
    await desk.start("Hello")

    document, forked = await talk.export(desk), await talk.forked(desk, service)

    assert document["session"]["options"]["hooks_override"] == {"disable": ["guard"]}
    assert (await forked.start("Hello")).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("override", "loc"),
    [
        ({"disable": ["unknown"]}, "hooks_override.disable.0"),
        ({"entries": [{"id": "own", "point": "turn_started", "url": "http://example.com/", "capability": "observe"}]},
         "hooks_override.entries.0.url"),
        ({"nonsense": 1}, "hooks_override.nonsense"),
        ("nonsense", "hooks_override"),
    ],
)  # fmt: skip
async def test_override_that_breaks_a_rule_is_refused_with_its_place(house: House, override: Any, loc: str) -> None:
    desk = await house.desk()

    created = await desk.client.post("/v1/sessions", json={"hooks_override": override})
    changed = await desk.client.patch(desk.path, json={"hooks_override": override})

    assert [(answer.status_code, answer.json()["errors"][0]["loc"]) for answer in (created, changed)] == [(422, loc)] * 2


async def test_required_hook_cannot_be_disabled_by_a_session_or_a_document(house: House) -> None:
    service = await house.service(hook("must", "turn_started", required=True))
    desk = Desk(service, (await service.create())["session_id"])
    document = await talk.export(desk)
    await talk.erase(desk)
    document["session"]["options"]["hooks_override"] = {"disable": ["must"]}

    answers = [
        await service.client.post("/v1/sessions", json=body)
        for body in ({"resume_session": document}, {"hooks_override": {"disable": ["must"]}})
    ]

    assert [(a.status_code, a.json()["errors"][0]["loc"]) for a in answers] == [(422, "hooks_override.disable.0")] * 2
