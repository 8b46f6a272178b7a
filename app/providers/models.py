"""What is known of models by their names: how much they read and say, and what they can do.

It asks nobody: a vendor's list is another call with a key, and says less. A name that no family here knows is not refused
anywhere, there is only nothing to tell of it; nor of any name that a gateway gives.

Source: https://platform.claude.com/docs/en/about-claude/models/overview, https://developers.openai.com/api/docs/models,
https://ai.google.dev/gemini-api/docs/models
"""

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from app.providers.registry import NAMES, Name

Ability: TypeAlias = Literal["images", "reasoning", "tools", "json_schema"]
OPEN: Final[tuple[Name, ...]] = ("openai_compatible",)  # their models have whatever names their operators chose


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one model; None is not known.

    Args:
        context_window: most tokens of a call, those of its answer included.
        max_output_tokens: most tokens of one answer, reasoning included.
        abilities: what it takes and does; `json_schema` is a schema mode of the vendor's own.
    """

    context_window: int | None = None
    max_output_tokens: int | None = None
    abilities: tuple[Ability, ...] | None = None


UNKNOWN: Final = Known()

_ALL: Final[tuple[Ability, ...]] = ("images", "reasoning", "tools", "json_schema")
_WITHOUT_REASONING: Final[tuple[Ability, ...]] = ("images", "tools", "json_schema")
_WITHOUT_SCHEMA: Final[tuple[Ability, ...]] = ("images", "reasoning", "tools")
_WITHOUT_IMAGES: Final[tuple[Ability, ...]] = ("reasoning", "tools", "json_schema")
_GEMINI: Final = 1_048_576

# Whole names without their version: a date, `-latest` or `-preview` at the end is set aside before they are compared.
_FAMILIES: Final[dict[str, tuple[tuple[str, Known], ...]]] = {
    "anthropic": (
        (r"claude-(fable|mythos|opus|sonnet)-5(-\d)?", Known(1_000_000, 128_000, _ALL)),
        (r"claude-(opus-4-[678]|sonnet-4-6)", Known(1_000_000, 128_000, _ALL)),
        (r"claude-(opus|sonnet|haiku)-4-5", Known(200_000, 64_000, _ALL)),
        (r"claude-opus-4-1", Known(200_000, 32_000, _ALL)),
        (r"claude-opus-4(-0)?", Known(200_000, 32_000, _WITHOUT_SCHEMA)),
        (r"claude-sonnet-4(-0)?", Known(200_000, 64_000, _WITHOUT_SCHEMA)),
    ),
    "openai": (
        (r"gpt-5\.6(-sol|-terra|-luna)?", Known(1_050_000, 128_000, _ALL)),
        (r"gpt-5\.[45]", Known(1_050_000, 128_000, _ALL)),
        (r"gpt-5\.4-(mini|nano)", Known(400_000, 128_000, _ALL)),
        (r"gpt-5(\.[12])?|gpt-5-(mini|nano)|gpt-5(\.[123])?-codex", Known(400_000, 128_000, _ALL)),
        (r"gpt-4\.1(-mini|-nano)?", Known(1_047_576, 32_768, _WITHOUT_REASONING)),
        (r"gpt-4o(-mini)?", Known(128_000, 16_384, _WITHOUT_REASONING)),
        (r"o1|o3|o4-mini", Known(200_000, 100_000, _ALL)),
        (r"o3-mini", Known(200_000, 100_000, _WITHOUT_IMAGES)),
    ),
    "gemini": (
        (r"gemini-4-argon", Known(_GEMINI, 65_536, _ALL)),
        (r"gemini-3(\.\d)?-(pro|flash|flash-lite)", Known(_GEMINI, 65_536, _ALL)),
        (r"gemini-2\.5-(pro|flash|flash-lite)", Known(_GEMINI, 65_536, _ALL)),
    ),
    "scripted": ((r"scripted(-.*)?", Known(1_000_000, 1_000_000, ("reasoning", "tools"))),),
}
_CURRENT: Final[dict[str, tuple[str, ...]]] = {
    "anthropic": ("claude-fable-5-1", "claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-4-5"),
    "openai": ("gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna", "gpt-5.5", "gpt-5.4-mini"),
    "gemini": ("gemini-4-argon", "gemini-3.1-pro-preview", "gemini-3.8-flash", "gemini-3.5-flash-lite"),
    "scripted": ("scripted",),
}
_VERSION: Final = re.compile(r"(-latest|-preview|-\d{8}|-\d{4}-\d\d-\d\d|-preview-\d\d-(\d\d|\d{4}))\Z")


def known(provider: str, model: str) -> Known:
    """Tell what is known of a model at a provider; `UNKNOWN` where nothing is."""
    name = _VERSION.sub("", model.removeprefix("models/") if provider == "gemini" else model)
    families = _FAMILIES.get(provider, ())
    return next((facts for pattern, facts in families if re.fullmatch(pattern, name)), UNKNOWN)


def context_tokens(provider: str, model: str, *, unknown: int) -> int:
    """Return how much a model reads at most; `unknown` where nothing is known of it."""
    return known(provider, model).context_window or unknown


def current(providers: Container[str]) -> list[tuple[Name, str]]:
    """Return the models that the vendors offer now, the best first, each with its provider; only those of `providers`."""
    return [(name, model) for name in NAMES if name in providers for model in _CURRENT.get(name, ())]
