"""What webhooks are told, how often, and by whom."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from app import expiry, sessions
from app.db.engine import EVERY_REALM, Database
from app.errors import AgentError, WebhookNotFound
from app.journal.journal import Journal
from app.outbound.addresses import EVERYWHERE
from app.outbound.door import Door, Policy
from app.seals import Seals
from app.sessions import DEFAULT_REALM
from app.turns import endings
from app.webhooks import deliveries, outbox, signing, webhook
from app.webhooks.webhook import KINDS, Kind, Webhook
from app.worker.courier import Courier
from tests.hooks.receiver import Received, receiving, whole
from tests.journal.ledger import Node, claimed, log_of, open_session, start
from tests.turns.acts import archived, completed, ending_of, interrupted

pytestmark = pytest.mark.anyio

SEALS = Seals({"k": bytes(32)})
TAKEN = whole(b"", status="204 No Content")
BUSY = whole(b"", status="503 Service Unavailable")
GONE = whole(b"", status="410 Gone")


def courier(database: Database, *, pauses: Sequence[float] = (0.0, 0.0)) -> Courier:
    return Courier(database, Door(Policy(EVERYWHERE, allows_http=True)), SEALS, pauses=pauses)


async def looked(*couriers: Courier) -> None:
    """Have couriers look once, side by side, and wait for what they do."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        await asyncio.gather(*(one.look(tasks) for one in couriers))


async def hooked(
    database: Database, url: str, types: Sequence[Kind] = KINDS, *, session_id: str | None = None, realm: str = DEFAULT_REALM
) -> Webhook:
    async with database.transaction(realm) as db:
        return await webhook.create(db, SEALS, url=url, types=types, session_id=session_id)


async def found(database: Database, one: Webhook) -> list[dict[str, Any]]:
    async with database.transaction(DEFAULT_REALM) as db:
        return (await deliveries.find(db, one.id, status=None, limit=100, cursor=None))[0]


async def count(database: Database, table: str) -> int:
    async with database.transaction(EVERY_REALM) as db:
        return int(await db.fetchval(f"SELECT count(*) FROM {table}"))


def told(requests: Sequence[Received]) -> list[tuple[str, int]]:
    return sorted((request.payload["type"], request.payload["data"]["seq"]) for request in requests)


async def test_ends_of_turns_and_archives_are_told_as_the_log_has_them_and_signed(database: Database, journal: Journal) -> None:
    node = Node()
    async with receiving(TAKEN) as receiver:
        one = await hooked(database, receiver.url)
        claim = await claimed(journal, node)
        await completed(journal, claim, node)
        turn_id = await start(journal, claim.session_id, node)
        await interrupted(journal, claim.session_id, turn_id, node)
        await start(journal, claim.session_id, node)
        async with journal.transaction(DEFAULT_REALM) as tx:
            await endings.fail(tx, node.claims[-1], AgentError("INTERNAL", "A mistake."), node)
        await archived(journal, claim.session_id)

        await looked(courier(database))

    events = {event["seq"]: event for event in await log_of(database, claim.session_id) if event["type"] in KINDS}
    assert [event["type"] for event in events.values()] == [
        "turn_completed", "turn_interrupted", "turn_failed", "session_archived",
    ]  # fmt: skip
    assert told(receiver.requests) == sorted((event["type"], seq) for seq, event in events.items())
    for request in receiver.requests:
        event = events[request.payload["data"]["seq"]]
        assert request.payload == {"type": event["type"], "timestamp": event["at"], "data": event}
        at = int(request.headers["webhook-timestamp"])
        signed = signing.headers(one.secret(SEALS), request.headers["webhook-id"], request.body, at=at)
        assert request.headers["webhook-signature"] == signed["webhook-signature"]
    assert {row["status"] for row in await found(database, one)} == {"delivered"}
    assert await count(database, "webhook_watches") == 0


async def test_realm_without_webhooks_leaves_nothing_to_look_at(database: Database, journal: Journal) -> None:
    node = Node()

    claim = await claimed(journal, node)
    await start(journal, claim.session_id, node, on_busy="queue")
    await completed(journal, claim, node)
    await archived(journal, claim.session_id)

    assert [await count(database, table) for table in ("webhook_watches", "webhook_deliveries")] == [0, 0]


async def test_only_the_types_that_are_asked_for_are_told(database: Database, journal: Journal) -> None:
    async with receiving(TAKEN) as receiver:
        await hooked(database, receiver.url, ["session_archived"])
        claim = await claimed(journal)
        await completed(journal, claim, Node())
        await archived(journal, claim.session_id)
        await looked(courier(database))

    assert [kind for kind, _ in told(receiver.requests)] == ["session_archived"]


async def test_turn_that_was_live_or_queued_when_its_webhook_was_made_is_told(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    await start(journal, claim.session_id, node, on_busy="queue")
    async with receiving(TAKEN) as receiver:
        await hooked(database, receiver.url)
        await completed(journal, claim, node)
        await completed(journal, node.claims[-1], node)
        await looked(courier(database))

    assert [kind for kind, _ in told(receiver.requests)] == ["turn_completed"] * 2


async def test_refusing_receiver_is_tried_again_with_the_same_bytes_and_id_until_it_is_dead_and_replayed(
    database: Database, journal: Journal
) -> None:
    says = [BUSY]
    async with receiving(lambda _: says[-1]) as receiver:
        one = await hooked(database, receiver.url)
        await completed(journal, await claimed(journal), Node())
        tried = courier(database)
        for _ in range(5):
            await looked(tried)
        [dead] = await found(database, one)
        async with database.transaction(DEFAULT_REALM) as db:
            replayed = await deliveries.replay(db, one.id, dead["delivery_id"])
        says.append(TAKEN)
        await looked(tried)
        [delivered] = await found(database, one)

    assert (dead["status"], dead["attempts"], dead["last_status"], dead["last_error"]) == (
        "dead", 3, 503, "The receiver answered 503.",
    )  # fmt: skip
    assert (replayed["status"], replayed["attempts"], delivered["status"], delivered["attempts"]) == (
        "pending",
        0,
        "delivered",
        1,
    )
    assert len({(request.headers["webhook-id"], request.body) for request in receiver.requests}) == 1
    assert len(receiver.requests) == 4


async def test_receiver_that_is_not_there_is_a_failure_that_names_no_address(database: Database, journal: Journal) -> None:
    async with receiving(b"") as receiver:
        url = receiver.url
    one = await hooked(database, url)
    await completed(journal, await claimed(journal), Node())

    await looked(courier(database, pauses=(60.0,)))

    [row] = await found(database, one)
    assert (row["status"], row["last_status"], row["last_error"]) == ("pending", None, "No connection could be made.")
    assert row["next_attempt_at"] > row["created_at"]


async def test_receiver_that_wants_no_more_is_switched_off(database: Database, journal: Journal) -> None:
    async with receiving(GONE) as receiver:
        one = await hooked(database, receiver.url)
        for _ in range(2):
            await completed(journal, await claimed(journal), Node())
            await looked(courier(database))

    async with database.transaction(DEFAULT_REALM) as db:
        assert not (await webhook.get(db, one.id)).is_enabled
    assert [row["status"] for row in await found(database, one)] == ["dead"]
    assert len(receiver.requests) == 1


async def test_redirect_is_a_failure_and_is_not_followed(database: Database, journal: Journal) -> None:
    async with receiving(TAKEN) as elsewhere:
        away = whole(b"", status="307 Temporary Redirect", headers=f"Location: {elsewhere.url}\r\n")
        async with receiving(away) as receiver:
            one = await hooked(database, receiver.url)
            await completed(journal, await claimed(journal), Node())
            await looked(courier(database))

    assert [row["last_status"] for row in await found(database, one)] == [307]
    assert elsewhere.requests == []


async def test_couriers_that_look_side_by_side_share_the_work(database: Database, journal: Journal) -> None:
    async with receiving(TAKEN) as receiver:
        await hooked(database, receiver.url)
        for _ in range(20):
            await completed(journal, await claimed(journal), Node())
        couriers = [courier(database) for _ in range(3)]
        while len(receiver.requests) < 20:
            await looked(*couriers)

    assert len({request.headers["webhook-id"] for request in receiver.requests}) == len(receiver.requests) == 20


async def test_try_of_a_node_that_died_is_made_again_under_the_same_id(database: Database, journal: Journal) -> None:
    async with receiving(TAKEN) as receiver:
        one = await hooked(database, receiver.url)
        await completed(journal, await claimed(journal), Node())
        await looked(courier(database))
        async with database.transaction(EVERY_REALM) as db:
            await db.execute(
                "UPDATE webhook_deliveries SET status = 'pending', ended_at = NULL, due_at = now() + interval '1 min'"
            )
            assert await deliveries.claim(db, 10, []) == []
            await db.execute("UPDATE webhook_deliveries SET due_at = clock_timestamp()")
        await looked(courier(database))

    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert [(row["status"], row["attempts"]) for row in await found(database, one)] == [("delivered", 2)]


async def test_outcome_of_a_try_that_took_too_long_does_not_touch_the_next(database: Database, journal: Journal) -> None:
    one = await hooked(database, "http://127.0.0.1:1/")
    await completed(journal, await claimed(journal), Node())
    async with database.transaction(EVERY_REALM) as db:
        await outbox.collect(db)
        [first] = await deliveries.claim(db, 10, [])
        await db.execute("UPDATE webhook_deliveries SET due_at = clock_timestamp()")
        [second] = await deliveries.claim(db, 10, [])
        await deliveries.settle(db, first, deliveries.Outcome("dead"))

    assert (first.attempt, second.attempt) == (1, 2)
    assert [row["status"] for row in await found(database, one)] == ["pending"]


async def test_webhook_of_a_session_is_told_of_it_alone_and_goes_with_it(database: Database, journal: Journal) -> None:
    own, other = await open_session(journal), await open_session(journal)
    async with receiving(TAKEN) as receiver:
        await hooked(database, receiver.url, session_id=own)
        for session_id in (own, other):
            node = Node()
            await start(journal, session_id, node)
            await completed(journal, node.claims[-1], node)
            await archived(journal, session_id)
        await looked(courier(database))

    assert {request.payload["data"]["session_id"] for request in receiver.requests} == {own}
    async with journal.transaction(DEFAULT_REALM) as tx:
        await sessions.erase(tx, await sessions.lock(tx, own))
    tables = ("webhooks", "webhook_watches", "webhook_deliveries")
    assert [await count(database, table) for table in tables] == [0, 0, 0]


async def test_webhook_of_another_realm_is_neither_seen_nor_told(database: Database, journal: Journal) -> None:
    async with receiving(TAKEN) as receiver:
        foreign = await hooked(database, receiver.url, realm="rival")
        claim = await claimed(journal)
        await completed(journal, claim, Node())
        await archived(journal, claim.session_id)
        await looked(courier(database))

    assert receiver.requests == []
    async with database.transaction(DEFAULT_REALM) as db:
        assert await webhook.find(db) == []
        for act in (webhook.get(db, foreign.id), webhook.change(db, foreign.id, {"is_enabled": False})):
            with pytest.raises(WebhookNotFound):
                await act
        with pytest.raises(WebhookNotFound):
            await webhook.delete(db, foreign.id)
    async with database.transaction("rival") as db:
        assert (await webhook.get(db, foreign.id)).is_enabled


async def test_ephemeral_session_stays_until_it_was_told(database: Database, journal: Journal) -> None:
    node, session_id = Node(), await open_session(journal)
    async with receiving(TAKEN) as receiver:
        await hooked(database, receiver.url)
        async with journal.transaction(DEFAULT_REALM) as tx:
            await expiry.mark(tx, await sessions.lock(tx, session_id))
        await start(journal, session_id, node)
        await completed(journal, node.claims[-1], node)
        async with database.transaction(EVERY_REALM) as db:
            await expiry.announce(db, grace_seconds=0)
        async with journal.transaction(DEFAULT_REALM) as tx:
            early = await expiry.erase(tx, session_id)
        await looked(courier(database))
        async with journal.transaction(DEFAULT_REALM) as tx:
            late = await expiry.erase(tx, session_id)

    assert (early, late) == (False, True)
    assert len(receiver.requests) == 1


async def test_event_that_is_too_large_is_told_without_its_fields(database: Database, journal: Journal) -> None:
    async with receiving(TAKEN) as receiver:
        await hooked(database, receiver.url)
        claim = await claimed(journal)
        async with journal.transaction(DEFAULT_REALM) as tx:
            await tx.append(ending_of(claim, "x" * deliveries.MOST_BODY_BYTES))
        await looked(courier(database))

    [request] = receiver.requests
    assert request.payload["data"].keys() == {"seq", "session_id", "turn_id", "type", "at", "is_cut"}
    assert request.payload["data"]["turn_id"] == claim.turn_id


async def test_webhook_whose_receiver_hangs_does_not_hold_up_the_others(database: Database, journal: Journal) -> None:
    async with receiving(TAKEN) as receiver, receiving(b"", hangs=True) as deaf:
        await hooked(database, deaf.url)
        one = await hooked(database, receiver.url)
        for _ in range(10):
            await completed(journal, await claimed(journal), Node())
        tried = courier(database)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            hanging = tasks.create_task(tried.run())
            await receiver.heard(10)
            await deaf.heard(deliveries.MOST_OF_ONE)
            hanging.cancel()

    assert len(deaf.requests) == deliveries.MOST_OF_ONE
    assert len(await found(database, one)) == 10


async def test_secrets_are_kept_sealed_where_there_is_a_key_and_sealed_anew_with_the_newest(database: Database) -> None:
    async with database.transaction(DEFAULT_REALM) as db:
        clear = await webhook.create(db, Seals({}), url="https://example.com/", types=KINDS, session_id=None)
    old = await hooked(database, "https://example.com/")
    newest = Seals({"new": bytes(range(32)), "k": bytes(32)})
    secrets = {clear.secret(SEALS), old.secret(SEALS)}

    async with database.transaction(EVERY_REALM) as db:
        counts = [await webhook.seal_anew(db, newest) for _ in range(2)]
    async with database.transaction(DEFAULT_REALM) as db:
        kept = await webhook.find(db)

    assert clear.kept_secret.startswith("whsec_")
    assert old.kept_secret.startswith("k.")
    assert counts == [2, 0]
    assert {one.secret(Seals({"new": bytes(range(32))})) for one in kept} == secrets
    assert not any(secret in orjson.dumps([one.kept_secret for one in kept]).decode() for secret in secrets)
