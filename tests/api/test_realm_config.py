"""`/v1/realm/config`, and what sessions get from it where they say nothing."""

from typing import Any

import httpx2
import pytest

from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

PATH = "/v1/realm/config"
GATEWAY = {"default_model": "double", "default_provider": "openai_compatible"}


@pytest.fixture
async def service(configurable: Service, double: ProviderDouble) -> Service:
    """A server of this module's own, with an empty configuration."""
    await configured(configurable)
    return configurable


async def configured(service: Service, **config: Any) -> int:
    """Replace the configuration, and return its generation."""
    answer = await service.client.put(PATH, json={"config": config})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["generation"])


async def created(service: Service, **fields: Any) -> dict[str, Any]:
    """Create a session, and return its view with its id."""
    answer = await service.client.post("/v1/sessions", json=fields)
    assert answer.status_code == 201, answer.text
    state: dict[str, Any] = answer.json()["session"]["state"]
    return state


def refusal(answer: httpx2.Response) -> tuple[int, str, list[str]]:
    """Return an answer's status, code and the places that it names."""
    return answer.status_code, answer.json()["code"], [fault["loc"] for fault in answer.json().get("errors", [])]


async def test_put_replaces_patch_merges_and_get_reads(service: Service) -> None:
    put = await service.client.put(PATH, json={"config": {"max_tokens": 5, "system_prompt": "Be brief.", "builtins": None}})
    patched = await service.client.patch(PATH, json={"config": {"max_tokens": None, "builtins": False}})
    read = await service.client.get(PATH)

    generation = put.json()["generation"]
    assert put.json() == {"config": {"max_tokens": 5, "system_prompt": "Be brief."}, "generation": generation}
    assert patched.json() == {"config": {"system_prompt": "Be brief.", "builtins": False}, "generation": generation + 1}
    assert read.json() == patched.json()


async def test_stale_generation_is_a_conflict_that_changes_nothing(service: Service) -> None:
    generation = await configured(service, max_tokens=5)
    stale = {"config": {"max_tokens": 6}, "expected_generation": generation - 1}

    answers = [await service.client.put(PATH, json=stale), await service.client.patch(PATH, json=stale)]

    assert [refusal(answer) for answer in answers] == [(409, "CONFIG_CONFLICT", [])] * 2
    assert answers[0].json()["generation"] == generation
    assert (await service.client.get(PATH)).json() == {"config": {"max_tokens": 5}, "generation": generation}
    assert (await service.client.patch(PATH, json=stale | {"expected_generation": generation})).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({"no_such_key": None}, (422, "INVALID_REQUEST", ["config.no_such_key"])),
        ({"max_tokens": 0}, (422, "INVALID_REQUEST", ["config.max_tokens"])),
        ({"default_model": "llama"}, (422, "INVALID_REQUEST", ["config.default_provider"])),
        ({"provider_params": {"temperature": 1}}, (422, "INVALID_REQUEST", ["config.provider_params.temperature"])),
        ({**GATEWAY, "provider_params": {"tokens": 1}}, (422, "INVALID_REQUEST", ["config.provider_params.tokens"])),
        ({"default_model": "claude-opus"}, (501, "CAPABILITY_UNAVAILABLE", [])),
    ],
)
async def test_configuration_that_cannot_be_served_is_refused_and_not_kept(
    service: Service, method: str, config: dict[str, Any], refused: tuple[int, str, list[str]]
) -> None:
    before = (await service.client.get(PATH)).json()

    answer = await service.client.request(method, PATH, json={"config": config})

    assert refusal(answer) == refused
    assert (await service.client.get(PATH)).json() == before


async def test_session_that_says_nothing_gets_what_the_realm_says(service: Service, double: ProviderDouble) -> None:
    params = {"temperature": 0.5, "seed": 7}
    generation = await configured(
        service, **GATEWAY, system_prompt="Be brief.", max_tokens=5, provider_params=params, builtins=False
    )

    state = await created(service, prompt="Hello")

    [request] = await double.requests()
    assert (state["model"], state["provider"], state["config_generation"]) == ("double", "openai_compatible", generation)
    assert request.body["model"] == "double"
    assert request.body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (request.body["temperature"], request.body["seed"]) == (0.5, 7)
    assert 5 in {request.body.get("max_tokens"), request.body.get("max_completion_tokens")}
    assert "tools" not in request.body


async def test_what_a_session_says_goes_over_what_the_realm_says(service: Service, double: ProviderDouble) -> None:
    params = {"temperature": 0.5, "seed": 7, "top_p": 0.5}
    await configured(service, **GATEWAY, system_prompt="Be brief.", max_tokens=5, provider_params=params, builtins=False)

    own = {"temperature": 1, "top_p": None}
    await created(
        service, prompt="Hello", model="other", system_prompt="", max_tokens=6, provider_params=own, tools={"builtins": True}
    )

    [request] = await double.requests()
    assert request.body["model"] == "other"
    assert "Be brief." not in str(request.body["messages"])
    assert (request.body["temperature"], request.body["seed"]) == (1, 7)
    assert "top_p" not in request.body
    assert 6 in {request.body.get("max_tokens"), request.body.get("max_completion_tokens")}
    assert request.body["tools"]


@pytest.mark.parametrize(
    ("config", "fields", "model", "provider"),
    [
        ({}, {}, "scripted", "scripted"),
        ({"default_model": "scripted-2"}, {}, "scripted-2", "scripted"),
        (GATEWAY, {"model": "gpt-5"}, "gpt-5", "openai_compatible"),
        (GATEWAY, {"provider": "scripted"}, "double", "scripted"),
        (GATEWAY, {"model": "scripted", "provider": "scripted"}, "scripted", "scripted"),
        ({"default_provider": "scripted"}, {"model": "llama"}, "llama", "scripted"),
        ({"default_model": "llama", "default_provider": "scripted"}, {}, "llama", "scripted"),
    ],
)
async def test_provider_is_the_named_one_else_the_realms_where_the_model_tells_none(
    service: Service, config: dict[str, Any], fields: dict[str, Any], model: str, provider: str
) -> None:
    await configured(service, **config)

    state = await created(service, **fields)

    assert (state["model"], state["provider"]) == (model, provider)


@pytest.mark.parametrize(
    ("fields", "model", "refused"),
    [
        ({}, "llama", None),
        ({"model": "double", "provider": "openai_compatible"}, "llama", None),
        ({}, "gpt-5", (501, "CAPABILITY_UNAVAILABLE", [])),
    ],
)
async def test_model_of_a_patch_and_of_a_turn_is_asked_where_a_new_sessions_would_be(
    service: Service, double: ProviderDouble, fields: dict[str, Any], model: str, refused: tuple[int, str, list[str]] | None
) -> None:
    await configured(service, default_provider="scripted")
    state = await created(service, **fields)
    path, has_gateway = f"/v1/sessions/{state['session_id']}", bool(fields)

    turn = await service.client.post(f"{path}/turns", json={"prompt": "Hello", "model": model})
    patch = await service.client.patch(path, json={"model": model})

    if refused is not None:
        assert [refusal(answer) for answer in (turn, patch)] == [refused] * 2
        return
    assert (turn.json()["status"], len(await double.requests())) == ("completed", int(has_gateway))
    assert patch.json()["state"]["provider"] == ("openai_compatible" if has_gateway else "scripted")


async def test_default_provider_is_not_asked_for_a_model_whose_name_tells_another(service: Service) -> None:
    await configured(service, default_model="llama", default_provider="scripted")

    answer = await service.client.post("/v1/sessions", json={"model": "gpt-5"})

    assert refusal(answer) == (501, "CAPABILITY_UNAVAILABLE", [])


async def test_params_of_the_realm_stay_away_from_another_provider(service: Service) -> None:
    await configured(service, **GATEWAY, provider_params={"temperature": 0.5})

    assert (await created(service, prompt="Hello", model="scripted", provider="scripted"))["last_assistant_text"]


async def test_session_keeps_what_it_was_made_with_until_it_is_changed(service: Service) -> None:
    first = await configured(service, **GATEWAY)
    state = await created(service)
    second = await configured(service, default_model="scripted", max_tokens=5)
    path = f"/v1/sessions/{state['session_id']}"

    before = (await service.client.get(path)).json()["state"]
    same = (await service.client.patch(path, json={})).json()["state"]
    titled = (await service.client.patch(path, json={"title": "New"})).json()["state"]

    assert [(one["model"], one["config_generation"]) for one in (before, same, titled)] == [
        ("double", first), ("double", first), ("double", second)
    ]  # fmt: skip


async def test_null_in_a_sessions_patch_goes_back_to_the_realms_default(service: Service) -> None:
    await configured(service, **GATEWAY, system_prompt="Be brief.", max_tokens=5, provider_params={"seed": 7}, builtins=False)
    fields = {"model": "scripted", "provider": "scripted", "system_prompt": "Long.", "max_tokens": 9}
    session_id = (await created(service, **fields))["session_id"]
    back = dict.fromkeys(["model", "system_prompt", "max_tokens", "provider_params", "tools"])

    answer = await service.client.patch(f"/v1/sessions/{session_id}", json=back)

    updated = (await service.log_of(session_id))[-1]
    assert answer.status_code == 200
    assert (updated["model"], updated["provider"]) == ("double", "openai_compatible")
    assert (updated["system_prompt"], updated["max_tokens"]) == ("Be brief.", 5)
    assert updated["provider_params"] == {"seed": 7}
    assert "tools" not in updated  # the session had the realm's word on them already


async def test_copies_tell_the_configuration_that_their_options_were_made_under(service: Service) -> None:
    first = await configured(service, max_tokens=5)
    path = f"/v1/sessions/{(await created(service))['session_id']}"
    second = await configured(service, max_tokens=6)

    fork = (await service.client.post(f"{path}/fork")).json()
    document = (await service.client.get(f"{path}/export")).json()
    await service.client.delete(path)
    resumed = (await service.client.post("/v1/sessions", json={"resume_session": document})).json()

    generations = [answer["session"]["state"]["config_generation"] for answer in (fork, resumed)]
    assert generations == [first, second]


async def test_repeat_of_a_creation_gets_the_first_answer_under_another_configuration(service: Service) -> None:
    generation = await configured(service, default_model="scripted-1")
    headers = {"Idempotency-Key": "one-and-the-same"}
    first = await service.client.post("/v1/sessions", json={"title": "A"}, headers=headers)
    await configured(service, default_model="scripted-2")

    again = await service.client.post("/v1/sessions", json={"title": "A"}, headers=headers)

    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    assert again.json()["session"]["state"]["config_generation"] == generation


async def test_put_without_a_body_empties_nothing(service: Service) -> None:
    await configured(service, max_tokens=5)

    answer = await service.client.put(PATH)

    assert refusal(answer) == (422, "INVALID_REQUEST", ["config"])
    assert (await service.client.get(PATH)).json()["config"] == {"max_tokens": 5}
