"""The ways out, as the settings allow them. Whoever makes one closes it."""

from dataclasses import replace

from app.hooks.base import MAX_BODY_BYTES
from app.hooks.configuration import Configuration
from app.outbound.addresses import EVERYWHERE, Inside
from app.outbound.door import Door, Policy
from app.settings import Settings


def outbound(settings: Settings) -> Door:
    """Make the door for what the operator names: tools, and an issuer's keys."""
    return Door(Policy(Inside.parse(settings.outbound_inside), allows_http=settings.outbound_http))


def for_hooks(settings: Settings, configured: Configuration) -> tuple[Door, Door]:
    """Make the doors for hooks: the operator's lead anywhere, those of sessions only to what is public or was let in."""
    anywhere = Policy(EVERYWHERE, allows_http=True, max_response_bytes=MAX_BODY_BYTES)
    let_in = replace(anywhere, inside=configured.inside | Inside.parse(settings.outbound_tenants_inside))
    return Door(anywhere), Door(let_in)
