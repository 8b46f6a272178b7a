"""Tools that come with the server: harmless, without network, files or processes."""

import zoneinfo
from collections.abc import Mapping
from typing import Any

from app import clock
from app.providers.base import ToolSpec
from app.tools.base import ToolError


class Datetime:
    """Tells the date and time in a time zone."""

    spec = ToolSpec(
        name="datetime",
        description="Tell the current date and time. Without a time zone: UTC.",
        input_schema={
            "type": "object",
            "properties": {"timezone": {"type": "string", "description": "IANA name, e.g. Europe/Paris"}},
            "additionalProperties": False,
        },
    )
    is_idempotent = True

    async def run(self, args: Mapping[str, Any]) -> str:
        """Return the time as ISO 8601 with offset and weekday."""
        name = args.get("timezone", "UTC")
        try:
            zone = zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ToolError(f"There is no time zone {name!r}; use an IANA name such as Europe/Paris.") from error
        moment = clock.now().astimezone(zone)
        return f"{moment.isoformat(timespec='seconds')} ({moment:%A})"
