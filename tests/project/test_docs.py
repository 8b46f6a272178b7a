"""The documents are true: every name of the code is in its page, and no page names what is gone."""

import ast
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jsonschema
import orjson
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import Table

from app import telemetry
from app.agent.budget import Meter
from app.api import documents, problems
from app.copies.document import ExportedOptions, ExportedSession, ExportedTurn
from app.db.tables import metadata
from app.journal.types import EVENTS, RESERVED
from app.main.service import create_app
from app.providers import anthropic, gemini, openai, openai_compatible, scripted
from app.realms import Config
from app.settings import Settings
from tests.project import source
from tests.project.source import APP, DOCS, ROOT, blocks, module_name, python_files, quoted, relative, rows, section

API, EVENTS_PAGE, ARCHITECTURE = DOCS / "api.md", DOCS / "events.md", DOCS / "architecture.md"
OPERATIONS, GLOSSARY = DOCS / "operations.md", DOCS / "glossary.md"
ENVELOPE = {"seq", "session_id", "turn_id", "type", "at", "scope_id"}
FORBIDDEN = re.compile(
    "|".join(["py" + "pi", "python" + "hosted", "/ho" + "me/", "/ro" + "ot/", "/wo" + "rk/", "/Us" + "ers/"])
)
"""A registry's host, and folders of one machine; put together here so that this file does not hold them."""
ADR_HEADINGS = ["Context", "Decision", "Consequences", "Alternatives", "Guard"]


def first_column(page: Path, heading: str) -> list[str]:
    """Return the names in backticks that the rows of a section's first table begin with."""
    return [quoted(row[0])[0] for row in rows(section(page, heading)) if quoted(row[0])]


def served() -> set[str]:
    """Return every route of ours that a server has."""
    routes = [context.original_route for context in iter_route_contexts(create_app(Settings()).routes)]
    return {f"{method} {route.path}" for route in routes if isinstance(route, APIRoute) for method in route.methods or ()}


def calls(*names: str) -> list[ast.Call]:
    """Return all calls of functions or methods of these names in app/."""
    return [
        node
        for path in python_files(APP)
        for node in ast.walk(source.tree(path))
        if isinstance(node, ast.Call) and (getattr(node.func, "id", None) or getattr(node.func, "attr", None)) in names
    ]


def first_words(found: list[ast.Call]) -> set[str]:
    """Return the first arguments that are plain strings."""
    heads = [call.args[0] for call in found if call.args]
    return {head.value for head in heads if isinstance(head, ast.Constant) and isinstance(head.value, str)}


def test_every_route_is_in_its_page_and_none_that_is_gone() -> None:
    assert sorted(first_column(API, "Routes")) == sorted(served())


def test_operations_of_the_trait_are_mapped_to_routes_that_exist() -> None:
    routes = set(first_column(API, "Routes"))

    assert {quoted(row[1])[0] for row in rows(section(GLOSSARY, "The trait's words").partition("| operation")[2])} <= routes


def test_every_error_code_is_in_its_page_with_its_status() -> None:
    told = {quoted(row[0])[0]: int(row[1]) for row in rows(section(API, "Errors"))}

    assert told == problems.STATUS


def test_every_error_class_has_a_code_with_a_status() -> None:
    codes = {
        node.value.value
        for node in ast.walk(source.tree(APP / "errors.py"))
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and getattr(node.targets[0], "id", "") == "code"
    }

    assert codes - {"AGENT_ERROR"} <= problems.STATUS.keys()


def test_every_reason_of_a_failed_turn_is_in_its_page() -> None:
    raised = {word for word in first_words(calls("AgentError", "ProviderError", "Unsummed")) if word.isupper()}
    raised |= set(get_args(get_type_hints(Meter)["reason"]))

    assert set(first_column(API, "Reasons of a failed turn")) == raised


def test_every_field_that_is_refused_is_named() -> None:
    fields_refused = {name for model in documents._REQUESTS for name in getattr(model, "later", ())}

    assert fields_refused <= set(quoted(section(API, "Routes")))


@pytest.mark.parametrize("provider", [scripted, openai_compatible, anthropic, openai, gemini])
def test_provider_params_are_in_their_page(provider: Any) -> None:
    name = provider.__name__.rpartition(".")[2]
    text = section(API, f"`{name}`").partition("| provider_params")[2]

    assert [quoted(row[0])[0] for row in rows("| provider_params" + text)] == list(provider.Params.model_fields)


def test_every_key_of_a_realms_configuration_is_in_its_page_and_none_that_is_gone() -> None:
    told = rows(section(API, "The realm's configuration"))

    assert [quoted(row[0])[0] for row in told] == list(Config.model_fields)


def test_every_event_type_is_in_its_page_and_none_that_is_gone() -> None:
    text = EVENTS_PAGE.read_text(encoding="utf-8")

    assert sorted(re.findall(r"^### `(\w+)`$", text, re.MULTILINE)) == sorted(EVENTS)
    assert set(quoted(section(EVENTS_PAGE, "Reserved"))) - {"types="} == RESERVED


@pytest.mark.parametrize("name", EVENTS)
def test_event_is_told_with_its_fields_and_an_example_that_is_one(name: str) -> None:
    told = section(EVENTS_PAGE, f"`{name}`")
    example = orjson.loads(re.findall(r"^```json\n(.*?)^```$", told, re.MULTILINE | re.DOTALL)[0])
    own = [field.name for field in fields(EVENTS[name])]

    jsonschema.validate(example, documents.event_schemas()[name])
    if name != "session_updated":
        assert [quoted(row[0])[0] for row in rows(told)] == own
        assert example.keys() == ENVELOPE | set(own)


def test_the_envelope_is_told_as_it_is() -> None:
    assert set(first_column(EVENTS_PAGE, "The envelope")) == ENVELOPE


def test_every_room_and_module_is_on_the_map_and_none_that_is_gone() -> None:
    modules = {module_name(path) for path in python_files(APP)} - {"app"}
    told = [*first_of_second_column("Floors"), *first_column(ARCHITECTURE, "Modules")]

    assert sorted(told) == sorted(modules)


def first_of_second_column(heading: str) -> list[str]:
    """Return the names in the second column of a table of the architecture."""
    return [quoted(row[1])[0] for row in rows(section(ARCHITECTURE, heading))]


def test_tables_are_those_of_the_schema() -> None:
    tables: dict[str, Table] = dict(metadata.tables)

    assert first_column(ARCHITECTURE, "Data") == list(tables)


def test_each_invariant_is_guarded_by_tests_that_exist() -> None:
    invariants = rows(section(ARCHITECTURE, "Invariants"))

    assert [row[0] for row in invariants] == [str(number) for number in range(1, 11)]
    for number, _, guards in invariants:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", guards)
        assert named, f"invariant {number} has no guard"
        assert [test for test in named if not is_test(*test)] == []


def is_test(file: str, name: str) -> bool:
    """Tell whether a file has a test of that name."""
    path = ROOT / file
    return path.exists() and name in {getattr(node, "name", None) for node in source.tree(path).body}


def test_every_metric_is_in_its_page_and_none_that_is_gone() -> None:
    kept = {
        metric.name + ("_total" if metric.type == "counter" else ""): metric.type for metric in telemetry.REGISTRY.collect()
    }
    told = {quoted(row[0])[0]: row[1].partition(",")[0] for row in rows(section(OPERATIONS, "Metrics"))}

    assert told == kept


def test_every_log_line_is_in_its_page_with_its_level() -> None:
    told = {quoted(row[0])[0]: row[1] for row in rows(section(OPERATIONS, "Logs"))}
    written = {
        word: "error" if level == "exception" else level
        for level in ("debug", "info", "warning", "error", "exception")
        for word in first_words([call for call in calls(level) if getattr(call.func, "value", None) is not None])
    }

    assert told == written


def test_members_of_an_export_are_in_its_page_and_none_that_is_gone() -> None:
    told = {quoted(row[0])[0]: set(quoted(row[1])) for row in rows(section(API, "Copies of sessions"))}

    assert told["session"] == {*ExportedSession.model_fields, *ExportedOptions.model_fields}
    assert told["turns"] == {*ExportedTurn.model_fields}


def test_links_lead_somewhere() -> None:
    for page in source.documents():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://")):
                assert (page.parent / target).exists(), f"{relative(page)} links to {target}"


def test_pages_and_tests_that_are_named_anywhere_exist() -> None:
    texts = [*python_files(APP), *source.documents(), ROOT / "pyproject.toml"]
    named = {
        (relative(path), name)
        for path in texts
        for name in re.findall(r"(?<![\w./-])(?:docs|tests)/[\w./-]*\w", path.read_text(encoding="utf-8"))
    }

    assert {(page, name) for page, name in named if not (ROOT / name).exists() and not list(ROOT.glob(f"{name}-*.md"))} == set()


def test_decisions_are_numbered_and_of_one_form() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))

    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {page.name[:4]}: "), relative(page)
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ADR_HEADINGS, relative(page)
        assert len(text.splitlines()) <= 60, f"{relative(page)} is longer than a page"


def test_examples_of_the_wire_are_json() -> None:
    for page in (API, EVENTS_PAGE):
        for block in blocks(page, "json"):
            orjson.loads(block)


def test_no_file_holds_a_registry_or_a_folder_of_one_machine() -> None:
    found = {
        relative(path): match[0]
        for path in source.our_files()
        if (match := FORBIDDEN.search(path.read_text(encoding="utf-8", errors="replace")))
    }

    assert found == {}


def test_requirements_name_no_address() -> None:
    for path in ROOT.glob("requirements*.txt"):
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", path.read_text(encoding="utf-8")), relative(path)
