"""What is to happen in a turn, written into its prompt, so that client, provider, tools and checker all know it.

The provider counts the assistant's messages behind the last plan: that is the step. A step with calls asks for them, the one
after the last answers with text. Each token of text bears the number of the request that said it: who mixes two is found.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import orjson

Tool: TypeAlias = Literal["effect", "lookup", "ask", "guarded"]
"""`effect` must not run twice, `lookup` is declared idempotent, clients run `ask`, `guarded` is an effect under approval."""
ProviderFault: TypeAlias = Literal["cut", "reset", "end_early", "busy", "down", "error_event", "silent", "html"]

_PLAN = re.compile(r"plan (\{.*?\}) end")


@dataclass(frozen=True, slots=True)
class Plan:
    """One turn's.

    Args:
        id: unique in the run; letters and digits, 20 at most.
        tokens: of text in each answer.
        rate: tokens a second, 0 for full speed.
        reasoning: tokens of reasoning before the text.
        calls: the tools that each step before the last one asks for.
        faults: what goes wrong at the first requests of this plan, one each.
    """

    id: str
    tokens: int = 20
    rate: float = 0
    reasoning: int = 0
    calls: Sequence[Sequence[Tool]] = ()
    faults: Sequence[ProviderFault] = ()

    @property
    def prompt(self) -> str:
        """The prompt that holds it."""
        return f"plan {orjson.dumps(dataclasses.asdict(self)).decode()} end"


def last_in(text: str) -> Plan | None:
    """Find the last plan in a text; None where there is none."""
    found = _PLAN.findall(text)
    return Plan(**orjson.loads(found[-1])) if found else None


def effect_key(plan_id: str, step: int, place: int) -> str:
    """Name a call: the tool gets this as its argument `key`."""
    return f"{plan_id}-{step}-{place}"


def arguments(plan_id: str, step: int, place: int) -> Mapping[str, Any]:
    """Make the arguments of a call, for every tool the same."""
    return {"key": effect_key(plan_id, step, place)}


SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"key": {"type": "string"}},
    "required": ["key"],
    "additionalProperties": False,
}
"""What the tools of a run take."""
