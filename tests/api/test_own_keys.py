"""Realms that bring keys and URLs of vendors: shown to nobody, sealed at rest, and asked with instead of the server's."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.databases import fetch, fresh_database
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

PATH = "/v1/realm/config"
KEYS = "k1:" + "A" * 43 + "="
OPERATORS, TENANTS = "operators-canary", "tenants-canary"
PARIS = (scripts.text("Paris."), scripts.finish())


@pytest.fixture(scope="module")
async def own(
    postgres: str, shared_double: ProviderDouble, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Service, str]]:
    """A server that can seal, and lets callers in to loopback; with its database."""
    async with fresh_database(postgres) as url:
        settings = {
            "SURICATE_DATABASE_URL": url,
            "SURICATE_OPENAI_COMPATIBLE_BASE_URL": "http://127.0.0.1:1/v1",
            "SURICATE_OPENAI_COMPATIBLE_API_KEY": OPERATORS,
            "SURICATE_SEAL_KEYS": KEYS,
            "SURICATE_OUTBOUND_TENANTS_INSIDE": '["127.0.0.1"]',
            "SURICATE_OUTBOUND_HTTP": "true",
        }
        async with Service.started(tmp_path_factory.mktemp("own"), settings) as service:
            yield service, url


async def bring(service: Service, **providers: Any) -> Any:
    answer = await service.client.put(PATH, json={"config": {"providers": providers}})
    assert answer.status_code == 200, answer.text
    return answer.json()["config"]


async def test_turn_is_asked_with_the_realms_key_at_its_url_and_no_word_of_it_is_shown_or_kept(
    own: tuple[Service, str], double: ProviderDouble
) -> None:
    service, url = own
    await double.play(PARIS)

    shown = await bring(service, openai_compatible={"api_key": TENANTS, "base_url": double.base_url})
    created = await service.create("Where?")
    view = await service.ended(created["session_id"], created["turn"]["turn_id"])

    [request] = await double.requests()
    assert (view["text"], request.headers["authorization"]) == ("Paris.", f"Bearer {TENANTS}")
    assert shown["providers"] == {"openai_compatible": {"api_key": {"is_set": True}, "base_url": double.base_url}}
    [row] = await fetch(url, "SELECT config FROM realms")
    assert '"api_key":"k1.' in row["config"]
    everything = row["config"] + (await service.client.get(PATH)).text + service.log.read_text()
    assert TENANTS not in everything
    assert OPERATORS not in everything


async def test_url_without_a_key_is_asked_without_any(own: tuple[Service, str], double: ProviderDouble) -> None:
    service, _ = own
    await double.play(PARIS)

    await bring(service, openai_compatible={"base_url": double.base_url})
    created = await service.create("Where?")
    await service.ended(created["session_id"], created["turn"]["turn_id"])

    [request] = await double.requests()
    assert "authorization" not in request.headers


async def test_models_and_capabilities_follow_what_is_brought_and_what_is_taken_away(own: tuple[Service, str]) -> None:
    service, _ = own

    await bring(service, anthropic={"api_key": TENANTS})
    with_own = (await service.client.get("/v1/capabilities")).json()["providers"]
    listed = {model["provider"] for model in (await service.client.get("/v1/models")).json()["models"]}
    removed = await service.client.patch(PATH, json={"config": {"providers": {"anthropic": None}}})
    without = (await service.client.get("/v1/capabilities")).json()["providers"]

    assert (with_own, "anthropic" in listed) == (["anthropic", "openai_compatible", "scripted"], True)
    assert (removed.json()["config"], without) == ({"providers": {}}, ["openai_compatible", "scripted"])


async def test_compaction_is_asked_with_the_realms_key(own: tuple[Service, str], double: ProviderDouble) -> None:
    service, _ = own
    await bring(service, openai_compatible={"api_key": TENANTS, "base_url": double.base_url})
    created = await service.create()
    for prompt in ("one", "two", "three"):
        await double.play((scripts.text(prompt * 2_000), scripts.finish()))
        path = f"/v1/sessions/{created['session_id']}/turns"
        assert (await service.client.post(path, json={"prompt": prompt * 2_000})).json()["status"] == "completed"
    await double.play((scripts.text("In short."), scripts.finish()))

    answer = await service.client.post(f"/v1/sessions/{created['session_id']}/compact")

    assert answer.status_code == 200
    assert {request.headers["authorization"] for request in await double.requests()} == {f"Bearer {TENANTS}"}


@pytest.mark.parametrize(
    ("providers", "status", "loc"),
    [
        ({"openai": {"base_url": "http://10.0.0.1/v1"}}, 422, "config.providers.openai.base_url"),
        ({"openai": {"base_url": "http://169.254.169.254/"}}, 422, "config.providers.openai.base_url"),
        ({"openai": {"base_url": "file:///etc/passwd"}}, 422, "config.providers.openai.base_url"),
        ({"openai": {"base_url": 5}}, 422, "config.providers.openai.base_url"),
        ({"openai": {"api_key": "with\nline"}}, 422, "config.providers.openai.api_key"),
        ({"openai": {"api_key": {"is_set": True}}}, 422, "config.providers.openai.api_key"),
        ({"openai": {"key": "x"}}, 422, "config.providers.openai.key"),
        ({"scripted": {"api_key": "x"}}, 422, "config.providers.scripted"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_what_may_not_be_brought_is_refused_with_its_place(
    own: tuple[Service, str], method: str, providers: dict[str, Any], status: int, loc: str
) -> None:
    service, _ = own

    answer = await service.client.request(method, PATH, json={"config": {"providers": providers}})

    assert answer.status_code == status
    assert any(fault["loc"].startswith(loc) for fault in answer.json()["errors"])


async def test_without_a_key_to_seal_with_setting_one_is_refused_in_words(
    configurable: Service, double: ProviderDouble
) -> None:
    key = await configurable.client.put(PATH, json={"config": {"providers": {"openai": {"api_key": TENANTS}}}})
    patched = await configurable.client.patch(PATH, json={"config": {"providers": {"openai": {"api_key": TENANTS}}}})

    assert [(answer.status_code, answer.json()["code"]) for answer in (key, patched)] == [(501, "CAPABILITY_UNAVAILABLE")] * 2
    assert "SURICATE_SEAL_KEYS=" in key.json()["detail"]
    assert TENANTS not in key.text + patched.text
