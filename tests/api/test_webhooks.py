"""`/v1/webhooks`: made, changed, deleted; what is delivered to them, listed and made again."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from app.webhooks import signing
from tests.api.databases import fetch, fresh_database
from tests.api.desk import Desk
from tests.hooks.receiver import Receiver, receiving, whole
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

PATH = "/v1/webhooks"
PARIS = (scripts.text("Paris."), scripts.finish())
UNKNOWN = "01998f3e-2a51-7c3d-9b1e-5f2a7c9d0e11"
TOOL = {"name": "ask", "description": "Asks.", "input_schema": {"type": "object"}}


@dataclass
class Told:
    """A server, its database, and a receiver that takes what `status` says."""

    service: Service
    database_url: str
    receiver: Receiver
    status: list[str] = field(default_factory=lambda: ["204 No Content"])

    async def make(self, **fields: Any) -> dict[str, Any]:
        answer = await self.service.client.post(PATH, json={"url": self.receiver.url} | fields)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def deliveries(self, webhook_id: str, query: str = "") -> dict[str, Any]:
        answer = await self.service.client.get(f"{PATH}/{webhook_id}/deliveries?{query}")
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page


@pytest.fixture(scope="module")
async def shared_told(
    postgres: str, shared_double: ProviderDouble, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Told]:
    """A server that lets callers in to loopback."""
    built: list[Told] = []
    async with (
        receiving(lambda _: whole(b"", status=built[0].status[-1])) as receiver,
        fresh_database(postgres) as url,
    ):
        settings = {
            "SURICATE_DATABASE_URL": url,
            "SURICATE_OPENAI_COMPATIBLE_BASE_URL": shared_double.base_url,
            "SURICATE_OUTBOUND_TENANTS_INSIDE": '["127.0.0.1"]',
            "SURICATE_OUTBOUND_HTTP": "true",
        }
        async with Service.started(tmp_path_factory.mktemp("webhooks"), settings) as service:
            built.append(Told(service, url, receiver))
            yield built[0]


@pytest.fixture
async def told(shared_told: Told, double: ProviderDouble) -> Told:
    """The shared server without webhooks, and nothing heard."""
    for one in (await shared_told.service.client.get(PATH)).json()["webhooks"]:
        assert (await shared_told.service.client.delete(f"{PATH}/{one['webhook_id']}")).status_code == 204
    shared_told.receiver.requests.clear()
    shared_told.status[:] = ["204 No Content"]
    await double.play(PARIS)
    return shared_told


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_secret_is_shown_once_and_signs_what_is_told_of_an_ended_turn(told: Told) -> None:
    made = await told.make(types=["turn_completed"])
    listed = (await told.service.client.get(PATH)).json()["webhooks"]
    read = (await told.service.client.get(f"{PATH}/{made['webhook_id']}")).json()
    created = await told.service.create("Where?")

    [request] = await told.receiver.heard(1)

    shown = {name: value for name, value in made.items() if name != "secret"}
    assert listed == [read] == [shown]
    headers, body = request.headers, request.body
    signed = signing.headers(made["secret"], headers["webhook-id"], body, at=int(headers["webhook-timestamp"]))
    assert headers["webhook-signature"] == signed["webhook-signature"]
    assert (request.payload["type"], request.payload["data"]["text"]) == ("turn_completed", "Paris.")
    assert request.payload["data"]["session_id"] == created["session_id"]


async def test_call_that_waits_for_its_caller_is_told_once_while_it_waits(told: Told, double: ProviderDouble) -> None:
    await double.reset()
    await double.play((scripts.tool_call("ask", {}), scripts.finish("tool_calls")), PARIS)
    made = await told.make()
    created = await told.service.create("Where?", external_tools=[TOOL])

    [pending] = await told.receiver.heard(1)
    call = pending.payload["data"]
    result = {"results": [{"tool_call_id": call["id"], "content": "ok"}]}
    answered = await told.service.client.post(f"/v1/sessions/{created['session_id']}/tool_results", json=result)
    requests = await told.receiver.heard(2)

    assert (pending.payload["type"], call["name"], answered.status_code) == ("tool_call_pending", "ask", 200)
    assert [request.payload["type"] for request in requests] == ["tool_call_pending", "turn_completed"]
    page = (await told.deliveries(made["webhook_id"]))["deliveries"]
    assert [row["type"] for row in page] == ["turn_completed", "tool_call_pending"]


async def test_dead_delivery_is_seen_and_made_again(told: Told) -> None:
    told.status[:] = ["500 No"]
    made = await told.make(types=["turn_completed"])
    await told.service.create("Where?")
    await told.receiver.heard(1)
    await fetch(told.database_url, "UPDATE webhook_deliveries SET status = 'dead', ended_at = now() WHERE true")
    [dead] = (await told.deliveries(made["webhook_id"], "status=dead"))["deliveries"]
    told.status[:] = ["200 OK"]

    path = f"{PATH}/{made['webhook_id']}/deliveries/{dead['delivery_id']}/replay"
    replayed = [await told.service.client.post(path, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    first, second = await told.receiver.heard(2)

    assert [answer.status_code for answer in replayed] == [202, 202]
    assert replayed[1].headers["idempotency-replayed"] == "true"
    assert (replayed[0].json()["status"], first.headers["webhook-id"], second.headers["webhook-id"]) == (
        "pending", dead["delivery_id"], dead["delivery_id"],
    )  # fmt: skip
    assert first.body == second.body


async def test_deliveries_are_listed_in_pages_the_newest_first(told: Told, double: ProviderDouble) -> None:
    made = await told.make(types=["turn_completed"])
    desk = Desk(told.service, (await told.service.create())["session_id"])
    for number in range(3):
        await double.play(PARIS)
        await desk.start("Where?")
        await told.receiver.heard(number + 1)

    first = await told.deliveries(made["webhook_id"], "limit=2")
    second = await told.deliveries(made["webhook_id"], f"limit=2&cursor={first['next_cursor']}")

    seqs = [row["seq"] for page in (first, second) for row in page["deliveries"]]
    assert (len(seqs), seqs, second["next_cursor"]) == (3, sorted(seqs, reverse=True), None)
    path = f"{PATH}/{made['webhook_id']}/deliveries"
    assert refusal(await told.service.client.get(f"{path}?cursor=x")) == (400, "INVALID_CURSOR")
    assert refusal(await told.service.client.get(f"{path}?status=gone")) == (422, "INVALID_REQUEST")


async def test_change_takes_effect_and_null_leaves_what_was(told: Told) -> None:
    made = await told.make(types=["turn_failed"])
    path = f"{PATH}/{made['webhook_id']}"

    changed = await told.service.client.patch(path, json={"types": ["session_archived"], "is_enabled": None})
    off = await told.service.client.patch(path, json={"is_enabled": False})

    assert (changed.json()["types"], changed.json()["is_enabled"], changed.json()["url"]) == (
        ["session_archived"], True, made["url"],
    )  # fmt: skip
    assert off.json()["is_enabled"] is False
    assert "secret" not in changed.json()


async def test_repeat_with_its_key_makes_one_webhook_shows_the_same_and_keeps_no_secret_in_the_clear_twice(told: Told) -> None:
    headers = {"Idempotency-Key": "hook"}
    body = {"url": told.receiver.url}

    answers = [await told.service.client.post(PATH, json=body, headers=headers) for _ in range(2)]

    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotency-replayed"] == "true"
    assert len((await told.service.client.get(PATH)).json()["webhooks"]) == 1
    rows = await fetch(told.database_url, "SELECT response FROM idempotency_keys WHERE key = 'hook'")
    assert "whsec_" not in rows[0]["response"]


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, "url"),
        ({"url": "http://10.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:169.254.169.254]/"}, "url"),
        ({"url": "https://user:word@example.com/"}, "url"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "no url"}, "url"),
        ({"url": "http://127.0.0.1/", "types": []}, "types"),
        ({"url": "http://127.0.0.1/", "types": ["text_delta"]}, "types.0"),
        ({"url": "http://127.0.0.1/", "secret": "mine"}, "secret"),
    ],
)
async def test_webhook_that_cannot_be_is_refused_with_its_place(told: Told, body: dict[str, Any], loc: str) -> None:
    answer = await told.service.client.post(PATH, json=body)

    assert refusal(answer) == (422, "INVALID_REQUEST")
    assert [fault["loc"] for fault in answer.json()["errors"]] == [loc]
    assert (await told.service.client.get(PATH)).json() == {"webhooks": []}


async def test_realm_has_so_many_webhooks_and_no_more(told: Told) -> None:
    await told.make()
    await fetch(
        told.database_url,
        """INSERT INTO webhooks (realm_id, id, url, types, secret, created_at, updated_at)
           SELECT realm_id, gen_random_uuid(), url, types, secret, now(), now() FROM webhooks, generate_series(2, 100)""",
    )

    answer = await told.service.client.post(PATH, json={"url": told.receiver.url})

    assert refusal(answer) == (429, "CAPACITY_EXCEEDED")


async def test_what_is_not_there_is_not_found(told: Told) -> None:
    made = await told.make()
    client = told.service.client
    for webhook_id in (UNKNOWN, "x", "%00"):
        path = f"{PATH}/{webhook_id}"
        answers = [
            await client.get(path),
            await client.patch(path, json={"is_enabled": False}),
            await client.delete(path),
            await client.get(f"{path}/deliveries"),
            await client.post(f"{path}/deliveries/{UNKNOWN}/replay"),
            await client.post(f"{PATH}/{made['webhook_id']}/deliveries/{webhook_id}/replay"),
        ]
        assert [refusal(answer) for answer in answers] == [(404, "NOT_FOUND")] * 6
    session = await client.post(PATH, json={"url": told.receiver.url, "session_id": UNKNOWN})
    assert refusal(session) == (404, "SESSION_NOT_FOUND")
