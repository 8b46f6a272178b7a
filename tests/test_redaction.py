"""Secrets leave what the service writes, by value and by form; everything else stays as it is."""

import subprocess
import sys
from typing import Any

import orjson
import pytest

from app import redaction
from app.errors import AgentError, SuricateError
from app.hooks.base import HookFault
from app.redaction import MARK, MOST_PASSING, Redactor, credentials_in, credentials_of
from app.settings import Settings
from app.tools.base import ToolError
from tests.service import ROOT

CANARY = "canary/of+16=chars"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> str:
    """A value that the process's own redactor knows."""
    monkeypatch.setattr(redaction.REDACTOR, "_known", {})
    redaction.learn([CANARY])
    return CANARY


def test_known_value_leaves_in_each_of_its_spellings() -> None:
    redactor = Redactor()
    redactor.learn(['a "quoted" / secret'])

    for text in ('a "quoted" / secret', orjson.dumps('a "quoted" / secret').decode(), "a%20%22quoted%22%20%2F%20secret"):
        assert redactor.redacted(f"<{text}>").replace('"', "") == f"<{MARK}>"


def test_short_value_is_not_looked_for() -> None:
    redactor = Redactor()
    redactor.learn(["", "short"])

    assert redactor.redacted("a short text") == "a short text"


def test_values_in_passing_are_known_while_they_are_new() -> None:
    redactor = Redactor()
    redactor.learn(["configured-value"])
    for number in range(MOST_PASSING + 1):
        redactor.learn_passing(f"tenants-key-{number:05}.")

    assert redactor.redacted("tenants-key-00000.") == "tenants-key-00000."
    assert redactor.redacted(f"tenants-key-{MOST_PASSING:05}.") == MARK
    assert redactor.redacted("configured-value") == MARK


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abcdefgh.123", f"Authorization: Bearer {MARK}"),
        ("authorization: basic dXNlcjpwYXNz", f"authorization: basic {MARK}"),
        ("GET /v1/events?ticket=abcdefghijk&after=1", f"GET /v1/events?ticket={MARK}&after=1"),
        ("https://x.example/v1?key=abcdefghijk", f"https://x.example/v1?key={MARK}"),
        ('{"x-goog-api-key": "abcdefghijk"}', f'{{"x-goog-api-key": "{MARK}"}}'),
        ("postgresql://user:pass@host/db", f"postgresql://{MARK}@host/db"),
        ("nats://token@host:4222", f"nats://{MARK}@host:4222"),
        ("key sk-ant-api03-AbCdEfGh is wrong", f"key {MARK} is wrong"),
        ("sur_0123456789abcdef sut_01-23_4-56789abcdef", f"{MARK} {MARK}"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", MARK),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl", MARK),
        ("AIza" + "x" * 35, MARK),
        ("ghp_0123456789abcdef", MARK),
        ("AKIAIOSFODNN7EXAMPLE", MARK),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nrest", f"{MARK}\nrest"),
        ("-----BEGIN PRIVATE KEY-----\\nMII, cut", MARK),
    ],
)
def test_what_looks_like_a_secret_leaves(text: str, left: str) -> None:
    assert Redactor().redacted(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "task-management of 2 turns",
        "the bearer of news",
        "monkey=bananas-and-more",
        "https://host.example/a@b",
        "max_tokens=500 total_tokens=1000000000",
        "01998f3e-2a51-7c3d-9b1e-5f2a7c9d0e11",
    ],
)
def test_plain_words_stay(text: str) -> None:
    assert Redactor().redacted(text) == text


def test_text_that_is_made_to_take_long_does_not() -> None:
    for piece in ("://a", "eyJa", "sk-", "-----BEGIN PRIVATE KEY-----", "password=", "bearer "):
        Redactor().redacted(piece * 50_000)  # the test's own limit of time would tell


def test_credentials_of_urls_are_passwords_and_lone_users() -> None:
    assert list(credentials_of("postgresql://user:p%40ssword@host/db?sslpassword=another")) == ["p@ssword", "another"]
    assert list(credentials_of("nats://token-of-nats@host:4222,other:4222")) == ["token-of-nats"]
    assert list(credentials_of("postgresql://postgres:postgres@host/db")) == []
    assert list(credentials_of("postgresql:///db?host=/tmp")) == []
    assert list(credentials_in(["Bearer abc"])) == ["Bearer abc", "abc"]


def test_every_setting_that_is_not_shown_is_known() -> None:
    hidden = {name for name, field in Settings.model_fields.items() if not field.repr}
    values = {name: f"{name}-canary" for name in hidden}
    values |= {name: f"https://user:{name}-canary@h.example/" for name in hidden if "url" in name}
    values |= {name: f"a=b,c=Bearer%20{name}-canary" for name in hidden if "otlp" in name}
    settings = Settings.model_construct(**values)  # type: ignore[arg-type] # strings stand for URLs

    told = {secret for secret in settings.secrets if secret.endswith("canary")}
    assert {secret.removeprefix("Bearer ") for secret in told} == {f"{name}-canary" for name in hidden - {"hooks"}}
    assert "canary" not in repr(settings)


@pytest.mark.parametrize("kind", [SuricateError, ToolError, HookFault, lambda text: AgentError("INTERNAL", text)])
def test_errors_are_made_without_secrets(known: str, kind: Any) -> None:
    assert str(kind(f"The other side said {known}.")) == f"The other side said {MARK}."


WRITING = """
import logging, sys, structlog
from app import redaction, telemetry
known = sys.argv[2]
redaction.learn([known])
telemetry.configure_logging(threshold=logging.INFO, style=sys.argv[1])
local = known * 2
try:
    int(f"no {known} here")
except ValueError:
    structlog.get_logger().exception("request_crashed", nested={"headers": [known]})
    logging.getLogger("asyncpg").warning("lost %s", known, exc_info=True)
    logging.getLogger("client").warning("words of an MCP server", exc_info=True)
int(f"no {known} here")
"""


@pytest.mark.parametrize("style", ["json", "console"])
def test_logs_hold_no_secret_whoever_writes_them(style: str) -> None:
    done = subprocess.run([sys.executable, "-c", WRITING, style, CANARY], capture_output=True, text=True, cwd=ROOT, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert CANARY not in done.stderr
    assert done.stderr.count(f"ValueError: invalid literal for int() with base 10: 'no {MARK} here'") == 3
    assert [name for name in ("request_crashed", "lost", "process_crashed") if name not in done.stderr] == []
    assert "local" not in done.stderr
    assert "MCP" not in done.stderr
