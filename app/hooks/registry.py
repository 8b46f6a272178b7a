"""The server's hooks, made ready at the start, and the ones that hold for a session."""

from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr

from app.errors import InvalidRequest
from app.hooks import override as overrides
from app.hooks import plugin
from app.hooks.base import Answerer, Hook
from app.hooks.configuration import Configuration, Entry
from app.hooks.endpoint import Endpoint
from app.hooks.override import FIELD, Added
from app.outbound.door import Door


class Registry:
    """All hooks that a session can have.

    Args:
        door: for the configuration's own URLs.
        sessions_door: for those that sessions add. Whoever made the doors closes them.

    Raises:
        StartupError: an entry point cannot be had.
    """

    def __init__(self, configuration: Configuration, door: Door, sessions_door: Door) -> None:
        self._configuration = configuration
        self._door = door
        self._sessions_door = sessions_door
        self._hooks = {entry.id: self._hook(entry) for entry in configuration.hooks}

    def hooks(self, override: Any = None) -> Sequence[Hook]:
        """Return the hooks that hold under an override, in order of registration.

        Args:
            override: `hooks_override` as a caller sent it, or as it was kept; None changes nothing.

        Raises:
            InvalidRequest: it breaks the schema, disables a hook that is unknown or required, adds one whose id is taken, that
                would change something behind a required one's back, or whose host is not allowed; `loc` says where.
        """
        wanted = overrides.read(override)
        for place, hook_id in enumerate(wanted.disable):
            self._check_disabled(hook_id, f"{FIELD}.disable.{place}")
        taken = set(self._hooks)
        for place, added in enumerate(wanted.entries):
            self._check_added(added, taken, f"{FIELD}.entries.{place}")
            taken.add(added.id)
        kept = [hook for hook in self._hooks.values() if hook.id not in wanted.disable]
        return [*kept, *(self._added(added) for added in wanted.entries)]

    def _check_disabled(self, hook_id: str, loc: str) -> None:
        hook = self._hooks.get(hook_id)
        if hook is None:
            raise InvalidRequest.at(loc, "This server has no hook of that id.")
        if hook.is_required:
            raise InvalidRequest.at(loc, "This hook is required and cannot be disabled.")

    def _check_added(self, added: Added, taken: set[str], loc: str) -> None:
        if added.id in taken:
            raise InvalidRequest.at(f"{loc}.id", "The id is taken by another hook.")
        if not any(allowed.covers(added.url) for allowed in self._configuration.allowed_hosts):
            raise InvalidRequest.at(f"{loc}.url", "This server does not allow hooks on that host.")
        if added.capability == "rewrite" and any(self._would_miss(hook, added) for hook in self._hooks.values()):
            raise InvalidRequest.at(
                f"{loc}.priority", "A required hook of this point would not see the change; take a lower priority."
            )

    @staticmethod
    def _would_miss(hook: Hook, added: Added) -> bool:
        """Tell whether a required hook would be asked before the session's own has made its change."""
        return hook.is_required and added.point in hook.points and hook.priority <= added.priority

    def _hook(self, entry: Entry) -> Hook:
        return Hook(
            entry.id,
            frozenset(entry.points),
            self._answerer(entry),
            entry.capability,
            mode=entry.mode,
            priority=entry.priority,
            timeout_ms=entry.timeout_ms,
            is_required=entry.required,
        )

    def _answerer(self, entry: Entry) -> Answerer:
        if entry.entry_point is not None:
            return plugin.load(entry.entry_point)
        assert entry.url is not None
        return Endpoint(entry.url, _known(entry.secret or self._configuration.secret), self._door)

    def _added(self, added: Added) -> Hook:
        answerer = Endpoint(added.url, _known(self._configuration.secret), self._sessions_door)
        return Hook(
            added.id,
            frozenset({added.point}),
            answerer,
            added.capability,
            mode=added.mode,
            priority=added.priority,
            timeout_ms=added.timeout_ms,
        )


def _known(secret: SecretStr | None) -> str:
    assert secret is not None  # the configuration is refused without it
    return secret.get_secret_value()
