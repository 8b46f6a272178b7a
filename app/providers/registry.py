"""Which vendors this server can ask, and which of them a model's name means."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field

from app.errors import CapabilityUnavailable, InvalidRequest
from app.providers.base import Provider

Name: TypeAlias = Literal["anthropic", "openai", "gemini", "openai_compatible", "scripted"]
NAMES: tuple[Name, ...] = get_args(Name)
ModelName: TypeAlias = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]

_INFERRED: tuple[tuple[str, Name], ...] = (
    (r"claude-", "anthropic"),
    (r"gpt-|chatgpt-|o\d(-|$)", "openai"),
    (r"gemini-", "gemini"),
    (r"scripted(-|$)", "scripted"),
)
_HINTS: Mapping[str, str] = {
    "anthropic": "Set ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL for a server that speaks its API.",
    "openai": "Set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that speaks its API.",
    "gemini": "Set GEMINI_API_KEY, or GEMINI_BASE_URL for a server that speaks its API.",
    "openai_compatible": "Set SURICATE_OPENAI_COMPATIBLE_BASE_URL to the API's base URL.",
}


class Providers(Mapping[str, Provider]):
    """The configured vendors, by name."""

    def __init__(self, configured: Mapping[Name, Provider]) -> None:
        self._configured: dict[str, Provider] = {name: provider for name, provider in configured.items()}  # noqa: C416 - widens the key

    def __getitem__(self, name: str) -> Provider:
        return self._configured[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._configured)

    def __len__(self) -> int:
        return len(self._configured)

    def choose(self, model: str, provider: str | None) -> str:
        """Return the vendor to ask for a model.

        Args:
            provider: what the caller named; None infers it from the model's name.

        Raises:
            InvalidRequest: nothing was named and the name tells nothing.
            CapabilityUnavailable: this server cannot ask that vendor.
        """
        name = provider or infer(model)
        if name is None:
            raise InvalidRequest.at("provider", "The provider cannot be told from this model's name; name one.")
        if name not in self._configured:
            raise CapabilityUnavailable(f"The provider {name} is not available here. {_HINTS.get(name, '')}".rstrip())
        return name

    def check_params(self, name: str, params: Mapping[str, Any]) -> None:
        """Check a session's `provider_params` against what its vendor knows.

        Raises:
            InvalidRequest: as `Provider.check_params`.
        """
        self._configured[name].check_params(params)


def infer(model: str) -> Name | None:
    """Tell a model's vendor by its name; None where it tells nothing."""
    return next((name for pattern, name in _INFERRED if re.match(pattern, model)), None)
