"""`fallback_models` of sessions and realms: chosen at the door, asked in an outage, and told in the log."""

from typing import Any

import httpx2
import pytest

from tests.api import shapes
from tests.api.desk import ASYNC, Desk
from tests.api.talk import export, forked, resume
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SCRIPTED = {"model": "scripted", "provider": "scripted"}
DOWN = [[scripts.status(503)]] * 4
PARIS = (scripts.text("Paris."), scripts.finish())
NO_TOOLS = {"builtins": False}
MODELS = "fallback_models"
CONFIG = "/v1/realm/config"


async def backed(service: Service, *models: dict[str, str], **fields: Any) -> Desk:
    """Open a session that asks the double, with fallbacks; its models are offered no tools unless told otherwise."""
    fields = {MODELS: list(models) or [SCRIPTED], "tools": NO_TOOLS} | fields
    return Desk(service, (await service.create(**fields))["session_id"])


async def answered(desk: Desk) -> dict[str, Any]:
    """Run a turn to its end, whose pauses between tries are longer than the server lets anyone wait."""
    turn = (await desk.start("Hello", ASYNC)).json()
    await desk.log_at_rest()
    return await desk.turn(turn["turn_id"])


async def options(desk: Desk) -> dict[str, Any]:
    """Return a session's options as its export shows them."""
    found: dict[str, Any] = (await export(desk))["session"]["options"]
    return found


def refusal(answer: httpx2.Response) -> tuple[int, Any]:
    """Return an answer's status, and the place that it names."""
    problem = answer.json()
    return answer.status_code, problem["errors"][0]["loc"] if "errors" in problem else problem["field"]


async def test_turn_in_an_outage_is_answered_by_the_fallback_and_the_log_names_it(
    service: Service, double: ProviderDouble
) -> None:
    desk = await backed(service, {"model": "scripted"}, provider_params={"temperature": 0.5})
    await double.play(*DOWN)

    turn, log = await answered(desk), await desk.log_at_rest()

    assert (turn["status"], turn["steps"], turn["attempt"]) == ("completed", 1, 1)
    assert turn["text"]
    assert len(await double.requests()) == 4
    told = [event for event in log if event["type"] == "retrying"]
    assert [event["attempt"] for event in told] == [1, 2, 3, 4]
    assert ["model" in event or "provider" in event for event in told] == [False, False, False, True]
    assert {"model": "scripted", "provider": "scripted", "delay_ms": 0}.items() <= told[-1].items()
    shapes.assert_log(log)
    shapes.assert_transcript((await desk.client.get(f"{desk.path}/messages")).json()["messages"])


async def test_next_turn_asks_the_own_model_again(service: Service, double: ProviderDouble) -> None:
    desk = await backed(service)
    await double.play(*DOWN, PARIS)

    turns = [await answered(desk) for _ in range(2)]

    assert [turn["status"] for turn in turns] == ["completed", "completed"]
    assert turns[1]["text"] == "Paris."
    assert len(await double.requests()) == 5


async def test_step_behind_the_fallbacks_asks_the_own_model_again(service: Service, double: ProviderDouble) -> None:
    desk = await backed(service, tools={"builtins": True})
    await double.play(*DOWN, PARIS)

    turn, log = await answered(desk), await desk.log_at_rest()

    assert (turn["status"], turn["steps"], turn["tool_calls"], turn["text"]) == ("completed", 2, 1, "Paris.")
    assert len(await double.requests()) == 5
    shapes.assert_log(log)


async def test_params_go_along_to_a_fallback_of_the_same_provider_alone(service: Service, double: ProviderDouble) -> None:
    same = {"model": "spare", "provider": "openai_compatible"}
    desk = await backed(service, same, provider_params={"temperature": 0.5})
    await double.play(*DOWN, PARIS)

    turn = await answered(desk)

    assert turn["text"] == "Paris."
    asked = [(request.body["model"], request.body["temperature"]) for request in await double.requests()]
    assert asked == [("double", 0.5)] * 4 + [("spare", 0.5)]


async def test_broken_answer_is_discarded_before_the_fallback_speaks(service: Service, double: ProviderDouble) -> None:
    desk = await backed(service)
    await double.play(*DOWN[:3], [scripts.text("Lon"), scripts.cut()])

    turn, log = await answered(desk), await desk.log_at_rest()

    assert turn["status"] == "completed"
    assert not turn["text"].startswith("Lon")
    kinds = [event["type"] for event in log]
    assert kinds[kinds.index("step_discarded") - 1 :][:3] == ["retrying", "step_discarded", "step_started"]
    shapes.assert_log(log)


@pytest.mark.parametrize("fault", [scripts.status(401), scripts.status(400), scripts.context_overflow()])
async def test_refusal_is_no_outage(service: Service, double: ProviderDouble, fault: Any) -> None:
    desk = await backed(service)
    await double.play([fault])

    turn, log = await answered(desk), await desk.log_at_rest()

    assert turn["status"] == "failed"
    assert "retrying" not in [event["type"] for event in log]


@pytest.mark.parametrize(
    ("models", "refused"),
    [
        ([SCRIPTED, {"model": "llama"}], (422, f"{MODELS}.1")),
        ([SCRIPTED, {"model": "claude-opus"}], (501, f"{MODELS}.1")),
        ([{"model": "m", "provider": "nobody"}], (422, f"{MODELS}.0.provider")),
        ([{"provider": "scripted"}], (422, f"{MODELS}.0.model")),
        ([SCRIPTED | {"weight": 1}], (422, f"{MODELS}.0.weight")),
        ([SCRIPTED] * 6, (422, MODELS)),
        ("scripted", (422, MODELS)),
    ],
)
async def test_list_that_cannot_be_served_is_refused_by_its_place(
    service: Service, models: Any, refused: tuple[int, str]
) -> None:
    desk = await backed(service)

    answers = [
        await service.client.post("/v1/sessions", json={MODELS: models}),
        await service.client.patch(desk.path, json={MODELS: models}),
    ]

    assert [refusal(answer) for answer in answers] == [refused] * 2
    assert (await options(desk))[MODELS] == [SCRIPTED]


async def test_patch_replaces_the_list_tells_it_with_providers_and_null_empties_it(service: Service) -> None:
    desk = await backed(service)
    spare = {"model": "spare", "provider": "openai_compatible"}

    for change in ([spare, {"model": "scripted-2"}], None, []):
        assert (await service.client.patch(desk.path, json={MODELS: change})).status_code == 200

    told = [event[MODELS] for event in await desk.log_at_rest() if event["type"] == "session_updated"]
    assert told == [[spare, {"model": "scripted-2", "provider": "scripted"}], []]


async def test_fork_and_resumed_session_keep_the_list(service: Service) -> None:
    desk = await backed(service)
    document = await export(desk)

    copy = await forked(desk, service)
    await service.client.delete(desk.path)
    resumed = await resume(service, document)

    assert resumed.status_code == 201, resumed.text
    assert [(await options(one))[MODELS] for one in (copy, desk)] == [[SCRIPTED]] * 2


async def test_document_with_a_fallback_that_cannot_be_asked_needs_another_list(service: Service) -> None:
    desk = await backed(service)
    document = await export(desk)
    document["session"]["options"][MODELS] = [{"model": "claude-opus", "provider": "anthropic"}]
    await service.client.delete(desk.path)

    refused = await resume(service, document)
    taken = await resume(service, document, fallback_models=[])

    assert refusal(refused) == (501, f"{MODELS}.0")
    assert taken.status_code == 201, taken.text
    assert (await options(desk))[MODELS] == []


@pytest.fixture
async def realm(configurable: Service) -> Service:
    """A server of this module's own, with an empty configuration."""
    await configurable.client.put(CONFIG, json={"config": {}})
    return configurable


async def test_realms_list_holds_for_sessions_that_name_none(realm: Service, double: ProviderDouble) -> None:
    put = await realm.client.put(CONFIG, json={"config": {MODELS: [{"model": "scripted"}]}})
    silent = Desk(realm, (await realm.create(tools=NO_TOOLS))["session_id"])
    none = Desk(realm, (await realm.create(tools=NO_TOOLS, fallback_models=[]))["session_id"])
    await double.play(*DOWN, *DOWN)

    turns = [await answered(desk) for desk in (silent, none)]

    assert put.json()["config"] == {MODELS: [{"model": "scripted"}]}
    assert [turn["status"] for turn in turns] == ["completed", "failed"]
    await realm.client.patch(none.path, json={MODELS: None})
    assert (await options(none))[MODELS] == [SCRIPTED]


async def test_realms_list_that_cannot_be_served_is_refused_and_not_kept(realm: Service) -> None:
    answers = [
        await realm.client.put(CONFIG, json={"config": {MODELS: [SCRIPTED, {"model": name}]}}) for name in ("llama", "gpt-5")
    ]

    assert [refusal(answer) for answer in answers] == [(422, f"config.{MODELS}.1"), (501, f"{MODELS}.1")]
    assert (await realm.client.get(CONFIG)).json()["config"] == {}
