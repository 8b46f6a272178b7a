"""The vendors under their names: those that the server's operator has set up, and those that a realm brings a key or a URL for.

A key goes where its owner sends it: the operator's to the operator's URLs and to no other, a realm's to the URL that it brings,
or where the operator asks that vendor. URLs that realms bring are reached by another transport than the operator's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import httpx2
import structlog

from app.errors import StartupError, Unsealable
from app.providers import anthropic, gemini, openai
from app.providers.anthropic import Anthropic
from app.providers.base import Provider
from app.providers.deadlines import Deadlines
from app.providers.gemini import Gemini
from app.providers.openai import OpenAI
from app.providers.openai_compatible import OpenAICompatible
from app.providers.registry import Name, Providers
from app.seals import Seals

log = structlog.get_logger()

Vendor: TypeAlias = Anthropic | OpenAI | Gemini | OpenAICompatible

_KINDS: Final[Mapping[Name, tuple[type[Vendor], str | None]]] = {
    "anthropic": (Anthropic, anthropic.BASE_URL),
    "openai": (OpenAI, openai.BASE_URL),
    "gemini": (Gemini, gemini.BASE_URL),
    "openai_compatible": (OpenAICompatible, None),
}
"""Each with its own base URL, where it has one."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the operator asks a vendor; with neither it is off.

    Args:
        base_url: None is the vendor's own.
        api_key: None sends none.
    """

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Brought:
    """What a realm brings for a vendor.

    Args:
        base_url: None is where the operator asks that vendor, or the vendor's own.
        sealed_key: None sends none, whatever key the operator has.
    """

    base_url: str | None = None
    sealed_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Ways:
    """How vendors are reached; whoever made the transports closes them.

    Args:
        inside: for the operator's URLs and the vendors' own.
        outside: for URLs that realms bring.
    """

    inside: httpx2.AsyncBaseTransport
    outside: httpx2.AsyncBaseTransport
    deadlines: Deadlines = field(default_factory=Deadlines)


class Vendors:
    """Makes providers.

    Args:
        access: what the operator has set up.
        scripted: the provider that asks nobody.

    Raises:
        StartupError: a vendor cannot be set up.
    """

    def __init__(self, access: Mapping[Name, Access], scripted: Provider, ways: Ways, seals: Seals) -> None:
        self._access = access
        self._ways = ways
        self._seals = seals
        self._server: dict[Name, Provider] = {"scripted": scripted}
        for name, one in access.items():
            base_url = one.base_url or (None if one.api_key is None else _KINDS[name][1])
            if base_url is not None:
                self._server[name] = self._operators(name, base_url, one.api_key)

    def of(self, brought: Mapping[Name, Brought], *, realm: str | None = None) -> Providers:
        """Return the providers of a realm: those that it brings, and the server's for the other names.

        One is left out, and the server's does not stand in, where nobody has given its URL or its key cannot be opened.

        Args:
            realm: for which its keys were sealed; None leaves them out, for whoever only chooses and checks.
        """
        own = {name: self._brought(name, one, realm) for name, one in brought.items()}
        return Providers({name: provider for name, provider in (self._server | own).items() if provider is not None})

    def _operators(self, name: Name, base_url: str, api_key: str | None) -> Provider:
        try:
            return _KINDS[name][0](base_url, api_key, deadlines=self._ways.deadlines, transport=self._ways.inside)
        except StartupError as error:
            raise StartupError(f"The provider {name} cannot be set up. {error.detail}") from error

    def _brought(self, name: Name, brought: Brought, realm: str | None) -> Provider | None:
        kind, own_url = _KINDS[name]
        base_url = brought.base_url or self._access.get(name, Access()).base_url or own_url
        if base_url is None:
            return None
        try:
            key = brought.sealed_key and realm and self._seals.open(brought.sealed_key, realm=realm)
        except Unsealable as error:
            log.warning("realm_key_not_opened", realm_id=realm, provider=name, error=error.detail)
            return None
        transport = self._ways.outside if brought.base_url else self._ways.inside
        return kind(base_url, key or None, deadlines=self._ways.deadlines, transport=transport)
