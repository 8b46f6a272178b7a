"""The model vendors that the settings turn on, and how all of them are reached."""

from contextlib import AsyncExitStack

from pydantic import HttpUrl

from app.errors import CapabilityUnavailable, InvalidRequest, StartupError
from app.outbound.door import Door
from app.outbound.transport import Transport
from app.pace import Pace
from app.providers.deadlines import Deadlines
from app.providers.registry import Name
from app.providers.scripted import Scripted
from app.providers.vendors import Access, Vendors, Ways
from app.seals import Seals
from app.settings import Settings


def configured(settings: Settings, ways: Ways, seals: Seals) -> Vendors:
    """Set up the vendors.

    Raises:
        StartupError: one cannot be, or the default model has none.
    """
    access: dict[Name, Access] = {
        "anthropic": _access(settings.anthropic_base_url, settings.anthropic_api_key),
        "openai": _access(settings.openai_base_url, settings.openai_api_key),
        "gemini": _access(settings.gemini_base_url, settings.gemini_api_key),
        "openai_compatible": _access(settings.openai_compatible_base_url, settings.openai_compatible_api_key),
    }
    vendors = Vendors(access, Scripted(tokens_per_second=settings.scripted_tokens_per_second), ways, seals)
    try:
        vendors.of({}).choose(settings.default_model, None)
    except InvalidRequest as error:
        raise StartupError("SURICATE_DEFAULT_MODEL cannot be served: its name tells no provider.") from error
    except CapabilityUnavailable as error:
        raise StartupError(f"SURICATE_DEFAULT_MODEL cannot be served. {error}") from error
    return vendors


def ways(settings: Settings, pace: Pace, outside: Door, stack: AsyncExitStack) -> Ways:
    """Open the transports that all vendors share.

    Args:
        outside: the door for URLs that callers name.
    """
    inside, through_door = Transport(pace=pace), outside.transport(pace=pace)
    for transport in (inside, through_door):
        stack.push_async_callback(transport.aclose)
    deadlines = Deadlines(
        connect_seconds=settings.provider_connect_timeout_seconds,
        first_byte_seconds=settings.provider_first_byte_timeout_seconds,
        idle_seconds=settings.provider_idle_timeout_seconds,
        total_seconds=settings.provider_total_timeout_seconds,
    )
    return Ways(inside, through_door, deadlines)


def _access(base_url: HttpUrl | None, api_key: str | None) -> Access:
    return Access(None if base_url is None else str(base_url), api_key)
