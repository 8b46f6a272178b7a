"""What holds where a session says nothing: the realm's configuration, and below it the server's settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import CapabilityUnavailable, InvalidRequest, Refused
from app.hooks.registry import Registry as Hooks
from app.providers.registry import Providers, infer
from app.realms import Config, FallbackModel
from app.tools.registry import Registry

_KEYS = {"provider": "default_provider"}
"""A session's fields whose key in the configuration has another name."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """One realm's defaults on this server.

    Args:
        server_model: for realms that name no model.
    """

    config: Config
    providers: Providers
    server_model: str
    tools: Registry
    hooks: Hooks

    @property
    def approvals(self) -> Sequence[str]:
        """Names of tools whose calls wait for leave in sessions that say nothing of it."""
        return self.config.approval_tools or []

    @property
    def model(self) -> str:
        """The model of sessions that name none."""
        return self.config.default_model or self.server_model

    @property
    def served_by(self) -> str | None:
        """The provider of sessions that name nothing; None where this server cannot serve their model any more."""
        try:
            return self.providers.choose(self.model, self.config.default_provider)
        except Refused:
            return None

    def provider(self, model: str | None) -> str | None:
        """Return the provider of a session that names none; None leaves it to the model's name.

        Args:
            model: what the session names; None is the default model.
        """
        default = self.config.default_provider
        is_asked_for_any = default == "openai_compatible"  # a gateway serves models of any name
        return default if model is None or is_asked_for_any or infer(model) is None else None

    def params(self, provider: str) -> Mapping[str, Any]:
        """Return the realm's `provider_params` where a session asks the provider that they are meant for."""
        own = self.config.default_provider or infer(self.model)
        return self.config.provider_params or {} if provider == own else {}

    def fallbacks(self, asked: Sequence[FallbackModel] | None) -> list[dict[str, str]]:
        """Return the models that a session falls back on, each with its provider.

        Args:
            asked: what the session names; None takes the realm's.

        Raises:
            InvalidRequest: a model's provider cannot be told; `loc` is `fallback_models.<index>`.
            CapabilityUnavailable: this server cannot ask that provider; `field` is the same.
        """
        named = (self.config.fallback_models or []) if asked is None else asked
        return [self._fallback(f"fallback_models.{index}", one) for index, one in enumerate(named)]

    def _fallback(self, loc: str, asked: FallbackModel) -> dict[str, str]:
        try:
            provider = self.providers.choose(asked.model, asked.provider or self.provider(asked.model))
        except InvalidRequest as error:
            raise InvalidRequest(error.detail, errors=[{**fault, "loc": loc} for fault in _faults(error)]) from error
        except CapabilityUnavailable as error:
            raise CapabilityUnavailable(error.detail, field=loc) from error
        return {"model": asked.model, "provider": provider}

    def check(self) -> None:
        """Check that this server can serve a session that says nothing.

        Raises:
            InvalidRequest: the provider of the default model or of a fallback cannot be told, or a parameter is not known.
            CapabilityUnavailable: this server cannot ask that provider, or one that the realm brings a key and no URL for.
        """
        try:
            for name in self.config.brought:
                self.providers.choose("", name)
            provider = self.providers.choose(self.model, self.config.default_provider)
            self.providers.check_params(provider, self.config.provider_params or {})
            self.fallbacks(None)
        except InvalidRequest as error:
            raise InvalidRequest(error.detail, errors=[_placed(fault) for fault in _faults(error)]) from error


def _faults(error: InvalidRequest) -> list[dict[str, str]]:
    faults = error.members["errors"]
    assert isinstance(faults, list)
    return faults


def _placed(fault: Mapping[str, str]) -> dict[str, str]:
    return {"loc": f"config.{_KEYS.get(fault['loc'], fault['loc'])}", "msg": fault["msg"]}
