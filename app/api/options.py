"""What a session tells its model, from the caller's words and, where they say nothing, from the realm and the server."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from app.agent import schemas as output_schemas
from app.api import schemas
from app.api.defaults import Defaults
from app.errors import InvalidRequest
from app.realms import BudgetLimits
from app.sessions import Options, Session
from app.tools import offered

RETRIES = 2


def chosen(defaults: Defaults, asked: schemas.CreateSession) -> Options:
    """Put a new session's options together from what its caller says and what holds where nothing is said.

    Raises:
        InvalidRequest: the provider cannot be told, or a value is not one that it, or this server, knows.
        CapabilityUnavailable: this server cannot ask that provider.
    """
    model, config = asked.model or defaults.model, defaults.config
    provider = defaults.providers.choose(model, asked.provider or defaults.provider(asked.model))
    params = {**defaults.params(provider), **(asked.provider_params or {})}
    defaults.providers.check_params(provider, params)
    builtins = asked.tools.builtins if asked.tools else None
    external_tools = [tool.model_dump(exclude_none=True) for tool in asked.external_tools or []]
    approval_tools = defaults.approvals if asked.approval_tools is None else asked.approval_tools
    offered.check(defaults.tools, external_tools, asked.approval_tools or [])
    defaults.hooks.hooks(asked.hooks_override)
    return Options(
        model=model,
        provider=provider,
        system_prompt=config.system_prompt if asked.system_prompt is None else asked.system_prompt,
        max_tokens=config.max_tokens if asked.max_tokens is None else asked.max_tokens,
        provider_params=params,
        builtins=config.builtins if builtins is None else builtins,
        external_tools=external_tools,
        approval_tools=approval_tools,
        budget_limits=_limits(asked.budget_limits or config.budget_limits),
        output_schema=asked.output_schema,
        structured_output_retries=_retries(defaults, asked.structured_output_retries),
        fallback_models=defaults.fallbacks(asked.fallback_models),
        hooks_override=asked.hooks_override,
    )


def changed(defaults: Defaults, session: Session, asked: schemas.ChangeSession) -> Options:
    """Apply a merge patch to a session's options: null goes back to what holds where nothing is said.

    Raises:
        InvalidRequest, CapabilityUnavailable: as `chosen`.
    """
    options = _with_tools(defaults, session.options, asked)
    given = asked.model_dump(include=asked.model_fields_set & {"system_prompt", "max_tokens"})
    new = {name: getattr(defaults.config, name) if value is None else value for name, value in given.items()}
    options = replace(options, **new)
    options = _with_answer(defaults, options, asked)
    if "fallback_models" in asked.model_fields_set:
        options = replace(options, fallback_models=defaults.fallbacks(asked.fallback_models))
    if "hooks_override" in asked.model_fields_set:
        defaults.hooks.hooks(asked.hooks_override)
        options = replace(options, hooks_override=asked.hooks_override)
    if asked.model_fields_set & {"model", "provider"}:
        options = _with_model(defaults, options, asked)
    if "provider_params" in asked.model_fields_set:
        new_params = asked.provider_params
        params = defaults.params(options.provider) if new_params is None else merged(options.provider_params, new_params)
        options = replace(options, provider_params=params)
    if options != session.options:
        defaults.providers.check_params(options.provider, options.provider_params)
    return options


def _with_tools(defaults: Defaults, options: Options, asked: schemas.ChangeSession) -> Options:
    if "tools" in asked.model_fields_set and (asked.tools is None or "builtins" in asked.tools.model_fields_set):
        builtins = asked.tools.builtins if asked.tools else None
        options = replace(options, builtins=defaults.config.builtins if builtins is None else builtins)
    if "external_tools" in asked.model_fields_set:
        given_tools = [tool.model_dump(exclude_none=True) for tool in asked.external_tools or []]
        options = replace(options, external_tools=given_tools)
    if "approval_tools" in asked.model_fields_set:
        options = replace(options, approval_tools=defaults.approvals if asked.approval_tools is None else asked.approval_tools)
    offered.check(defaults.tools, options.external_tools, asked.approval_tools or [])
    return options


def _with_answer(defaults: Defaults, options: Options, asked: schemas.ChangeSession) -> Options:
    given = asked.model_fields_set
    if "output_schema" in given:
        options = replace(options, output_schema=asked.output_schema)
    if "structured_output_retries" in given:
        options = replace(options, structured_output_retries=_retries(defaults, asked.structured_output_retries))
    if "budget_limits" in given:
        options = replace(options, budget_limits=_changed_limits(defaults, options, asked.budget_limits))
    return options


def overrides(defaults: Defaults, session: Session, asked: schemas.StartTurn) -> dict[str, Any]:
    """Read what a caller gives for one turn alone.

    Raises:
        InvalidRequest, CapabilityUnavailable: as `chosen`.
    """
    given: dict[str, Any] = {}
    if asked.max_tokens is not None:
        given["max_tokens"] = asked.max_tokens
    if asked.model is not None:
        provider = defaults.providers.choose(asked.model, _provider(defaults, session.options, asked.model))
        defaults.providers.check_params(provider, session.options.provider_params)
        given |= {"model": asked.model, "provider": provider}
    if asked.output_schema is not None:
        given["output_schema"] = asked.output_schema
    if asked.budget_limits is not None:
        given["turn_budget"] = _limits(asked.budget_limits)
    return given


async def check_schema(schema: Mapping[str, Any] | None) -> None:
    """Check an output schema, on another thread: the worst take half a second.

    Raises:
        InvalidRequest: it cannot be let in.
    """
    if schema is not None:
        await asyncio.to_thread(output_schemas.check, schema)


def _limits(limits: BudgetLimits | None) -> dict[str, Any] | None:
    return limits.model_dump(exclude_none=True) or None if limits is not None else None


def _changed_limits(defaults: Defaults, options: Options, asked: BudgetLimits | None) -> dict[str, Any] | None:
    if asked is None:
        return _limits(defaults.config.budget_limits)
    return merged(options.budget_limits or {}, asked.model_dump(exclude_unset=True)) or None


def _retries(defaults: Defaults, asked: int | None) -> int:
    if asked is not None:
        return asked
    realm = defaults.config.structured_output_retries
    return RETRIES if realm is None else realm


def _with_model(defaults: Defaults, options: Options, asked: schemas.ChangeSession) -> Options:
    is_default = "model" in asked.model_fields_set and asked.model is None
    model = defaults.model if is_default else asked.model or options.model
    if is_default or "provider" in asked.model_fields_set:
        provider = asked.provider or defaults.provider(None if is_default else model)
    else:
        provider = _provider(defaults, options, model)
    return replace(options, model=model, provider=defaults.providers.choose(model, provider))


def _provider(defaults: Defaults, options: Options, model: str) -> str | None:
    """Return whom to ask where a session is given another model alone: a gateway serves any, so that a session stays there."""
    return options.provider if options.provider == "openai_compatible" else defaults.provider(model)


def changes(session: Session, options: Options, asked: schemas.ChangeSession) -> dict[str, Any]:
    """Say what a patch really changes, in the wire's words."""
    before = asdict(session.options) | {"title": session.title, "labels": dict(session.labels)}
    after = asdict(options) | {"title": session.title, "labels": dict(session.labels)}
    if "title" in asked.model_fields_set:
        after["title"] = asked.title
    if "labels" in asked.model_fields_set:
        after["labels"] = merged(session.labels, asked.labels)
        if len(after["labels"]) > schemas.MOST_LABELS:
            raise InvalidRequest.at("labels", f"At most {schemas.MOST_LABELS} labels.")
    for side in (before, after):
        side.pop("turn_budget")
    before["tools"], after["tools"] = ({"builtins": side.pop("builtins")} for side in (before, after))
    return {name: value for name, value in after.items() if value != before[name]}


def merged(old: Mapping[str, Any], patch: Mapping[str, Any] | None) -> dict[str, Any]:
    """Apply a merge patch to a flat object; None removes it whole."""
    if patch is None:
        return {}
    return {name: value for name, value in {**old, **patch}.items() if value is not None}
