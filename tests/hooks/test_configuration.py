"""The operator's hooks as JSON: what is taken, and what keeps the server from starting."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from app.errors import StartupError
from app.hooks import configuration, endpoint
from app.hooks.configuration import NO_HOOKS, Configuration
from tests.hooks.receiver import SECRET

HOOK: dict[str, Any] = {"id": "pii", "points": ["turn_started"], "url": "http://hooks.test/pii", "capability": "guardrail"}
PLUGIN: dict[str, Any] = {"id": "audit", "points": ["turn_started"], "entry_point": "audit", "capability": "observe"}


def load(document: Any) -> Configuration:
    return configuration.load(orjson.dumps(document).decode())


def one(**changes: Any) -> dict[str, Any]:
    """Return a configuration whose one hook has these fields, None leaving one out."""
    hook = {name: value for name, value in (HOOK | changes).items() if value is not None}
    return {"secret": SECRET, "hooks": [hook]}


def test_unset_is_no_hooks() -> None:
    assert configuration.load(None) == NO_HOOKS
    assert NO_HOOKS.hooks == []


def test_a_hook_has_the_defaults_of_its_page() -> None:
    (entry,) = load(one()).hooks

    assert (entry.mode, entry.priority, entry.timeout_ms, entry.secret, entry.required) == ("foreground", 0, 5000, None, False)


def test_file_holds_the_same_object_as_the_setting(tmp_path: Path) -> None:
    file = tmp_path / "hooks.json"
    file.write_bytes(orjson.dumps(one()))

    assert configuration.load(str(file)) == load(one())


def test_secrets_are_not_shown() -> None:
    assert SECRET not in repr(load(one(secret=SECRET)))


def test_plugins_alone_need_no_secret() -> None:
    assert load({"hooks": [PLUGIN]}).secret is None


def test_secret_of_its_own_serves_a_hook() -> None:
    assert load({"hooks": [HOOK | {"secret": SECRET}]}).secret is None


@pytest.mark.parametrize(
    "document",
    [
        {"hook": []},
        {"secret": "short"},
        {"hooks": [HOOK]},
        {"allowed_hosts": ["hooks.test"]},
        {"secret": SECRET, "hooks": [HOOK, HOOK]},
        {"secret": SECRET, "hooks": [HOOK | {"entry_point": "audit"}]},
        {"hooks": [PLUGIN | {"secret": SECRET}]},
        one(url=None),
        one(points=[]),
        one(points=["turn_interrupted"]),
        one(id=""),
        one(id="a b"),
        one(id="a" * 65),
        one(url="ftp://hooks.test"),
        one(url="http://user@hooks.test"),
        one(url=5),
        one(capability="admin"),
        one(mode="later"),
        one(mode="background"),
        one(priority="1"),
        one(priority=True),
        one(timeout_ms=0),
        one(timeout_ms=5001),
        one(command="rm"),
        one(points=["turn_failed"]),
        one(points=["turn_started", "turn_failed"]),
        one(capability="rewrite"),
        one(capability="rewrite", points=["turn_completed", "step_boundary"]),
    ],
)
def test_configuration_that_is_not_valid_keeps_the_server_from_starting(document: Any) -> None:
    with pytest.raises(StartupError, match="hooks"):
        load(document)


def test_faults_are_named_without_any_value() -> None:
    with pytest.raises(StartupError) as caught:
        load({"secret": "canary", "hooks": [HOOK | {"url": "http://canary:canary@hooks.test"}]})

    assert "hooks.0.url" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_file_that_holds_no_object_keeps_the_server_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "hooks.json"
    file.write_text("[]", encoding="utf-8")

    with pytest.raises(StartupError, match="hooks"):
        configuration.load(str(file))


@pytest.mark.parametrize("value", ["{", '{"hooks": [}', "missing.json"])
def test_what_cannot_be_read_keeps_the_server_from_starting(value: str) -> None:
    with pytest.raises(StartupError):
        configuration.load(value)


@pytest.mark.parametrize(
    ("allowed", "url", "is_allowed"),
    [
        ("hooks.test", "https://hooks.test/a", True),
        ("hooks.test", "http://HOOKS.test:9000/a", True),
        ("Hooks.Test", "https://hooks.test/a", True),
        ("hooks.test:443", "https://hooks.test/a", True),
        ("hooks.test:443", "https://hooks.test:443/a", True),
        ("hooks.test:443", "http://hooks.test/a", False),
        ("hooks.test:80", "https://hooks.test/a", False),
        ("hooks.test", "https://evil.hooks.test/a", False),
        ("hooks.test", "https://hooks.test.evil/a", False),
        ("hooks.test", "https://evil.test/hooks.test", False),
        ("hooks.test", "https://evil.test\\@hooks.test/", False),
        ("127.0.0.1", "http://127.1/", False),
        ("127.0.0.1", "http://2130706433/", False),
        ("[::1]:80", "http://[::1]/", True),
        ("[::1]", "http://[::2]/", False),
    ],
)
def test_host_is_allowed_by_its_exact_name_and_port(allowed: str, url: str, is_allowed: bool) -> None:
    (host,) = load({"secret": SECRET, "allowed_hosts": [allowed]}).allowed_hosts

    try:
        assert host.covers(endpoint.url_of(url)) is is_allowed
    except ValueError:
        assert not is_allowed


@pytest.mark.parametrize(
    "allowed", ["", "http://hooks.test", "hooks.test/", "u@hooks.test", "hooks.test:x", "hööks.test", 5, "*?"]
)
def test_host_of_another_form_keeps_the_server_from_starting(allowed: Any) -> None:
    with pytest.raises(StartupError, match="allowed_hosts"):
        load({"secret": SECRET, "allowed_hosts": [allowed]})
