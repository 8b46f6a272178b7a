"""The server's hooks as its operator writes them: one JSON object, in a file or in the setting itself."""

import ipaddress
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

import httpx2
import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from app.errors import StartupError
from app.hooks import endpoint
from app.hooks.base import MAX_TIMEOUT_MS, REWRITABLE, Capability, Mode, Point
from app.outbound.addresses import Inside

MIN_SECRET_CHARACTERS: Final = 16
POINTS: Final[frozenset[Point]] = frozenset(get_args(Point))

HookId: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Priority: TypeAlias = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
TimeoutMs: TypeAlias = Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)]


def _url(value: Any) -> Any:
    return endpoint.url_of(value) if isinstance(value, str) else value


Url: TypeAlias = Annotated[httpx2.URL, BeforeValidator(_url)]
Secret: TypeAlias = Annotated[SecretStr, Field(min_length=MIN_SECRET_CHARACTERS)]


class Strict(BaseModel):
    """Knows its keys and coerces nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)


class Role(Strict):
    """What a hook may do, and when it is asked."""

    id: HookId
    capability: Capability
    mode: Mode = "foreground"
    priority: Priority = 0
    timeout_ms: TimeoutMs = MAX_TIMEOUT_MS

    def check_role(self, points: frozenset[Point]) -> None:
        """Refuse a role that could never have an effect.

        Raises:
            ValueError: a hook in the background that may deny or change, one that may after the turn has failed, or one that
                may change where there is nothing to change.
        """
        if self.capability == "observe":
            return
        if self.mode == "background":
            raise ValueError("a hook in the background can only observe")
        if "turn_failed" in points:
            raise ValueError("at turn_failed a hook can only observe")
        if self.capability == "rewrite" and not points <= REWRITABLE:
            raise ValueError("a point of this hook has nothing to rewrite")


class Entry(Role):
    """One hook of the server; exactly one of `url` and `entry_point` says who answers.

    Args:
        secret: what requests are signed with instead of the configuration's secret.
        required: whether a session's override may not disable it.
    """

    points: Annotated[list[Literal[Point]], Field(min_length=1)]
    url: Url | None = None
    entry_point: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    secret: Secret | None = None
    required: bool = False

    @model_validator(mode="after")
    def _is_whole(self) -> "Entry":
        self.check_role(frozenset(self.points))
        if (self.url is None) == (self.entry_point is None):
            raise ValueError("exactly one of url and entry_point must be given")
        if self.entry_point is not None and self.secret is not None:
            raise ValueError("a secret is for hooks with a url")
        return self


class AllowedHost(Strict):
    """A host to which sessions may add hooks of their own; without a port every port of it."""

    host: str
    port: int | None

    def covers(self, url: httpx2.URL) -> bool:
        """Tell whether a URL leads there."""
        return url.raw_host.decode() == self.host and self.port in {None, endpoint.port_of(url)}


def _allowed_host(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = urlsplit(f"//{value}")
    if not value.isascii() or parts.netloc != value or "@" in value or not parts.hostname:
        raise ValueError("must be host or host:port")
    return AllowedHost(host=parts.hostname, port=parts.port)


class Configuration(Strict):
    """All hooks of a server.

    Args:
        secret: what requests to URLs are signed with, those of sessions' own hooks included.
        allowed_hosts: `host` or `host:port`, to which sessions may add hooks; none by default. An address among them may lie
            inside; a name leads to the public internet alone, since whoever holds it can turn it.
        hooks: in order of registration.
    """

    secret: Secret | None = None
    allowed_hosts: list[Annotated[AllowedHost, BeforeValidator(_allowed_host)]] = Field(default_factory=list)
    hooks: list[Entry] = Field(default_factory=list)

    @property
    def inside(self) -> Inside:
        """The addresses that `allowed_hosts` gives as such."""
        found = []
        for allowed in self.allowed_hosts:
            with suppress(ValueError):
                found.append(ipaddress.ip_network(allowed.host))
        return Inside(networks=tuple(found))

    @model_validator(mode="after")
    def _is_whole(self) -> "Configuration":
        if len({entry.id for entry in self.hooks}) < len(self.hooks):
            raise ValueError("two hooks have the same id")
        if self.secret is None and (self.allowed_hosts or any(entry.url and not entry.secret for entry in self.hooks)):
            raise ValueError("secret must be given: requests to hooks are signed")
        return self

    @property
    def secrets(self) -> Iterator[str]:
        """What the redactor has to know of it."""
        for secret in (self.secret, *(entry.secret for entry in self.hooks)):
            if secret is not None:
                yield secret.get_secret_value()


NO_HOOKS: Final = Configuration()


def load(value: str | None) -> Configuration:
    """Read the setting.

    Args:
        value: the JSON object itself where it begins with `{`, else the path of a file that holds it; None is no hooks.

    Raises:
        StartupError: the file cannot be read, or what it holds is not valid; no value of it is repeated.
    """
    if value is None:
        return NO_HOOKS
    try:
        text = value.encode() if value.lstrip().startswith("{") else Path(value).expanduser().read_bytes()
    except OSError as error:
        raise StartupError(f"The file of the hooks cannot be read: {error.strerror}.") from error
    try:
        return Configuration.model_validate(orjson.loads(text))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'hooks'}: {fault['msg']}" for fault in error.errors()
        )
    except orjson.JSONDecodeError as error:
        faults = error.msg
    raise StartupError(f"The hooks are not valid. {faults}")
