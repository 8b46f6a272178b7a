"""The house keeps its proportions: small files, short functions, rooms without hidden doors."""

import ast
import re
from pathlib import Path

from app.turns import claims
from tests.project.source import APP, TESTS, python_files, relative, strings, tree

MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 50
TOO_LONG: frozenset[str] = frozenset()
"""Files, or functions as `file::name`, that may be longer. It may only shrink."""

SQL = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|CREATE|DROP|ALTER|LISTEN|NOTIFY|SHOW)\s")
SPEAK_SQL = {
    "db", "journal", "sessions", "realms", "catalog", "expiry", "nodes", "history", "idempotency", "copies", "turns",
    "credentials", "limits", "audit", "usage", "webhooks", "erasure",
}  # fmt: skip


def test_files_are_short() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(APP, TESTS)}

    assert {name: lines for name, lines in lengths.items() if lines > MOST_FILE_LINES and name not in TOO_LONG} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{relative(path)}::{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in python_files(APP, TESTS)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert {name: lines for name, lines in lengths.items() if lines > MOST_FUNCTION_LINES and name not in TOO_LONG} == {}


def test_the_list_of_exceptions_names_nothing_that_is_gone() -> None:
    files = {relative(path) for path in python_files(APP, TESTS)}

    assert {name for name in TOO_LONG if name.partition("::")[0] not in files} == set()


def test_rooms_begin_with_a_docstring_and_import_nothing() -> None:
    for path in python_files(APP):
        if path.name == "__init__.py":
            body = tree(path).body
            assert len(body) == 1, f"{relative(path)} holds more than its docstring"
            assert ast.get_docstring(tree(path)), f"{relative(path)} says nothing"


def test_every_module_says_what_it_is_for() -> None:
    assert [relative(path) for path in python_files(APP, TESTS) if not ast.get_docstring(tree(path))] == []


def test_sql_is_spoken_only_where_the_architecture_says() -> None:
    speakers = {_room(path) for path in python_files(APP) if any(SQL.match(text) for text in strings(path))}

    assert speakers <= SPEAK_SQL


def test_events_are_inserted_by_the_journal_alone_and_never_changed() -> None:
    said = {relative(path): " ".join(strings(path)) for path in python_files(APP)}

    assert [name for name, text in said.items() if re.search(r"INSERT INTO (events\b|{})", text)] == ["app/journal/append.py"]
    assert [name for name, text in said.items() if re.search(r"(UPDATE|TRUNCATE) (events\b|{})", text)] == []
    assert [name for name, text in said.items() if re.search(r"DELETE FROM (events\b|{})", text)] == [
        "app/erasure.py",
        "app/journal/retention.py",
        "app/sessions.py",
    ]


def test_leases_are_granted_and_judged_by_the_clock_of_the_database() -> None:
    judged = [text for path in python_files(APP) for text in strings(path) if re.search(r"lease_expires_at\s*[<>]", text)]

    assert judged
    assert [text for text in judged if "lease_expires_at <= clock_timestamp()" not in text] == []
    assert claims.LEASE_UNTIL.startswith("clock_timestamp() + ")


def _room(path: Path) -> str:
    return path.relative_to(APP).parts[0].removesuffix(".py")
