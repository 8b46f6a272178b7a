"""What is known of models: by their names, and nothing that is not known."""

import pytest

from app.providers import models
from app.providers.models import UNKNOWN, Known, known
from app.providers.registry import NAMES, infer


@pytest.mark.parametrize(("provider", "model"), models.current(NAMES))
def test_model_that_is_listed_is_known_and_means_its_provider(provider: str, model: str) -> None:
    facts = known(provider, model)

    assert infer(model) == provider
    assert facts.context_window
    assert facts.max_output_tokens
    assert facts.max_output_tokens <= facts.context_window
    assert facts.abilities


@pytest.mark.parametrize(
    ("provider", "model", "window", "output"),
    [
        ("anthropic", "claude-sonnet-4-5-20250929", 200_000, 64_000), ("anthropic", "claude-opus-4-20250514", 200_000, 32_000),
        ("anthropic", "claude-sonnet-4-6", 1_000_000, 128_000), ("anthropic", "claude-haiku-4-5-latest", 200_000, 64_000),
        ("openai", "gpt-5.5-2026-04-23", 1_050_000, 128_000), ("openai", "gpt-4o-mini-2024-07-18", 128_000, 16_384),
        ("openai", "o3-2025-04-16", 200_000, 100_000), ("openai", "gpt-5-mini", 400_000, 128_000),
        ("gemini", "gemini-3-flash-preview", 1_048_576, 65_536), ("gemini", "models/gemini-2.5-pro", 1_048_576, 65_536),
        ("gemini", "gemini-2.5-pro-preview-06-05", 1_048_576, 65_536), ("scripted", "scripted-two", 1_000_000, 1_000_000),
    ],
)  # fmt: skip
def test_version_of_a_model_is_known_by_its_family(provider: str, model: str, window: int, output: int) -> None:
    facts = known(provider, model)

    assert (facts.context_window, facts.max_output_tokens) == (window, output)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-next"), ("anthropic", "claude-opus-4-9"), ("openai", "gpt-5-image"), ("openai", "gpt-4o-audio"),
        ("gemini", "gemini-3-pro-image"), ("gemini", "tunedModels/gemini-2.5-pro"), ("openai_compatible", "gpt-4o"),
        ("anthropic", "gpt-4o"), ("anthropic", "x-claude-opus-5"), ("nobody", "claude-opus-5"), ("openai", ""),
    ],
)  # fmt: skip
def test_of_any_other_name_nothing_is_claimed(provider: str, model: str) -> None:
    assert known(provider, model) == UNKNOWN == Known(None, None, None)


def test_abilities_are_those_of_the_model() -> None:
    assert known("openai", "gpt-4.1").abilities == ("images", "tools", "json_schema")
    assert known("openai", "o3-mini").abilities == ("reasoning", "tools", "json_schema")
    assert known("anthropic", "claude-sonnet-4-0").abilities == ("images", "reasoning", "tools")
    assert known("scripted", "scripted").abilities == ("reasoning", "tools")


def test_only_models_of_the_given_providers_are_listed() -> None:
    assert models.current({"scripted", "openai_compatible"}) == [("scripted", "scripted")]
    assert {provider for provider, _ in models.current(NAMES)} == set(NAMES) - set(models.OPEN)
