"""The OpenAPI document as a promise: kept as a snapshot, complete, and true of what is sent.

A wanted change of it is written down with `python -m tests.api.test_openapi` and read in the diff.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from app.api import documents
from app.journal.types import EVENTS
from app.main.service import create_app
from app.settings import Settings
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

SNAPSHOT = Path(__file__).with_name("openapi.json")


def document() -> dict[str, Any]:
    """Build the document as the server does."""
    return create_app(Settings()).openapi()


def written() -> str:
    """Write the document as the snapshot has it."""
    return json.dumps(document(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return every method, path and operation."""
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def test_document_is_the_one_of_the_snapshot() -> None:
    assert written() == SNAPSHOT.read_text(encoding="utf-8"), "wanted? then run: python -m tests.api.test_openapi"


def test_every_event_type_has_a_schema_that_is_part_of_the_union() -> None:
    components = document()["components"]["schemas"]

    mapping = components["Event"]["discriminator"]["mapping"]
    assert mapping.keys() == EVENTS.keys()
    assert [{"$ref": reference} for reference in mapping.values()] == components["Event"]["oneOf"]
    for name, reference in mapping.items():
        schema = components[reference.rpartition("/")[2]]
        assert schema["properties"]["type"]["const"] == name
        assert schema["description"]
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere() -> None:
    whole = document()
    references = set(_references(whole))

    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in whole["components"]["schemas"]


def test_every_operation_has_words_errors_and_the_shape_of_its_answer() -> None:
    for method, path, operation in operations():
        where = f"{method} {path}"
        assert operation.get("summary"), where
        assert operation.get("operationId"), where
        if not path.startswith("/v1/sessions") or operation["responses"].keys() == {"501", "503"}:
            continue
        problem = operation["responses"]["503"]["content"]["application/problem+json"]["schema"]
        assert problem == {"$ref": "#/components/schemas/Problem"}, where
        assert "default" not in operation["responses"], where
        assert ("404" in operation["responses"]) == ("{session_id}" in path), where
        for status in {"200", "201", "202"} & operation["responses"].keys():
            assert operation["responses"][status]["content"]["application/json"]["schema"], where


def test_every_body_has_examples_that_are_valid() -> None:
    whole, models = document(), {model.__name__: model for model in documents._REQUESTS}
    bodies = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for _, _, operation in operations()
        if "requestBody" in operation
    }

    assert bodies >= {"CreateSession", "ChangeSession", "StartTurn", "EditTurn", "Interrupt", "PutConfig", "PatchConfig"}
    for name in bodies:
        examples = whole["components"]["schemas"][name].get("examples")
        assert examples, name
        for example in examples:
            models[name].model_validate(example, strict=True)
    assert whole["components"]["schemas"]["Problem"]["examples"]


@pytest.mark.anyio
async def test_served_document_is_the_one_of_the_snapshot(shared_service: Service) -> None:
    served = (await shared_service.client.get("/openapi.json")).json()

    assert served == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


@pytest.mark.anyio
async def test_events_that_are_sent_match_their_schemas(service: Service, double: ProviderDouble) -> None:
    call = scripts.tool_call("datetime", {})
    await double.play([scripts.reasoning("hm"), call, scripts.finish("tool_calls")], [scripts.text("a"), scripts.cut()])
    created = await service.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"
    await service.ended(created["session_id"], created["turn"]["turn_id"])
    await service.client.patch(path, json={"title": "New"})
    await service.client.post(f"{path}/archive")

    whole = (await service.client.get("/openapi.json")).json()
    log = await service.log_of(created["session_id"])
    assert {"reasoning_delta", "tool_call_delta", "retrying", "step_discarded", "session_updated"} <= {e["type"] for e in log}
    for event in log:
        reference = whole["components"]["schemas"]["Event"]["discriminator"]["mapping"][event["type"]]
        schema = {"$ref": reference, "components": whole["components"]}
        jsonschema.validate(event, schema, cls=jsonschema.Draft202012Validator)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for member in value.values():
            yield from _references(member)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


if __name__ == "__main__":
    SNAPSHOT.write_text(written(), encoding="utf-8")
