"""Settings: read once, in `main`, from the environment; rooms get values, never this object."""

import ipaddress
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import Field, HttpUrl, UrlConstraints, ValidationError
from pydantic_core import MultiHostUrl
from pydantic_settings import BaseSettings, SettingsConfigDict

from app import redaction
from app.errors import StartupError

_NAME = r"[a-z0-9_-]+(\.[a-z0-9_-]+)*"
Origin = Annotated[str, Field(pattern=rf"^(\*|[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|{_NAME})(:[0-9]{{1,5}})?)$")]
HostName = Annotated[str, Field(pattern=rf"^(\*|(\*\.)?{_NAME}|[0-9a-f.]*(:[0-9a-f.]*){{2,7}})$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Rate = Annotated[float, Field(ge=0, le=1_000_000)]
Days = Annotated[int, Field(ge=1, le=36_500)]
JwtAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
NatsUrl = Annotated[MultiHostUrl, UrlConstraints(allowed_schemes=["nats", "tls"], host_required=True)]


class Settings(BaseSettings):
    """Every setting, with its unit and default; the environment's names carry the prefix `SURICATE_`, but for the vendors'."""

    model_config = SettingsConfigDict(env_prefix="SURICATE_", env_ignore_empty=True, extra="ignore", frozen=True)

    database_url: str | None = Field(
        None, repr=False, description="`postgresql://…` of a Postgres ≥ 15; unset: the embedded one."
    )
    data_dir: Path = Field(Path("~/.local/share/suricate"), description="Folder of the embedded Postgres; made with mode 0700.")
    postgres_bin_dir: Path | None = Field(
        None, description="Folder of the `postgres` and `initdb` programs for the embedded Postgres; unset: looked for."
    )
    host: str = Field("127.0.0.1", description="Address to listen on. Anything but loopback is refused without auth.")
    auth: Literal["auto", "required", "off"] = Field(
        "auto",
        description="Whether callers need a credential; `auto`: once an API key was made or an issuer of tokens is set.",
    )
    jwt_issuer: str | None = Field(None, description="`iss` of the tokens that are good; unset: no tokens are.")
    jwt_audience: str | None = Field(None, description="`aud` that they have to hold; needed with an issuer.")
    jwt_jwks_url: HttpUrl | None = Field(None, description="URL of the issuer's public keys; needed with an issuer.")
    jwt_algorithms: list[JwtAlgorithm] = Field(
        ["RS256", "ES256"], min_length=1, description="JSON list of the algorithms that a signature may be of."
    )
    jwt_realm_claim: str = Field("realm", description="The claim that names the bearer's realm.")
    jwt_scopes_claim: str = Field("scope", description="The claim that holds `read`, `write` or `admin`: words or a list.")
    rate_per_credential: Rate = Field(
        100,
        description="Requests a second of one credential, five seconds' worth at once. 0: any number.",
    )
    rate_per_realm: Rate = Field(500, description="Requests a second of a realm. 0: any number.")
    realm_live_turns: int = Field(1_000, ge=0, description="Most turns of a realm that are live at once. 0: any number.")
    realm_sessions: int = Field(1_000_000, ge=0, description="Most sessions of a realm, archived ones too. 0: any number.")
    realm_stored_bytes: int = Field(
        100 * 1024**3,
        ge=0,
        description="Most bytes that a realm's events and messages take, uncompressed. 0: any number.",
    )
    realm_streams: int = Field(5_000, ge=0, description="Most streams of a realm that are open at once. 0: any number.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one and prints it.")
    default_model: str = Field("scripted", description="Model of sessions that name none.")
    lease_seconds: Seconds = Field(15, description="How long a node holds a turn without renewing; renewed at a third.")
    delta_interval_ms: int = Field(
        15, ge=0, le=1_000, description="Least time between two delta events of one turn, in milliseconds."
    )
    max_live_turns: int = Field(2_000, ge=1, description="Turns that this process runs at once; further ones wait.")
    max_wait_seconds: Seconds = Field(300, description="Longest wait of a plain POST before it answers 202.")
    allowed_hosts: list[HostName] = Field(
        [],
        description="JSON list of further names that requests may be for, e.g. `api.example.org`, `*.example.org`, `*`; empty: "
        "none where only loopback is listened on, else any.",
    )
    cors_origins: list[Origin] = Field(
        [], description="JSON list of origins whose pages may use this server, e.g. `https://example.org`, or `*`; empty: none."
    )
    cors_credentials: bool = Field(
        False, description="Whether browsers may send cookies along from those origins, for a proxy that asks for them."
    )
    request_timeout_seconds: Seconds = Field(
        10,
        description="A client that owes a request, or the rest of one, for so long is closed; not one between two requests.",
    )
    max_connections: int | None = Field(
        None, ge=1, description="Most connections at once; unset: 20,000, or what the limit of open files has room for."
    )
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1_024, description="Largest request body, in bytes.")
    max_header_bytes: int = Field(32 * 1024, ge=1_024, description="Largest request head, in bytes.")
    retention_delta_days: Days | None = Field(
        None, description="Days after a turn's end at which the deltas of its finished steps go; unset: kept for ever."
    )
    retention_archived_days: Days | None = Field(
        None, description="Days after which an archived session is erased; unset: kept for ever."
    )
    retention_audit_days: Days = Field(365, description="Days after which an entry of the audit trail goes.")
    pool_size: int = Field(16, ge=2, le=500, description="Pooled Postgres connections; six more stand apart.")
    nats_url: NatsUrl | None = Field(
        None, repr=False, description="`nats://…` or `tls://…` of a NATS that wake-ups go over; unset: Postgres' NOTIFY."
    )
    sse_ping_seconds: Seconds = Field(15, description="Time between two comments on a silent stream.")
    sse_send_timeout_seconds: Seconds = Field(30, description="A reader that takes nothing for so long is cut off.")
    shutdown_grace_seconds: Annotated[float, Field(ge=0, le=600)] = Field(
        1, description="How long live turns may go on after SIGTERM to reach a safe point."
    )
    tool_timeout_seconds: Seconds = Field(60, description="Longest run of one tool call.")
    tools_file: Path | None = Field(
        None, description="JSON file of HTTP tools and MCP servers, as docs/operations.md has it; unset: built-ins alone."
    )
    outbound_inside: list[str] = Field(
        [], description="JSON list of hosts and CIDRs inside that tools may reach; everything inside is refused otherwise."
    )
    outbound_tenants_inside: list[str] = Field(
        [], description="The same for what callers name: webhooks, hooks of sessions, base URLs of providers."
    )
    outbound_http: bool = Field(False, description="Whether tools, and what callers name, may use plain http.")
    seal_keys: str | None = Field(
        None,
        repr=False,
        description="Keys that tenants' secrets are sealed with, `id:base64` with commas; the first seals, all open.",
    )
    hooks: str | None = Field(
        None, repr=False, description="The hooks, as docs/hooks.md has them: a JSON object, or the path of a file; unset: none."
    )
    answer_timeout_seconds: Seconds = Field(
        3600, description="How long a call waits for its caller's result or approval, where its tool does not say."
    )
    turn_timeout_seconds: Seconds = Field(
        3600, description="Longest running time of a turn, without its waiting; past it the turn fails `TURN_TIMEOUT`."
    )
    turn_output_tokens: int = Field(
        1_000_000, ge=1, description="Most output tokens of a turn; past it the turn fails `OUTPUT_LIMIT`."
    )
    unknown_context_tokens: int = Field(
        128_000, ge=1_000, description="What a model is taken to read at most where nothing is known of it, in tokens."
    )
    step_limit: int = Field(100, ge=1, description="Most model calls in one turn; past it the turn fails `STEP_LIMIT`.")
    provider_connect_timeout_seconds: Seconds = Field(10, description="Longest wait for a connection to a provider.")
    provider_first_byte_timeout_seconds: Seconds = Field(60, description="Longest wait for a provider's answer to begin.")
    provider_idle_timeout_seconds: Seconds = Field(60, description="Longest silence inside a provider's answer.")
    provider_total_timeout_seconds: Seconds = Field(600, description="Longest model call, from start to finish.")
    anthropic_api_key: str | None = Field(
        None,
        validation_alias="ANTHROPIC_API_KEY",
        repr=False,
        description="Anthropic's key; it turns the provider on, as its base URL does.",
    )
    anthropic_base_url: HttpUrl | None = Field(
        None,
        validation_alias="ANTHROPIC_BASE_URL",
        repr=False,
        description="A server of Anthropic's API: what `/v1/messages` is appended to; unset: the vendor's own.",
    )
    openai_api_key: str | None = Field(
        None,
        validation_alias="OPENAI_API_KEY",
        repr=False,
        description="OpenAI's key; it turns the provider on, as its base URL does.",
    )
    openai_base_url: HttpUrl | None = Field(
        None,
        validation_alias="OPENAI_BASE_URL",
        repr=False,
        description="A server of OpenAI's API: what `/responses` is appended to, so `/v1` included; unset: the vendor's own.",
    )
    gemini_api_key: str | None = Field(
        None,
        validation_alias="GEMINI_API_KEY",
        repr=False,
        description="Gemini's key; it turns the provider on, as its base URL does.",
    )
    gemini_base_url: HttpUrl | None = Field(
        None,
        validation_alias="GEMINI_BASE_URL",
        repr=False,
        description="A server of Gemini's API: what `/models` is appended to, so `/v1beta` included; unset: the vendor's own.",
    )
    openai_compatible_base_url: HttpUrl | None = Field(
        None, repr=False, description="Base URL of a Chat Completions API, `/v1` included; unset: the provider is off."
    )
    openai_compatible_api_key: str | None = Field(None, repr=False, description="Its bearer key; unset: none is sent.")
    scripted_tokens_per_second: float = Field(
        50, ge=0, description="Rate at which the `scripted` model speaks; 0: as fast as it can."
    )
    otlp: bool = Field(
        False, description="Whether spans go to an OpenTelemetry collector; the standard `OTEL_…` variables say to which."
    )
    otlp_headers: str | None = Field(
        None,
        validation_alias="OTEL_EXPORTER_OTLP_HEADERS",
        repr=False,
        description="What is sent to the collector besides, as `name=value,…`; known here so that no log shows it.",
    )
    otlp_traces_headers: str | None = Field(
        None,
        validation_alias="OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        repr=False,
        description="The same, for spans alone; the library takes it before the other.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["json", "console"] | None = Field(
        None,
        description="How log lines look; unset: `console` on a terminal, else `json`.",
    )

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Return each setting's name in the environment."""
        aliases = {name: field.validation_alias for name, field in cls.model_fields.items()}
        return {name: str(alias or f"SURICATE_{name.upper()}") for name, alias in aliases.items()}

    @property
    def log_threshold(self) -> int:
        """The level as the standard library numbers it."""
        return logging.getLevelNamesMapping()[self.log_level.upper()]

    @property
    def secrets(self) -> Iterator[str]:
        """What the redactor has to know of them: keys, and the credentials in URLs."""
        for name, field in type(self).model_fields.items():
            text = str(getattr(self, name) or "")
            if name == "hooks" or not text:
                continue  # whoever reads the hooks knows which of their words are secret
            if "://" in text:
                yield from redaction.credentials_of(text)
            elif name in {"otlp_headers", "otlp_traces_headers"}:
                yield from redaction.credentials_in(unquote(pair.partition("=")[2].strip()) for pair in text.split(","))
            elif not field.repr:
                yield text

    def check(self) -> None:
        """Refuse to start where settings would put the service into danger, or do not belong together.

        Raises:
            StartupError: the address is not loopback and authentication is off, an issuer is set by half, or cookies may come
                from every page.
        """
        if not self.is_loopback and self.auth == "off":
            raise StartupError(f"Refusing to listen on {self.host!r}: SURICATE_AUTH=off is for loopback addresses alone.")
        if self.jwt_issuer and not (self.jwt_audience and self.jwt_jwks_url):
            raise StartupError("SURICATE_JWT_ISSUER needs SURICATE_JWT_AUDIENCE and SURICATE_JWT_JWKS_URL beside it.")
        if self.cors_credentials and "*" in self.cors_origins:
            raise StartupError("SURICATE_CORS_CREDENTIALS does not go with every origin: name them in SURICATE_CORS_ORIGINS.")

    @property
    def is_loopback(self) -> bool:
        """Whether nobody outside this machine reaches the address."""
        return _is_loopback(self.host)


def read() -> Settings:
    """Read the settings from the environment.

    Raises:
        StartupError: a variable has a value that it may not have; the message names each.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(f"{_variable(fault['loc'])}: {fault['msg']}" for fault in error.errors())
        raise StartupError(f"Settings are not valid. {faults}") from error


def _variable(loc: tuple[int | str, ...]) -> str:
    name, variables = str(loc[0]) if loc else "?", Settings.variables()
    return name.upper() if name.upper() in variables.values() else variables.get(name, name)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
