"""API keys: made, found by their secret alone, replaced and ended."""

from datetime import timedelta

import pytest

from app import clock
from app.credentials import keys
from app.credentials.caller import Caller
from app.credentials.keys import NewKey
from app.db.engine import EVERY_REALM, Database
from app.errors import KeyNotFound
from app.sessions import DEFAULT_REALM

pytestmark = pytest.mark.anyio


async def made(database: Database, *scopes: str, realm: str = DEFAULT_REALM, seconds: float | None = None) -> dict[str, str]:
    """Make a key, and return it as its maker sees it."""
    ends = None if seconds is None else clock.now() + timedelta(seconds=seconds)
    async with database.transaction(realm) as db:
        return await keys.create(db, NewKey("a key", scopes or ("read",), ends), by="test")  # type: ignore[arg-type]


async def bearer(database: Database, secret: str) -> Caller | None:
    """Ask whom a secret speaks for."""
    async with database.transaction(EVERY_REALM) as db:
        return await keys.bearer(db, secret)


def test_keys_differ_and_have_their_form() -> None:
    one, other = keys.make(), keys.make()

    assert one != other
    assert keys.is_key(one)
    assert len(one) == len("sur_") + 43 + 6


@pytest.mark.parametrize("place", [4, 20, 46, -1])
def test_mistyped_key_is_known_without_a_question(place: int) -> None:
    key = list(keys.make())
    key[place] = "b" if key[place] == "a" else "a"

    assert not keys.is_key("".join(key))


@pytest.mark.parametrize("text", ["", "sur_", "sur_" + "0" * 49, "sür_" + "0" * 49, "sur_" + "0" * 48])
def test_other_texts_are_no_keys(text: str) -> None:
    assert not keys.is_key(text)


async def test_key_speaks_for_its_realm_with_the_most_of_its_scopes(database: Database) -> None:
    key = await made(database, "read", "write", realm="acme")

    assert await bearer(database, key["key"]) == Caller("acme", f"key:{key['key_id']}", "write")


async def test_secret_is_nowhere_in_the_database(database: Database) -> None:
    key = await made(database)

    async with database.transaction(EVERY_REALM) as db:
        [row] = await db.fetch("SELECT to_jsonb(api_keys)::text AS kept, hash FROM api_keys")

    assert key["key"] not in row["kept"]
    assert row["hash"] == keys.hashed(key["key"])


async def test_key_that_was_never_made_speaks_for_no_one(database: Database) -> None:
    assert await bearer(database, keys.make()) is None


async def test_key_ends_at_its_time(database: Database) -> None:
    key = await made(database, seconds=-1)

    assert await bearer(database, key["key"]) is None


async def test_revoked_key_is_over_and_stays_on_the_list(database: Database) -> None:
    key = await made(database)

    async with database.transaction(DEFAULT_REALM) as db:
        first = await keys.revoke(db, key["key_id"])
        again = await keys.revoke(db, key["key_id"])
        listed = await keys.find(db)

    assert first == again
    assert [one["revoked_at"] for one in listed] == [first["revoked_at"]]
    assert "key" not in listed[0]
    assert await bearer(database, key["key"]) is None


async def test_rotation_overlaps(database: Database) -> None:
    old = await made(database, "write")

    async with database.transaction(DEFAULT_REALM) as db:
        new = await keys.rotate(db, old["key_id"], overlap_seconds=60, by="test")
    both = [await bearer(database, key["key"]) for key in (old, new)]
    async with database.transaction(DEFAULT_REALM) as db:
        newest = await keys.rotate(db, new["key_id"], overlap_seconds=0, by="test")

    assert [None if one is None else one.scope for one in both] == ["write", "write"]
    assert (new["name"], new["scopes"]) == (old["name"], old["scopes"])
    assert await bearer(database, new["key"]) is None
    assert await bearer(database, newest["key"]) is not None


@pytest.mark.parametrize("key_id", ["", "x", "0199c0de-0000-7000-8000-000000000000"])
async def test_key_that_is_not_there_is_not_found(database: Database, key_id: str) -> None:
    async with database.transaction(DEFAULT_REALM) as db:
        with pytest.raises(KeyNotFound):
            await keys.revoke(db, key_id)
        with pytest.raises(KeyNotFound):
            await keys.rotate(db, key_id, overlap_seconds=1, by="test")


async def test_key_of_another_realm_is_not_found(database: Database) -> None:
    key = await made(database, realm="acme")

    async with database.transaction("other") as db:
        assert await keys.find(db) == []
        with pytest.raises(KeyNotFound):
            await keys.revoke(db, key["key_id"])
        with pytest.raises(KeyNotFound):
            await keys.rotate(db, key["key_id"], overlap_seconds=1, by="test")
    assert await bearer(database, key["key"]) is not None


async def test_use_is_noted(database: Database) -> None:
    key = await made(database)
    await bearer(database, key["key"])

    async with database.transaction(DEFAULT_REALM) as db:
        [listed] = await keys.find(db)

    assert listed["last_used_at"] is not None
