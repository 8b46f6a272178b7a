"""The model vendors that the settings turn on."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import TypeAlias

from pydantic import HttpUrl

from app.errors import CapabilityUnavailable, InvalidRequest, StartupError
from app.outbound.transport import Transport
from app.pace import Pace
from app.providers import anthropic, gemini, openai
from app.providers.anthropic import Anthropic
from app.providers.base import Provider
from app.providers.deadlines import Deadlines
from app.providers.gemini import Gemini
from app.providers.openai import OpenAI
from app.providers.openai_compatible import OpenAICompatible
from app.providers.registry import Name, Providers
from app.providers.scripted import Scripted
from app.settings import Settings

Vendor: TypeAlias = Anthropic | OpenAI | Gemini | OpenAICompatible


async def providers(settings: Settings, pace: Pace, stack: AsyncExitStack) -> Providers:
    configured: dict[Name, Provider] = {"scripted": Scripted(tokens_per_second=settings.scripted_tokens_per_second)}
    deadlines = Deadlines(
        connect_seconds=settings.provider_connect_timeout_seconds,
        first_byte_seconds=settings.provider_first_byte_timeout_seconds,
        idle_seconds=settings.provider_idle_timeout_seconds,
        total_seconds=settings.provider_total_timeout_seconds,
    )
    for name, kind, base_url, api_key in _vendors(settings):
        try:
            vendor = kind(base_url, api_key, deadlines=deadlines, transport=Transport(pace=pace))
        except StartupError as error:
            raise StartupError(f"The provider {name} cannot be set up. {error.detail}") from error
        stack.push_async_callback(vendor.aclose)
        configured[name] = vendor
    providers = Providers(configured)
    try:
        providers.choose(settings.default_model, None)
    except InvalidRequest as error:
        raise StartupError("SURICATE_DEFAULT_MODEL cannot be served: its name tells no provider.") from error
    except CapabilityUnavailable as error:
        raise StartupError(f"SURICATE_DEFAULT_MODEL cannot be served. {error}") from error
    return providers


def _vendors(settings: Settings) -> Iterator[tuple[Name, type[Vendor], str, str | None]]:
    """Yield the vendors that the settings turn on, by a key or by a base URL, with where they are and their key."""
    vendors: tuple[tuple[Name, type[Vendor], HttpUrl | None, str | None, str | None], ...] = (
        ("anthropic", Anthropic, settings.anthropic_base_url, settings.anthropic_api_key, anthropic.BASE_URL),
        ("openai", OpenAI, settings.openai_base_url, settings.openai_api_key, openai.BASE_URL),
        ("gemini", Gemini, settings.gemini_base_url, settings.gemini_api_key, gemini.BASE_URL),
        ("openai_compatible", OpenAICompatible, settings.openai_compatible_base_url, settings.openai_compatible_api_key, None),
    )
    for name, kind, given_url, api_key, own_url in vendors:
        base_url = given_url or (own_url if api_key is not None else None)
        if base_url is not None:
            yield name, kind, str(base_url), api_key
