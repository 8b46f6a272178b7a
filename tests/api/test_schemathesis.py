"""Requests made up from the server's own OpenAPI document: no answer is undocumented, of another shape, or a mistake.

The document is the snapshot, which `test_openapi` holds against the one that is served.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.core.result import Ok
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.specs.openapi import checks

from tests.api.databases import fresh_database
from tests.service import Service

EXAMPLES = 12
JOURNEYS, STEPS = 6, 12
REQUEST_SECONDS = 10
ASKING = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=False,
)
HELD = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]

DOCUMENT = Path(__file__).with_name("openapi.json")
OPERATIONS = [
    f"{method.upper()} {path}" for path, methods in orjson.loads(DOCUMENT.read_bytes())["paths"].items() for method in methods
]


@pytest.fixture(scope="module")
def document() -> Any:
    """The OpenAPI document."""
    return schemathesis.openapi.from_path(DOCUMENT)


@pytest.fixture(scope="module")
def asks(document: Any) -> dict[str, Callable[..., None]]:
    """What asks each operation; made here and not when tests are collected, since it takes seconds that each process would."""
    made = get_all_tests(schema=document, test_func=ask, settings=ASKING, given_kwargs={})
    return {operation.label: test for operation, test in (result.ok() for result in made if isinstance(result, Ok))}


@pytest.fixture(scope="module")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server of its own, whose scripted model speaks at full speed."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(fresh_database(postgres)) as url:
        values = {
            "SURICATE_DATABASE_URL": url,
            "SURICATE_SCRIPTED_TOKENS_PER_SECOND": "0",
            "SURICATE_MAX_WAIT_SECONDS": "2",
        }
        started = Service.started(tmp_path_factory.mktemp("schemathesis"), values)
        with portal.wrap_async_context_manager(started) as service:
            yield service


@pytest.fixture(scope="module")
def known_ids(server: Service) -> dict[str, str]:
    """A session and a turn that exist."""
    import httpx2

    created = httpx2.post(f"{server.base_url}/v1/sessions", json={"prompt": "Hello"}, trust_env=False).json()
    return {"session_id": created["session_id"], "turn_id": created["turn"]["turn_id"]}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_answer_is_documented(
    operation: str, asks: dict[str, Callable[..., None]], server: Service, known_ids: dict[str, str]
) -> None:
    asks[operation](server=server, known_ids=known_ids)


def ask(case: Any, server: Service, known_ids: dict[str, str]) -> None:
    """Ask what was made up, and hold the answer against the document."""
    if case.method != "DELETE":  # what others need stays
        for name, value in known_ids.items():
            if name in (case.path_parameters or {}) and len(case.path_parameters[name]) % 2:
                case.path_parameters[name] = value
    headers = {"Accept": "application/json"}

    response = case.call(base_url=server.base_url, headers=headers, timeout=REQUEST_SECONDS)

    assert response.status_code < 500 or response.status_code == 501, response.text
    case.validate_response(response, checks=HELD)


@pytest.mark.slow
def test_every_journey_that_the_document_links_is_documented(server: Service, document: Any) -> None:
    sessions = document.exclude(path_regex="^/v1/(nodes|realm)")

    class Journey(sessions.as_state_machine()):  # type: ignore[misc] # made at run time
        """Walks from answers that name sessions and turns to what can be asked about them."""

        def get_call_kwargs(self, _case: Any) -> dict[str, Any]:
            return {"base_url": server.base_url, "headers": {"Accept": "application/json"}, "timeout": REQUEST_SECONDS}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            assert response.status_code < 500 or response.status_code == 501, response.text
            case.validate_response(response, checks=HELD)

    run_state_machine_as_test(
        Journey,
        settings=settings(
            max_examples=JOURNEYS,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )


def test_server_still_answers_and_logged_no_mistake(server: Service) -> None:
    assert "request_crashed" not in server.log.read_text()
    assert "Traceback" not in server.log.read_text()
