"""Which hooks hold for a session: the server's, without those it disables, and its own."""

from typing import Any

import orjson
import pytest

from app.errors import InvalidRequest, StartupError
from app.hooks import configuration
from app.hooks.base import Hook, HookFault
from app.hooks.registry import Registry
from app.outbound.door import Door, Policy
from tests.hooks.receiver import SECRET, deciding, receiving

pytestmark = pytest.mark.anyio

ADDED: dict[str, Any] = {"id": "own", "point": "turn_started", "url": "http://127.0.0.1:1/", "capability": "observe"}

REWRITER: dict[str, Any] = ADDED | {"point": "turn_completed", "capability": "rewrite"}


def registry(door: Door, *hooks: dict[str, Any]) -> Registry:
    document = {"secret": SECRET, "allowed_hosts": ["127.0.0.1"], "hooks": hooks}
    return Registry(configuration.load(orjson.dumps(document).decode()), door, door)


def hook(hook_id: str, **changes: Any) -> dict[str, Any]:
    return {"id": hook_id, "points": ["turn_started"], "url": "http://hooks.test/", "capability": "guardrail"} | changes


def ids(found: Registry, override: Any = None) -> list[str]:
    return [hook.id for hook in found.hooks(override)]


async def test_without_override_all_hooks_hold_in_their_order(door: Door) -> None:
    assert ids(registry(door, hook("b"), hook("a"))) == ["b", "a"]


async def test_disabled_hooks_are_left_out_and_own_ones_come_last(door: Door) -> None:
    found = registry(door, hook("a"), hook("b"))

    assert ids(found, {"disable": ["a"], "entries": [ADDED]}) == ["b", "own"]
    assert ids(found) == ["a", "b"]


async def test_own_hook_is_asked_at_its_url_with_the_servers_signature(door: Door) -> None:
    async with receiving(deciding({"decision": "allow"})) as receiver:
        entry = ADDED | {"url": receiver.url, "capability": "guardrail", "priority": -5, "timeout_ms": 700}
        (own,) = registry(door).hooks({"entries": [entry]})
        await own.answerer.answer(b"{}")

    assert (own.points, own.capability, own.mode, own.priority, own.timeout_ms) == (
        frozenset({"turn_started"}), "guardrail", "foreground", -5, 700,
    )  # fmt: skip
    assert "x-suricate-signature" in receiver.requests[0].headers


@pytest.mark.parametrize(
    ("override", "loc"),
    [
        (5, "hooks_override"),
        ({"commands": []}, "hooks_override.commands"),
        ({"disable": "a"}, "hooks_override.disable"),
        ({"disable": ["a", "unknown"]}, "hooks_override.disable.1"),
        ({"disable": ["kept"]}, "hooks_override.disable.0"),
        ({"disable": ["a"] * 65}, "hooks_override.disable"),
        ({"entries": [ADDED | {"command": "rm"}]}, "hooks_override.entries.0.command"),
        ({"entries": [ADDED | {"entry_point": "audit"}]}, "hooks_override.entries.0.entry_point"),
        ({"entries": [ADDED | {"secret": SECRET}]}, "hooks_override.entries.0.secret"),
        ({"entries": [ADDED | {"id": "a"}]}, "hooks_override.entries.0.id"),
        ({"disable": ["a"], "entries": [ADDED | {"id": "a"}]}, "hooks_override.entries.0.id"),
        ({"entries": [ADDED, ADDED]}, "hooks_override.entries.1.id"),
        ({"entries": [ADDED | {"url": "http://hooks.test/"}]}, "hooks_override.entries.0.url"),
        ({"entries": [ADDED | {"url": "http://localhost/"}]}, "hooks_override.entries.0.url"),
        ({"entries": [ADDED | {"url": "file:///etc/passwd"}]}, "hooks_override.entries.0.url"),
        ({"entries": [ADDED | {"point": "soon"}]}, "hooks_override.entries.0.point"),
        ({"entries": [ADDED | {"timeout_ms": 5001}]}, "hooks_override.entries.0.timeout_ms"),
        ({"entries": [ADDED | {"capability": "guardrail", "mode": "background"}]}, "hooks_override.entries.0"),
        ({"entries": [ADDED | {"capability": "rewrite"}]}, "hooks_override.entries.0"),
        ({"entries": [ADDED | {"id": f"h{number}"} for number in range(17)]}, "hooks_override.entries"),
        ({"entries": [REWRITER | {"priority": 3}]}, "hooks_override.entries.0.priority"),
        ({"x" * 100: 1}, "hooks_override." + "x" * 64),
    ],
)
async def test_override_that_is_not_valid_is_refused_at_its_place(door: Door, override: Any, loc: str) -> None:
    found = registry(door, hook("a"), hook("kept", points=["turn_completed"], required=True, priority=3))

    with pytest.raises(InvalidRequest) as caught:
        found.hooks(override)

    errors: Any = caught.value.members["errors"]
    assert [error["loc"] for error in errors] == [loc]


async def test_own_rewriter_may_be_asked_before_a_required_hook(door: Door) -> None:
    found = registry(door, hook("kept", points=["turn_completed"], required=True, priority=3))

    assert ids(found, {"entries": [REWRITER | {"priority": 2}]}) == ["kept", "own"]


async def test_refusal_repeats_no_value(door: Door) -> None:
    with pytest.raises(InvalidRequest) as caught:
        registry(door).hooks({"disable": ["canary"], "entries": [ADDED | {"url": "http://canary/", "id": "canary"}]})

    assert "canary" not in str(caught.value.members) + str(caught.value)


async def test_entry_point_that_is_not_installed_keeps_the_server_from_starting(door: Door) -> None:
    with pytest.raises(StartupError, match="nowhere"):
        registry(door, {"id": "a", "points": ["turn_started"], "entry_point": "nowhere", "capability": "observe"})


def own_hook(host: str, url: str) -> Hook:
    """Make the hook that a session adds where the server allows a host and lets in nothing else."""
    configured = configuration.load(orjson.dumps({"secret": SECRET, "allowed_hosts": [host]}).decode())
    door = Door(Policy(configured.inside, allows_http=True))
    [added] = Registry(configured, door, door).hooks({"entries": [ADDED | {"url": url}]})
    return added


async def test_own_hook_is_asked_at_an_address_that_was_allowed_and_not_where_an_allowed_name_leads_inside() -> None:
    async with receiving(deciding({"decision": "allow"})) as receiver:
        await own_hook("127.0.0.1", receiver.url).answerer.answer(b"{}")
        with pytest.raises(HookFault, match="may not be reached"):
            await own_hook("localhost", receiver.url.replace("127.0.0.1", "localhost")).answerer.answer(b"{}")

    assert len(receiver.requests) == 1
