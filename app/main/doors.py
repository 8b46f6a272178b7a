"""The ways out, as the settings allow them. Whoever makes one closes it."""

from dataclasses import replace

from app.hooks.base import MAX_BODY_BYTES
from app.hooks.configuration import Configuration
from app.outbound.addresses import EVERYWHERE, Inside
from app.outbound.door import Door, Policy
from app.settings import Settings
from app.worker.courier import MOST_ANSWER_BYTES


def outbound(settings: Settings) -> Door:
    """Make the door for what the operator names: tools, and an issuer's keys."""
    return Door(Policy(Inside.parse(settings.outbound_inside), allows_http=settings.outbound_http))


def for_callers(settings: Settings) -> Door:
    """Make the door for what callers name: webhooks, and base URLs of vendors."""
    return Door(_callers(settings))


def for_webhooks(settings: Settings) -> Door:
    """Make the same for deliveries, whose answers nobody reads."""
    return Door(replace(_callers(settings), max_response_bytes=MOST_ANSWER_BYTES))


def for_hooks(settings: Settings, configured: Configuration) -> tuple[Door, Door]:
    """Make the doors for hooks: the operator's lead anywhere, those of sessions only to what is public or was let in."""
    anywhere = Policy(EVERYWHERE, allows_http=True, max_response_bytes=MAX_BODY_BYTES)
    let_in = replace(anywhere, inside=configured.inside | _callers(settings).inside)
    return Door(anywhere), Door(let_in)


def _callers(settings: Settings) -> Policy:
    return Policy(Inside.parse(settings.outbound_tenants_inside), allows_http=settings.outbound_http)
