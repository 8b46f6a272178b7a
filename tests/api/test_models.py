"""The list of models: what sessions may name here, and what is known of it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import jsonschema
import pytest

from tests.service import Service

pytestmark = pytest.mark.anyio

SCRIPTED = {
    "id": "scripted", "provider": "scripted", "context_window": 1_000_000, "max_output_tokens": 1_000_000,
    "abilities": ["reasoning", "tools"], "is_default": True,
}  # fmt: skip


async def listed(service: Service) -> dict[str, Any]:
    """Read the list, and hold it against its schema."""
    answer = await service.client.get("/v1/models")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    whole = (await service.client.get("/openapi.json")).json()
    schema = {"$ref": "#/components/schemas/ModelList", "components": whole["components"]}
    jsonschema.validate(told, schema, cls=jsonschema.Draft202012Validator)
    return told


@pytest.fixture
async def own_realm(service: Service) -> AsyncIterator[Service]:
    """The shared server, whose realm's configuration is emptied at the end."""
    yield service
    await service.client.put("/v1/realm/config", json={"config": {}})


async def test_models_of_vendors_that_are_off_are_not_listed(service: Service) -> None:
    assert await listed(service) == {"models": [SCRIPTED], "open_providers": ["openai_compatible"]}


async def test_realms_default_is_listed_with_null_for_what_is_not_known(own_realm: Service) -> None:
    config = {"default_model": "qwen3", "default_provider": "openai_compatible"}
    put = await own_realm.client.put("/v1/realm/config", json={"config": config})
    assert put.status_code == 200, put.text

    told = await listed(own_realm)

    assert told["models"] == [
        SCRIPTED | {"is_default": False},
        {"id": "qwen3", "provider": "openai_compatible", "context_window": None, "max_output_tokens": None, "abilities": None,
         "is_default": True},
    ]  # fmt: skip


async def test_query_that_is_not_known_is_refused(service: Service) -> None:
    answer = await service.client.get("/v1/models?provider=scripted")

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")


async def test_vendors_with_a_key_or_a_base_url_are_listed_and_no_key_is_shown(serve: Callable[..., Any]) -> None:
    service: Service = await serve(
        ANTHROPIC_API_KEY="sk-canary", GEMINI_BASE_URL="http://127.0.0.1:1/v1beta", SURICATE_DEFAULT_MODEL="claude-next"
    )

    told = await listed(service)
    capabilities = (await service.client.get("/v1/capabilities")).json()

    assert {model["provider"] for model in told["models"]} == {"anthropic", "gemini", "scripted"}
    assert [(model["id"], model["context_window"]) for model in told["models"] if model["is_default"]] == [
        ("claude-next", None)
    ]
    assert told["open_providers"] == []
    assert capabilities["providers"] == ["anthropic", "gemini", "scripted"]
    assert "canary" not in str(told) + str(capabilities) + service.log.read_text()


async def test_vendor_that_is_off_is_refused_with_the_setting_that_turns_it_on(service: Service) -> None:
    for provider in ("anthropic", "openai", "gemini"):
        answer = await service.client.post("/v1/sessions", json={"model": "m", "provider": provider})

        assert (answer.status_code, answer.json()["code"]) == (501, "CAPABILITY_UNAVAILABLE")
        assert f"{provider.upper()}_API_KEY" in answer.json()["detail"]
