"""Plans as clients draw them: most are short, some call tools, some wait for answers, some go wrong."""

import random

from tests.torture.plan import Plan, ProviderFault, Tool

FAULTS: tuple[ProviderFault, ...] = ("cut", "reset", "end_early", "busy", "down", "error_event", "silent", "html")
TOOLS: dict[Tool, int] = {"effect": 8, "lookup": 4, "ask": 1, "guarded": 1}
RATES = (0.0, 40.0, 60.0, 60.0)  # tokens a second; each that comes slowly becomes an event of its own
HAS_CALLS, HAS_FAULTS, IS_LONG, HAS_REASONING = 0.3, 0.06, 0.08, 0.2


def drawn(plan_id: str, rng: random.Random, *, calling: float = HAS_CALLS, faulty: float = HAS_FAULTS) -> Plan:
    """Draw a plan.

    Args:
        calling, faulty: shares of plans that call tools, and that have the provider fail.
    """
    is_long = rng.random() < IS_LONG
    return Plan(
        plan_id,
        tokens=rng.randint(100, 250) if is_long else rng.randint(5, 70),
        rate=60.0 if is_long else rng.choice(RATES),
        reasoning=rng.randint(1, 10) if rng.random() < HAS_REASONING else 0,
        calls=_calls(rng) if rng.random() < calling else [],
        faults=rng.sample(FAULTS, rng.randint(1, 2)) if rng.random() < faulty else [],
    )


def _calls(rng: random.Random) -> list[list[Tool]]:
    tools, weights = list(TOOLS), list(TOOLS.values())
    return [rng.choices(tools, weights, k=rng.randint(1, 3)) for _ in range(rng.randint(1, 2))]
