"""A realm's configuration: what its sessions get where they say nothing. Server settings stand below it, a session's own above.

`Config` is the one list of keys: the wire, the table and the OpenAPI document follow it. Knows which values have the right
shape, not which model this server can ask: the door checks that. Each act takes the caller's transaction and commits nothing.

A patch is merged into the configuration that is locked, never into one that the caller has read: two patches of different keys
both hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias

import orjson
from pydantic import Field, PlainSerializer, SerializationInfo, ValidationError

from app.db.engine import Connection, Row
from app.errors import ConfigConflict, InvalidRequest
from app.journal.journal import Transaction
from app.providers.provider_params import LOC_CHARACTERS, Strict
from app.providers.registry import ModelName, Name
from app.providers.vendors import Brought
from app.seals import Seals

_SHOWN: Final = {"is_shown": True}


def _veiled(secret: str, info: SerializationInfo) -> Any:
    return {"is_set": True} if info.context == _SHOWN else secret


Secret: TypeAlias = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,2000}$"), PlainSerializer(_veiled)]
"""A string of the configuration that `shown` only says is set."""


class FallbackModel(Strict):
    """A model to ask where the one before it has failed in all tries."""

    model: ModelName
    provider: Name | None = None


FallbackModels: TypeAlias = Annotated[list[FallbackModel], Field(max_length=5)]


class BudgetLimits(Strict):
    """What a session may use up; 0 is nothing, null is no limit."""

    max_tokens: Annotated[int, Field(ge=0)] | None = None
    max_duration_seconds: Annotated[float, Field(ge=0)] | None = None
    max_tool_calls: Annotated[int, Field(ge=0)] | None = None


class Compaction(Strict):
    """Whether long transcripts are summed up."""

    enabled: bool


class OwnProvider(Strict):
    """What a realm brings for a vendor; its sessions ask it with no other key than this.

    Args:
        api_key: null sends none.
        base_url: null is where the server asks that vendor, or the vendor's own.
    """

    api_key: Secret | None = None
    base_url: Annotated[str, Field(max_length=2_000)] | None = None


class OwnProviders(Strict):
    """What a realm brings, by vendor."""

    anthropic: OwnProvider | None = None
    openai: OwnProvider | None = None
    gemini: OwnProvider | None = None
    openai_compatible: OwnProvider | None = None


class Config(Strict):
    """What a realm's sessions get where they say nothing; a key that is null or absent is left to the server.

    Args:
        default_model: for sessions that name no model.
        default_provider: whom to ask for it, and for models whose name tells no provider; null infers it from the name.
        system_prompt: for sessions that give none.
        max_tokens: most output tokens of one model call.
        provider_params: for sessions that ask the provider of the default model; a session's own go over them, key by key.
        builtins: whether the built-in tools are offered.
        fallback_models: for sessions that name none; asked in this order.
        structured_output_retries: further tries at an answer that breaks its schema, 0 to 10.
        compaction: whether long transcripts are summed up; else yes.
        approval_tools: names of tools whose calls wait for an approval.
        providers: keys and URLs of the realm's own, instead of the server's.
    """

    default_model: ModelName | None = None
    default_provider: Name | None = None
    system_prompt: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    provider_params: dict[str, Any] | None = None
    builtins: bool | None = None
    fallback_models: FallbackModels | None = None
    budget_limits: BudgetLimits | None = None
    compaction: Compaction | None = None
    structured_output_retries: Annotated[int, Field(ge=0, le=10)] | None = None
    approval_tools: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = None
    providers: OwnProviders | None = None

    @property
    def brought(self) -> dict[Name, Brought]:
        """What the realm brings for vendors; its keys are sealed."""
        own: dict[Name, OwnProvider | None] = dict(self.providers or ())  # type: ignore[assignment] # fields are names
        return {name: Brought(one.base_url, one.api_key) for name, one in own.items() if one and (one.base_url or one.api_key)}

    @property
    def compacts(self) -> bool:
        """Whether long transcripts are summed up."""
        return self.compaction is None or self.compaction.enabled


@dataclass(frozen=True, slots=True)
class Realm:
    """A realm's configuration, and how often it has changed."""

    config: Config
    generation: int


async def get(db: Connection) -> Realm:
    """Read the configuration; one that nobody has written is empty, of generation 0."""
    row = await db.fetchrow("SELECT config, generation FROM realms WHERE realm_id = $1", db.realm)
    return Realm(Config(), 0) if row is None else _realm_from(row)


async def put(tx: Transaction, config: Config, *, expected_generation: int | None, seals: Seals) -> Realm:
    """Replace the configuration. One that is the same already keeps its generation; a secret always counts as new.

    Args:
        expected_generation: the one that the caller has read; None replaces whatever there is.
        seals: what its secrets are sealed with.

    Raises:
        ConfigConflict: it has changed since; nothing was written.
        CapabilityUnavailable: it holds a secret, and there is nothing to seal it with.
    """
    realm = await _lock(tx, expected_generation)
    return await _store(tx, realm, config if config.providers is None else _parse(_sealed(stored(config), seals, tx.db.realm)))


async def patch(tx: Transaction, changes: Mapping[str, Any], *, expected_generation: int | None, seals: Seals) -> Realm:
    """Merge changes into the configuration: null removes a key, at any depth. Nothing new keeps the generation.

    Args:
        changes: a JSON object.
        expected_generation, seals: as for `put`.

    Raises:
        ConfigConflict, CapabilityUnavailable: as `put`.
        InvalidRequest: a key is unknown, or the outcome would be no valid configuration; nothing was written.

    Source: RFC 7396, section 2.
    """
    realm = await _lock(tx, expected_generation)
    before = stored(realm.config)
    _parse(_merged(before, changes, keeps_null=True))  # an unknown key is refused even where null would remove it
    return await _store(tx, realm, _parse(_merged(before, _sealed(changes, seals, tx.db.realm))))


async def seal_anew(db: Connection, seals: Seals) -> int:
    """Seal with the newest key what was sealed with an older one; generations stay.

    Returns:
        How many secrets that were.

    Raises:
        Unsealable: one cannot be opened; nothing was written.
    """
    count = 0
    for row in await db.fetch("SELECT realm_id, config FROM realms WHERE brings_providers FOR NO KEY UPDATE"):
        config, old = orjson.loads(row["config"]), 0
        for own in config.get("providers", {}).values():
            if "api_key" in own and not seals.is_current(own["api_key"]):
                own["api_key"] = seals.seal(seals.open(own["api_key"], realm=row["realm_id"]), realm=row["realm_id"])
                old += 1
        if old:
            text = orjson.dumps(config, option=orjson.OPT_SORT_KEYS).decode()
            await db.execute("UPDATE realms SET config = $2 WHERE realm_id = $1", row["realm_id"], text)
        count += old
    return count


def stored(config: Config) -> dict[str, Any]:
    """Write a configuration as it is kept: the keys that are set."""
    return config.model_dump(exclude_none=True)


def shown(config: Config) -> dict[str, Any]:
    """Write a configuration as callers see it: the keys that are set, and of a secret only that it is."""
    return config.model_dump(exclude_none=True, context=_SHOWN)


async def _lock(tx: Transaction, expected_generation: int | None) -> Realm:
    await tx.db.execute("INSERT INTO realms (realm_id, config) VALUES ($1, '{}') ON CONFLICT DO NOTHING", tx.db.realm)
    realm = _realm_from(
        await tx.db.fetchrow("SELECT config, generation FROM realms WHERE realm_id = $1 FOR NO KEY UPDATE", tx.db.realm)
    )
    if expected_generation not in {None, realm.generation}:
        raise ConfigConflict(
            "The configuration has changed since it was read; read it again and repeat the change.",
            generation=realm.generation,
        )
    return realm


async def _store(tx: Transaction, realm: Realm, config: Config) -> Realm:
    if _json(config) == _json(realm.config):
        return realm
    changed = Realm(config, realm.generation + 1)
    await tx.db.execute(
        "UPDATE realms SET config = $2, generation = $3, brings_providers = $4 WHERE realm_id = $1",
        tx.db.realm,
        _json(config),
        changed.generation,
        bool(config.brought),
    )
    return changed


def _realm_from(row: Row) -> Realm:
    """Read a row; keys that a node of a newer version wrote are passed over, so that both can serve the realm."""
    known = Config.model_fields.keys()
    config = {name: value for name, value in orjson.loads(row["config"]).items() if name in known}
    return Realm(Config.model_validate(config), row["generation"])


def _json(config: Config) -> str:
    return orjson.dumps(stored(config), option=orjson.OPT_SORT_KEYS).decode()


def _parse(value: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(value)
    except ValidationError as error:
        found = [{"loc": _loc(fault["loc"]), "msg": fault["msg"]} for fault in error.errors(include_input=False)]
    raise InvalidRequest("The request is not valid.", errors=found)


def _loc(path: tuple[int | str, ...]) -> str:
    return ".".join(["config", *(str(part)[:LOC_CHARACTERS] for part in path)])


def _sealed(changes: Mapping[str, Any], seals: Seals, realm: str) -> Mapping[str, Any]:
    """Return changes with their keys sealed. Whatever a caller sends as a key is sealed, also what looks as if it were."""
    providers = changes.get("providers")
    if not isinstance(providers, dict):
        return changes
    return {**changes, "providers": {name: _with_sealed_key(own, seals, realm) for name, own in providers.items()}}


def _with_sealed_key(own: Any, seals: Seals, realm: str) -> Any:
    if not isinstance(own, dict) or not isinstance(own.get("api_key"), str):
        return own
    return {**own, "api_key": seals.seal(own["api_key"], realm=realm)}


def _merged(target: Any, changes: Mapping[str, Any], *, keeps_null: bool = False) -> dict[str, Any]:
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in changes.items():
        if isinstance(value, dict):
            merged[name] = _merged(merged.get(name), value, keeps_null=keeps_null)
        elif value is None and not keeps_null:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged
