"""A realm's configuration as its room keeps it: generations, merges, secrets, and keys of other versions."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from app import realms
from app.db.engine import Database
from app.errors import ConfigConflict, InvalidRequest
from app.journal.journal import Transaction
from app.realms import Config, Realm, Secret
from app.seals import Seals
from app.sessions import DEFAULT_REALM

pytestmark = pytest.mark.anyio

SEALS = Seals({"a": bytes(32)})


class Vault(Config):
    """A configuration with a secret, also deep inside."""

    key: Secret | None = None
    deep: list[Secret] | None = None


async def put(database: Database, config: Config, expected: int | None = None) -> Realm:
    async with database.transaction(DEFAULT_REALM) as db:
        return await realms.put(Transaction(db), config, expected_generation=expected, seals=SEALS)


async def patch(database: Database, changes: dict[str, Any], expected: int | None = None) -> Realm:
    async with database.transaction(DEFAULT_REALM) as db:
        return await realms.patch(Transaction(db), changes, expected_generation=expected, seals=SEALS)


async def read(database: Database) -> Realm:
    async with database.transaction(DEFAULT_REALM) as db:
        return await realms.get(db)


async def test_configuration_that_nobody_has_written_is_empty_and_of_generation_0(database: Database) -> None:
    assert await read(database) == Realm(Config(), 0)


async def test_generation_grows_by_one_with_each_change_that_changes_something(database: Database) -> None:
    first = await put(database, Config(max_tokens=5))
    same = await put(database, Config(max_tokens=5))
    nothing = await patch(database, {"max_tokens": 5, "system_prompt": None})
    second = await patch(database, {"max_tokens": None})

    assert [realm.generation for realm in (first, same, nothing, second)] == [1, 1, 1, 2]
    assert await read(database) == second == Realm(Config(), 2)


async def test_stale_generation_is_refused_and_writes_nothing(database: Database) -> None:
    await put(database, Config(max_tokens=5), expected=0)

    with pytest.raises(ConfigConflict) as refused:
        await put(database, Config(max_tokens=6), expected=0)
    with pytest.raises(ConfigConflict):
        await patch(database, {"max_tokens": 6}, expected=2)

    assert refused.value.members == {"generation": 1}
    assert await read(database) == Realm(Config(max_tokens=5), 1)


async def test_of_many_that_expect_one_generation_one_gets_it(database: Database) -> None:
    asked = [put(database, Config(max_tokens=number), expected=0) for number in range(1, 6)]
    done = await asyncio.gather(*asked, return_exceptions=True)

    [won] = [one for one in done if isinstance(one, Realm)]
    assert [type(one) for one in done if not isinstance(one, Realm)] == [ConfigConflict] * 4
    assert await read(database) == won


async def test_patches_of_different_keys_at_once_both_hold(database: Database) -> None:
    await asyncio.gather(patch(database, {"max_tokens": 5}), patch(database, {"builtins": False}))

    assert await read(database) == Realm(Config(max_tokens=5, builtins=False), 2)


@pytest.mark.parametrize(
    ("changes", "params"),
    [
        ({}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"provider_params": {"a": None}}, {"b": {"c": 2, "d": 3}}),
        ({"provider_params": {"b": {"c": None, "e": {"f": None, "g": 4}}}}, {"a": 1, "b": {"d": 3, "e": {"g": 4}}}),
        ({"provider_params": {"b": [None]}}, {"a": 1, "b": [None]}),
        ({"provider_params": {"a": {"b": 1}}}, {"a": {"b": 1}, "b": {"c": 2, "d": 3}}),
        ({"provider_params": None}, None),
    ],
)
async def test_patch_merges_as_rfc_7396_says(database: Database, changes: dict[str, Any], params: Any) -> None:
    await put(database, Config(provider_params={"a": 1, "b": {"c": 2, "d": 3}}))

    assert (await patch(database, changes)).config.provider_params == params


@pytest.mark.parametrize(
    ("changes", "loc"),
    [
        ({"no_such_key": 1}, "config.no_such_key"),
        ({"no_such_key": None}, "config.no_such_key"),
        ({"n" * 100: None}, "config." + "n" * 64),
        ({"max_tokens": 0}, "config.max_tokens"),
        ({"max_tokens": "5"}, "config.max_tokens"),
        ({"provider_params": 5}, "config.provider_params"),
    ],
)
async def test_patch_that_breaks_the_schema_names_the_place(database: Database, changes: dict[str, Any], loc: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await patch(database, changes)

    assert [fault["loc"] for fault in refused.value.members["errors"]] == [loc]  # type: ignore[attr-defined] # a list
    assert await read(database) == Realm(Config(), 0)


async def test_nul_and_odd_text_come_back_as_they_were(database: Database) -> None:
    odd = 'NUL \0, quote ", \u2028, é, 😀'

    await put(database, Config(system_prompt=odd, provider_params={odd: odd}))

    assert (await read(database)).config == Config(system_prompt=odd, provider_params={odd: odd})


async def test_keys_of_another_version_are_passed_over(database: Database) -> None:
    await put(database, Config(max_tokens=5))
    async with database.transaction(DEFAULT_REALM) as db:
        await db.execute("""UPDATE realms SET config = '{"max_tokens": 5, "of_later": 1}'""")

    assert await read(database) == Realm(Config(max_tokens=5), 1)


def test_secret_is_kept_and_shown_only_as_set() -> None:
    vault = Vault(key="hidden", deep=["hidden"])

    assert realms.stored(vault) == {"key": "hidden", "deep": ["hidden"]}
    assert realms.shown(vault) == {"key": {"is_set": True}, "deep": [{"is_set": True}]}
    assert realms.shown(Vault()) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"fallback_models": [{"provider": "scripted"}]},
        {"fallback_models": [{"model": "scripted", "more": 1}]},
        {"fallback_models": ["scripted"]},
        {"fallback_models": [{"model": "scripted"}] * 6},
        {"budget_limits": {"max_tokens": -1}},
        {"budget_limits": {"max_tokens": 1.5}},
        {"budget_limits": {"more": 1}},
        {"compaction": {}},
        {"compaction": {"enabled": 1}},
        {"structured_output_retries": 11},
        {"structured_output_retries": True},
    ],
)
def test_value_of_the_wrong_shape_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate(wrong)
