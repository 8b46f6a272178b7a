"""Carries webhooks: looks at marked turns, claims what is due, sends it, and writes down what came of it. Every node does.

At least once: a receiver that took a message from a node which died before it could say so gets it again, under the same id.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

import structlog

from app import clock, telemetry
from app.db.engine import EVERY_REALM, Database
from app.errors import StoreUnavailable, Unsealable
from app.outbound.door import Door, OutboundError
from app.seals import Seals
from app.webhooks import deliveries, outbox, signing, webhook
from app.webhooks.deliveries import MOST_OF_ONE, Delivery, Outcome

LOOK_SECONDS: Final = 1.0
MOST_AT_ONCE: Final = 64  # tries that one node makes side by side
TRY_SECONDS: Final = 15.0
PAUSES: Final = (5.0, 30.0, 120.0, 600.0, 1_800.0, 7_200.0, 21_600.0, 43_200.0, 86_400.0)
"""Between two tries, in seconds; after the last of them a delivery is dead, two days later."""
MOST_ANSWER_BYTES: Final = 64 * 1024  # nobody reads it
GONE: Final = 410  # the receiver wants no more of it

log = structlog.get_logger()


class Courier:
    """Delivers for all realms.

    Args:
        door: the way to URLs that callers name.
        pauses: between two tries, in seconds, each varied by a fifth.
    """

    def __init__(self, database: Database, door: Door, seals: Seals, *, pauses: Sequence[float] = PAUSES) -> None:
        self._database = database
        self._door = door
        self._seals = seals
        self._pauses = pauses
        self._under_way: Counter[str] = Counter()

    async def run(self) -> None:
        """Look and deliver for as long as the process lives."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    await self.look(tasks)
                except StoreUnavailable as error:
                    log.warning("courier_lost_database", error=str(error.__cause__))
                await asyncio.sleep(LOOK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def look(self, tasks: asyncio.TaskGroup) -> None:
        """Write down what is to be delivered, and begin what is due; tries go on in the group."""
        while True:
            async with self._database.transaction(EVERY_REALM) as db:
                if await outbox.collect(db) < outbox.BATCH:
                    break
        room = MOST_AT_ONCE - self._under_way.total()
        if room <= 0:
            return
        busy = [webhook_id for webhook_id, count in self._under_way.items() if count >= MOST_OF_ONE]
        async with self._database.transaction(EVERY_REALM) as db:
            claimed = await deliveries.claim(db, room, busy)
        for delivery in claimed:
            self._under_way[delivery.webhook.id] += 1
            tasks.create_task(self._deliver(delivery))

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            outcome = await self._outcome(delivery)
            telemetry.WEBHOOKS.labels("failed" if outcome.status == "pending" else outcome.status).inc()
            async with self._database.transaction(EVERY_REALM) as db:
                if outcome.http_status == GONE:
                    await webhook.switch_off(db, delivery.webhook)
                await deliveries.settle(db, delivery, outcome)
        except StoreUnavailable:
            log.warning("webhook_outcome_lost", delivery_id=delivery.id)  # it is made again when its claim has run out
        except Exception:
            log.exception("webhook_delivery_crashed", delivery_id=delivery.id)
        finally:
            self._under_way[delivery.webhook.id] -= 1
            self._under_way = +self._under_way  # forgets those at zero

    async def _outcome(self, delivery: Delivery) -> Outcome:
        if delivery.body is None:
            return Outcome("dead", error="The event is gone.")
        if not delivery.webhook.is_enabled:
            return Outcome("dead", error="The webhook is switched off.")
        try:
            status = await self._send(delivery, delivery.body)
        except OutboundError as error:
            return self._failed(delivery, None, str(error))
        except Unsealable:
            return self._failed(delivery, None, "The webhook's secret cannot be opened here.")
        if 200 <= status < 300:  # noqa: PLR2004 - a success
            return Outcome("delivered", http_status=status)
        return self._failed(delivery, status, f"The receiver answered {status}.")

    async def _send(self, delivery: Delivery, body: bytes) -> int:
        secret = delivery.webhook.secret(self._seals)
        signed = signing.headers(secret, delivery.id, body, at=clock.epoch_milliseconds() // 1000)
        answer = await self._door.request(
            "POST",
            delivery.webhook.url,
            content=body,
            headers=signed | {"content-type": "application/json", "user-agent": "suricate"},
            timeout_seconds=TRY_SECONDS,
        )
        return answer.status

    def _failed(self, delivery: Delivery, status: int | None, error: str) -> Outcome:
        if status == GONE or delivery.attempt > len(self._pauses):
            return Outcome("dead", http_status=status, error=error)
        pause = self._pauses[delivery.attempt - 1] * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        return Outcome("pending", pause, status, error)
