"""What hooks may answer, by capability and by point."""

from typing import Any, get_args

import orjson
import pytest

from app.hooks import decisions
from app.hooks.base import MAX_BODY_BYTES, REWRITABLE, Capability, Hook, HookFault, Point
from app.hooks.decisions import Allow, Deny, Rewrite
from app.hooks.plugin import Plugin

DENY = {"decision": "deny", "reason": "No."}
GOOD: dict[Point, dict[str, Any]] = {
    "pre_model_request": {"max_tokens": 5, "provider_params": {"temperature": 0}},
    "post_model_response": {"text": ""},
    "pre_tool_execution": {"args": {}},
    "post_tool_execution": {"result": "r"},
    "turn_completed": {"text": "t"},
}
BAD: list[tuple[Point, Any]] = [
    ("pre_model_request", {}),
    ("pre_model_request", {"max_tokens": 0}),
    ("pre_model_request", {"max_tokens": True}),
    ("pre_model_request", {"max_tokens": "5"}),
    ("pre_model_request", {"provider_params": {}}),
    ("pre_model_request", {"provider_params": []}),
    ("pre_model_request", {"model": "other"}),
    ("post_model_response", {"text": None}),
    ("pre_tool_execution", {"args": "{}"}),
    ("pre_tool_execution", {"args": {}, "name": "other"}),
    ("post_tool_execution", {"text": "t"}),
    ("post_tool_execution", {"result": "r", "is_error": False}),
    ("turn_completed", {"text": 5}),
]


def hook(capability: Capability) -> Hook:
    async def never(_payload: Any) -> Any:
        raise AssertionError("not asked here")

    return Hook("h", frozenset(get_args(Point)), Plugin(never), capability)


def read(capability: Capability, point: Point, answer: Any) -> decisions.Decision:
    return decisions.read(hook(capability), point, answer if isinstance(answer, bytes) else orjson.dumps(answer))


@pytest.mark.parametrize("capability", get_args(Capability))
def test_every_capability_may_allow(capability: Capability) -> None:
    assert read(capability, "turn_started", {"decision": "allow"}) == Allow(decision="allow")


@pytest.mark.parametrize("capability", ["guardrail", "rewrite"])
def test_those_that_fail_closed_may_deny(capability: Capability) -> None:
    assert read(capability, "step_boundary", DENY) == Deny(decision="deny", reason="No.")


@pytest.mark.parametrize("point", GOOD)
def test_each_point_knows_its_own_patch(point: Point) -> None:
    patch = GOOD[point]

    assert read("rewrite", point, {"decision": "rewrite", "patch": patch}) == Rewrite(decision="rewrite", patch=patch)


def test_points_with_a_patch_are_those_that_can_be_rewritten() -> None:
    assert GOOD.keys() == REWRITABLE


@pytest.mark.parametrize("capability", ["observe", "guardrail"])
def test_only_a_rewriter_may_rewrite(capability: Capability) -> None:
    with pytest.raises(HookFault, match="may not answer rewrite"):
        read(capability, "turn_completed", {"decision": "rewrite", "patch": {"text": "t"}})


def test_an_observer_may_not_deny() -> None:
    with pytest.raises(HookFault, match="may not answer deny"):
        read("observe", "turn_started", DENY)


@pytest.mark.parametrize(("point", "patch"), BAD)
def test_patch_that_does_not_fit_its_point_is_a_fault(point: Point, patch: Any) -> None:
    with pytest.raises(HookFault):
        read("rewrite", point, {"decision": "rewrite", "patch": patch})


@pytest.mark.parametrize("point", [point for point in get_args(Point) if point not in REWRITABLE])
def test_patch_where_nothing_can_change_is_a_fault(point: Point) -> None:
    with pytest.raises(HookFault):
        read("rewrite", point, {"decision": "rewrite", "patch": {"text": "t"}})


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"null", b"[]", b'"allow"', b"{}", b"\xff", b'{"decision": NaN}', b"[" * 100_000, b'{"decision":"allow"} x',
        {"decision": "ALLOW"}, {"decision": None}, {"decision": "allow", "note": "x"}, {"decision": "deny"},
        {"decision": "deny", "reason": ""}, {"decision": "deny", "reason": "x" * 2_001}, {"decision": "deny", "reason": 5},
        {"decision": "rewrite"}, {"decision": "rewrite", "patch": None}, b'{"decision":"deny","reason":"\\ud800"}',
    ],
)  # fmt: skip
def test_anything_else_is_no_decision(answer: Any) -> None:
    with pytest.raises(HookFault, match="no decision"):
        read("rewrite", "turn_completed", answer)


def test_answer_over_the_limit_is_a_fault() -> None:
    with pytest.raises(HookFault, match="larger"):
        read("guardrail", "turn_started", b" " * MAX_BODY_BYTES + b'{"decision":"allow"}')


def test_parameters_merge_key_by_key_and_everything_else_is_replaced() -> None:
    old = {"provider_params": {"temperature": 1, "top_p": 1}, "args": {"a": 1}, "max_tokens": None}

    merged = decisions.merge(old, {"provider_params": {"top_p": 2}, "args": {"b": 2}})

    assert merged == {"provider_params": {"temperature": 1, "top_p": 2}, "args": {"b": 2}, "max_tokens": None}
    assert old["provider_params"] == {"temperature": 1, "top_p": 1}


def test_changes_are_named_one_by_one() -> None:
    assert decisions.changed(GOOD["pre_model_request"]) == ["max_tokens", "provider_params.temperature"]
