"""Tools that come with the server: harmless, without network, files or processes."""

import asyncio
import zoneinfo
from collections.abc import Mapping
from typing import Any, Final

from app import clock
from app.providers.base import ToolSpec
from app.tools.base import ToolError

LONGEST_WAIT_SECONDS: Final = 60
MOST_TASKS: Final = 100
MOST_TASK_CHARACTERS: Final = 500
MARKS: Final = {"pending": " ", "in_progress": ">", "completed": "x"}


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


class Wait:
    """Lets time pass; an interrupt ends it at once."""

    spec = ToolSpec(
        name="wait",
        description=f"Wait for some seconds, at most {LONGEST_WAIT_SECONDS}, before going on.",
        input_schema={
            "type": "object",
            "properties": {"seconds": {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT_SECONDS}},
            "required": ["seconds"],
            "additionalProperties": False,
        },
    )
    is_idempotent = True

    async def run(self, args: Mapping[str, Any]) -> str:
        """Return after so many seconds."""
        seconds = args["seconds"]
        await asyncio.sleep(seconds)
        return f"Waited {seconds:g} s."


class Tasks:
    """Keeps a list of tasks in the conversation: the latest call has the whole list, so nothing else needs to store it."""

    spec = ToolSpec(
        name="tasks",
        description="Keep a list of tasks for work of several steps. Send the whole list each time, in order; "
        "it replaces the one before. Mark a task in_progress before beginning it and completed when it is done.",
        input_schema={
            "type": "object",
            "properties": {
                "tasks": {
                    "type": "array",
                    "maxItems": MOST_TASKS,
                    "items": {
                        "type": "object",
                        "properties": {
                            "title": {"type": "string", "minLength": 1, "maxLength": MOST_TASK_CHARACTERS},
                            "status": {"enum": list(MARKS)},
                        },
                        "required": ["title", "status"],
                        "additionalProperties": False,
                    },
                }
            },
            "required": ["tasks"],
            "additionalProperties": False,
        },
    )
    is_idempotent = True

    async def run(self, args: Mapping[str, Any]) -> str:
        """Return the list as lines, under a count of what is done."""
        tasks = args["tasks"]
        done = sum(task["status"] == "completed" for task in tasks)
        lines = [f"[{MARKS[task['status']]}] {' '.join(task['title'].split())}" for task in tasks]
        return "\n".join([f"{done} of {len(tasks)} tasks are completed.", *lines])


NAMES = frozenset(tool.spec.name for tool in (Datetime, Wait, Tasks))
"""What `tools.builtins` switches."""
