"""A hook in Python: an async callable that a package offers under the entry-point group `suricate.hooks`.

It runs in the server's process with the server's rights, and must not block the event loop. It gets a copy of the payload of
its own, and its answer is read as strictly as one from outside.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from importlib.metadata import entry_points
from typing import Any, Final, TypeAlias

import orjson

from app.errors import StartupError
from app.hooks.base import HookFault

GROUP: Final = "suricate.hooks"

AsyncCallable: TypeAlias = Callable[[dict[str, Any]], Awaitable[Any]]


class Plugin:
    """Asks a callable."""

    def __init__(self, function: AsyncCallable) -> None:
        self._function = function

    async def answer(self, body: bytes) -> bytes:
        """Call it with the payload, and return its decision.

        Raises:
            HookFault: it raised, or what it returned is no JSON.
        """
        try:
            return orjson.dumps(await self._function(orjson.loads(body)))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise HookFault("The hook failed: CancelledError.") from error
        except Exception as error:  # a stranger's code: whatever it raises is the failure of one hook
            raise HookFault(f"The hook failed: {type(error).__name__}.") from error


def load(name: str) -> Plugin:
    """Import the entry point of that name.

    Raises:
        StartupError: there is none or more than one, it cannot be imported, or it is not an async callable.
    """
    found = list(entry_points(group=GROUP, name=name))
    if len(found) != 1:
        raise StartupError(
            f"The entry point {name!r} of the group {GROUP} is offered by {len(found)} packages; it must be one."
        )
    try:
        function = found[0].load()
    except Exception as error:
        raise StartupError(f"The entry point {name!r} of the group {GROUP} cannot be imported: {error}") from error
    if not _is_async_callable(function):
        raise StartupError(
            f"The entry point {name!r} of the group {GROUP} is not an async function or an object that is called as one."
        )
    return Plugin(function)


def _is_async_callable(function: object) -> bool:
    if not callable(function) or isinstance(function, type):
        return False
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
