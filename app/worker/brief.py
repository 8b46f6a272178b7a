"""What an attempt begins with: the turn's options, what was said so far, its tools and its limits, as the loop takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from app import history, realms
from app.agent import transcript
from app.agent.budget import Budget, Meter, meters
from app.agent.loop import Fallback, Limits, Task
from app.agent.points import NO_POINTS, Panel, Points
from app.agent.transcript import Call
from app.errors import AgentError, Fenced
from app.journal import reader
from app.journal.journal import Journal
from app.messages import Message
from app.providers import models
from app.providers.base import Provider
from app.providers.vendors import Vendors
from app.sessions import Options
from app.tools import builtin
from app.tools.external import External
from app.tools.registry import Registry
from app.traces import NO_TRACER, Tracer
from app.turns import claims, turn
from app.turns.claims import Claim

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Bench:
    """What every attempt of this process works with.

    Args:
        panel: the hooks; None asks no one.
        tracer: who is told what attempts took.
        vendors: makes the providers of a realm that brings keys or URLs of its own; None leaves it with `providers`.
    """

    journal: Journal
    providers: Mapping[str, Provider]
    tools: Registry
    limits: Limits
    panel: Panel | None = None
    tracer: Tracer = NO_TRACER
    vendors: Vendors | None = None

    def points(self, session_id: str, turn_id: str, options: Options) -> Points:
        """Return the points at which hooks are asked of a turn.

        Raises:
            AgentError: the session's own hooks do not fit this server's.
        """
        if self.panel is None:
            return NO_POINTS
        return self.panel.points(options.hooks_override, {"session_id": session_id, "turn_id": turn_id})


class Brief:
    """Reads what one claim's attempt needs."""

    def __init__(self, bench: Bench, claim: Claim) -> None:
        self._bench = bench
        self._claim = claim

    def tools(self) -> Registry:
        """Return the tools that the turn's model is offered, as they are now."""
        options = self._claim.options
        tools = self._bench.tools.snapshot()
        if options.builtins is False:
            tools = tools.without(builtin.NAMES)
        if options.external_tools:
            tools = tools.extended([External.of(raw) for raw in options.external_tools])
        return tools

    async def task(self) -> Task:
        """Read what the loop has to do.

        Raises:
            AgentError: this node cannot ask the turn's provider.
            Fenced: the turn is not this attempt's any more.
        """
        claim, options = self._claim, self._claim.options
        providers = await self._providers()
        provider = providers.get(options.provider)
        if provider is None:
            raise AgentError("PROVIDER_UNAVAILABLE", f"The provider {options.provider} is not configured on this node.")
        state = await self.current_step() if claim.has_open_step else None
        return Task(
            provider=provider,
            provider_name=options.provider,
            model=options.model,
            system=options.system_prompt,
            max_tokens=options.max_tokens,
            params=options.provider_params,
            history=claim.history or await self._history(),
            open_calls=await self.open_calls(state),
            steps=claim.steps,
            tool_calls=claim.tool_calls,
            usage=claim.usage,
            text=claim.text,
            approvals=options.approval_tools,
            budget=self._budget(),
            output_schema=options.output_schema,
            schema_retries=options.structured_output_retries,
            context_tokens=models.context_tokens(
                options.provider, options.model, unknown=self._bench.limits.unknown_context_tokens
            ),
            fallbacks=self._fallbacks(options, providers),
            is_new=state is None and not claim.steps,
        )

    async def open_calls(self, state: transcript.StepState | None) -> list[Call]:
        """Return a step's calls whose results have not entered the transcript, with what callers have allowed."""
        calls = state.open_calls if state else []
        if calls:
            async with self._bench.journal.database.transaction(self._claim.realm) as db:
                allowed = (await turn.get(db, self._claim.session_id, self._claim.turn_id)).allowed
            for call in calls:
                call.is_allowed = call.id in allowed
        return calls

    async def current_step(self) -> transcript.StepState | None:
        """Read the turn's newest step off its log; None where none has begun."""
        async with self._bench.journal.database.transaction(self._claim.realm) as db:
            return transcript.fold(await reader.current_step(db, self._claim.session_id, self._claim.turn_id))

    async def may_compact(self) -> bool:
        """Tell whether the realm lets transcripts be summed up."""
        async with self._bench.journal.database.transaction(self._claim.realm) as db:
            return (await realms.get(db)).config.compacts

    async def _providers(self) -> Mapping[str, Provider]:
        """Return whom the turn may ask; only a realm that brings something costs a look at its configuration."""
        if self._bench.vendors is None or not self._claim.brings_providers:
            return self._bench.providers
        async with self._bench.journal.database.transaction(self._claim.realm) as db:
            return self._bench.vendors.of((await realms.get(db)).config.brought, realm=db.realm)

    def _fallbacks(self, options: Options, providers: Mapping[str, Provider]) -> list[Fallback]:
        """Return the models to fall back on, without those that this node cannot ask."""
        found: list[Fallback] = []
        for named in options.fallback_models:
            provider = providers.get(named["provider"])
            if provider is None:
                log.warning("fallback_not_configured", provider=named["provider"], model=named["model"])
                continue
            params = options.provider_params if named["provider"] == options.provider else {}
            found.append(Fallback(provider, named["provider"], named["model"], params))
        return found

    def _budget(self) -> Budget:
        claim, limits = self._claim, self._bench.limits
        return Budget([
            *meters(claim.options.budget_limits, claim.session_used),
            *meters(claim.options.turn_budget, claim.turn_used),
            Meter("time", limits.turn_timeout_seconds, claim.turn_used.seconds, "TURN_TIMEOUT"),
            Meter("output", limits.turn_output_tokens, claim.usage.output_tokens, "OUTPUT_LIMIT"),
        ])

    async def _history(self) -> Sequence[Message]:
        """Read the transcript; where another hand has ended the turn, what it wrote there is not for this attempt's model."""
        claim = self._claim
        async with self._bench.journal.database.transaction(self._claim.realm) as db:
            found = await history.transcript(db, claim.session_id, summed_up_to=claim.summed_up_to)
            if not await claims.is_in_force(db, claim):
                raise Fenced
        return found
