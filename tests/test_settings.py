"""Settings: read from the environment, checked at the start, never silently wrong."""

import logging

import pytest

from app import settings as settings_module
from app.errors import StartupError
from app.settings import Settings, read


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.variables().values():
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_safe_and_need_nothing() -> None:
    settings = read()

    settings.check()
    assert (settings.host, settings.port, settings.default_model) == ("127.0.0.1", 8000, "scripted")
    assert (settings.database_url, settings.lease_seconds, settings.delta_interval_ms) == (None, 15, 15)


def test_variables_bear_the_prefix_and_are_read_as_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURICATE_LEASE_SECONDS", "2.5")
    monkeypatch.setenv("SURICATE_PORT", "0")
    monkeypatch.setenv("LEASE_SECONDS", "99")

    settings = read()

    assert (settings.lease_seconds, settings.port) == (2.5, 0)


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURICATE_DATABASE_URL", "")
    monkeypatch.setenv("SURICATE_PORT", "")

    assert (read().database_url, read().port) == (None, 8000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"), ("PORT", "http"), ("LEASE_SECONDS", "0"), ("LEASE_SECONDS", "-1"), ("LEASE_SECONDS", "nan"),
        ("DELTA_INTERVAL_MS", "1001"), ("POOL_SIZE", "1"), ("LOG_LEVEL", "loud"), ("STEP_LIMIT", "0"),
        ("OPENAI_COMPATIBLE_BASE_URL", "no url"), ("SHUTDOWN_GRACE_SECONDS", "-1"), ("NATS_URL", "http://nats:4222"),
        ("NATS_URL", "nats:4222"), ("NATS_URL", "nats://"), ("CORS_ORIGINS", '["https://example.org/"]'),
        ("CORS_ORIGINS", '["example.org"]'), ("CORS_ORIGINS", '["null"]'), ("CORS_ORIGINS", '["https://*.example.org"]'),
        ("ALLOWED_HOSTS", '["http://a"]'), ("ALLOWED_HOSTS", '["a:8000"]'), ("ALLOWED_HOSTS", '["A"]'),
        ("ALLOWED_HOSTS", '["a*"]'), ("MAX_CONNECTIONS", "0"),
    ],
)  # fmt: skip
def test_value_that_may_not_be_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"SURICATE_{name}", value)

    with pytest.raises(StartupError, match=f"SURICATE_{name}: "):
        read()


def test_all_faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURICATE_PORT", "x")
    monkeypatch.setenv("SURICATE_POOL_SIZE", "x")

    with pytest.raises(StartupError, match=r"SURICATE_PORT: .*SURICATE_POOL_SIZE: "):
        read()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_is_safe_without_authentication(host: str) -> None:
    Settings(host=host).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "", "::ffff:127.0.0.1x", "localhost.example.org"])
def test_any_other_address_is_refused_without_authentication(host: str) -> None:
    with pytest.raises(StartupError, match="loopback"):
        Settings(host=host, auth="off").check()
    assert not Settings(host=host).is_loopback


@pytest.mark.parametrize("missing", ["jwt_audience", "jwt_jwks_url"])
def test_issuer_without_what_belongs_to_it_is_refused(missing: str) -> None:
    whole = {"jwt_issuer": "https://a.test", "jwt_audience": "suricate", "jwt_jwks_url": "https://a.test/jwks"}
    Settings.model_validate(whole).check()

    with pytest.raises(StartupError, match=missing.upper()):
        Settings.model_validate({name: value for name, value in whole.items() if name != missing}).check()


def test_cookies_from_every_origin_are_refused() -> None:
    with pytest.raises(StartupError, match="SURICATE_CORS_CREDENTIALS"):
        Settings(cors_origins=["*"], cors_credentials=True).check()

    Settings(cors_origins=["*"]).check()
    Settings(cors_origins=["https://example.org", "http://localhost:5173", "tauri://localhost"], cors_credentials=True).check()


@pytest.mark.parametrize("vendor", ["anthropic", "openai", "gemini"])
def test_vendors_variables_bear_the_names_that_their_own_tools_use(monkeypatch: pytest.MonkeyPatch, vendor: str) -> None:
    monkeypatch.setenv(f"{vendor.upper()}_API_KEY", "key")
    monkeypatch.setenv(f"{vendor.upper()}_BASE_URL", "http://127.0.0.1:1/x")

    settings = read()

    assert getattr(settings, f"{vendor}_api_key") == "key"
    assert str(getattr(settings, f"{vendor}_base_url")) == "http://127.0.0.1:1/x"


@pytest.mark.parametrize("vendor", ["anthropic", "openai", "gemini"])
def test_vendors_variables_with_the_prefix_or_empty_set_nothing(monkeypatch: pytest.MonkeyPatch, vendor: str) -> None:
    monkeypatch.setenv(f"SURICATE_{vendor.upper()}_API_KEY", "key")
    monkeypatch.setenv(f"{vendor.upper()}_API_KEY", "")
    monkeypatch.setenv(f"{vendor.upper()}_BASE_URL", "")

    settings = read()

    assert (getattr(settings, f"{vendor}_api_key"), getattr(settings, f"{vendor}_base_url")) == (None, None)


@pytest.mark.parametrize("name", ["ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "GEMINI_BASE_URL"])
def test_vendors_url_that_is_none_is_refused_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "no url")

    with pytest.raises(StartupError, match=rf"valid\. {name}: "):
        read()


@pytest.mark.parametrize(
    "name", ["SURICATE_OPENAI_COMPATIBLE_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"]
)
def test_keys_are_never_printed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "sk-canary")

    assert "canary" not in repr(read())
    assert "canary" not in str(read())


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")] == []


def test_levels_are_those_of_the_standard_library() -> None:
    assert Settings(log_level="warning").log_threshold == logging.WARNING


def test_settings_are_read_once_and_cannot_be_changed() -> None:
    settings = read()

    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc] # that is the point


def test_importing_the_settings_reads_nothing() -> None:
    assert not [value for value in vars(settings_module).values() if isinstance(value, Settings)]
