"""The way out to addresses that configuration or callers name, as the settings allow it."""

from app.settings import Settings
from app.tools.addresses import Inside
from app.tools.outbound import Door, Policy


def outbound(settings: Settings) -> Door:
    """Make the door; whoever asked for it closes it."""
    return Door(Policy(Inside.parse(settings.outbound_inside), allows_http=settings.outbound_http))
