"""`GET /v1/sessions` and its messages: filters, order, pages; never waiting for a turn."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from app import ids
from tests.api import shapes
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

READ_SECONDS = 1.0


async def listed(service: Service, query: str) -> list[str]:
    answer = await service.client.get(f"/v1/sessions?{query}")
    assert answer.status_code == 200, answer.text
    return [session["session_id"] for session in answer.json()["sessions"]]


@pytest.fixture
async def batch() -> str:
    """A label value that no other test's sessions have."""
    return ids.uuid7()


@pytest.fixture
async def five(service: Service, batch: str) -> list[str]:
    """Five sessions of one batch, oldest first."""
    return [(await service.create(labels={"batch": batch, "n": str(n)}, title=f"No. {n}"))["session_id"] for n in range(5)]


async def test_summary_has_the_fields_of_the_contract_and_agrees_with_the_view(service: Service, batch: str) -> None:
    created = await service.create("Hello", labels={"batch": batch}, title="T")
    await service.ended(created["session_id"], created["turn"]["turn_id"])

    page = (await service.client.get(f"/v1/sessions?label=batch:{batch}")).json()

    view = (await service.client.get(f"/v1/sessions/{created['session_id']}")).json()
    assert page.keys() == {"sessions", "next_cursor"}
    [summary] = page["sessions"]
    shapes.assert_shaped(summary, shapes.SUMMARY)
    assert summary.pop("total_tokens") == view["billing"]["total_tokens"] > 0
    assert summary.items() <= view["state"].items()


async def test_list_shows_the_session_changed_last_first(service: Service, five: list[str], batch: str) -> None:
    await service.client.patch(f"/v1/sessions/{five[1]}", json={"title": "changed"})

    assert await listed(service, f"label=batch:{batch}") == [five[1], five[4], five[3], five[2], five[0]]
    assert await listed(service, f"label=batch:{batch}&order=-updated_at") == [five[1], five[4], five[3], five[2], five[0]]
    assert await listed(service, f"label=batch:{batch}&order=-created_at") == five[::-1]


@pytest.mark.parametrize("order", ["-updated_at", "-created_at"])
async def test_cursor_leads_through_every_session_once(service: Service, five: list[str], batch: str, order: str) -> None:
    seen: list[str] = []
    cursor = ""
    while True:
        answer = await service.client.get(f"/v1/sessions?label=batch:{batch}&order={order}&limit=2&cursor={cursor}")
        page = answer.json()
        seen += [session["session_id"] for session in page["sessions"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == five[::-1]


async def test_new_sessions_between_two_pages_shift_nothing(service: Service, five: list[str], batch: str) -> None:
    first = (await service.client.get(f"/v1/sessions?label=batch:{batch}&limit=3&order=-created_at")).json()
    await service.create(labels={"batch": batch})

    second = await listed(service, f"label=batch:{batch}&limit=3&order=-created_at&cursor={first['next_cursor']}")

    assert [session["session_id"] for session in first["sessions"]] + second == five[::-1]


async def test_last_full_page_has_no_next_cursor(service: Service, five: list[str], batch: str) -> None:
    page = (await service.client.get(f"/v1/sessions?label=batch:{batch}&limit=5")).json()

    assert (len(page["sessions"]), page["next_cursor"]) == (5, None)


async def test_offset_and_limits_cut_without_clamping(service: Service, five: list[str], batch: str) -> None:
    assert await listed(service, f"label=batch:{batch}&offset=2&limit=2") == [five[2], five[1]]
    assert await listed(service, f"label=batch:{batch}&offset=5") == []
    assert await listed(service, f"label=batch:{batch}&limit=0") == []
    assert len(await listed(service, f"label=batch:{batch}&limit=200")) == 5


async def test_empty_parameters_count_as_absent(service: Service, five: list[str], batch: str) -> None:
    query = f"label=batch:{batch}&limit=&cursor=&offset=&order=&label=&status=&archived=&q="

    assert await listed(service, query) == five[::-1]


async def test_every_label_must_match(service: Service, five: list[str], batch: str) -> None:
    assert await listed(service, f"label=batch:{batch}&label=n:3") == [five[3]]
    assert await listed(service, f"label=batch:{batch}&label=n:9") == []
    assert await listed(service, f"label=n:{batch}") == []


@pytest.mark.parametrize("odd", ["a:b", "", "é 漢字 😀", "NUL \0", 'quote " back\\slash', "{a,b}", "%_", "a&b=c+d"])
async def test_labels_of_any_text_are_found_exactly(service: Service, batch: str, odd: str) -> None:
    created = await service.create(labels={f"k{batch}": odd})

    assert await listed(service, f"label={quote(f'k{batch}:{odd}', safe='')}") == [created["session_id"]]


@pytest.mark.parametrize(
    ("title", "part"),
    [
        ("Invoices of May", "INVOICES"),
        ("Invoices of May", "s of m"),
        ("Straße", "STRASSE"),
        ("100 % sure_", "% sure_"),
        ("NUL \0 inside", "\0 in"),
        ("back\\slash", "\\s"),
        ("😀 漢字", "漢"),
    ],
)
async def test_q_finds_part_of_a_title_in_any_case(service: Service, batch: str, title: str, part: str) -> None:
    created = await service.create(title=title, labels={"batch": batch})
    await service.create(title="Something else", labels={"batch": batch})

    assert await listed(service, f"label=batch:{batch}&q={quote(part, safe='')}") == [created["session_id"]]


async def test_archived_sessions_are_listed_as_asked(service: Service, five: list[str], batch: str) -> None:
    await service.client.post(f"/v1/sessions/{five[2]}/archive")
    rest = [five[4], five[3], five[1], five[0]]

    assert await listed(service, f"label=batch:{batch}") == rest
    assert await listed(service, f"label=batch:{batch}&archived=false") == rest
    assert await listed(service, f"label=batch:{batch}&archived=true") == [five[2]]
    assert await listed(service, f"label=batch:{batch}&archived=any") == [five[2], *rest]
    assert await listed(service, f"label=batch:{batch}&status=archived") == [five[2]]


async def test_status_filters_by_what_sessions_do(
    service: Service, double: ProviderDouble, five: list[str], batch: str
) -> None:
    await double.play([scripts.hang()])
    await service.client.post(f"/v1/sessions/{five[0]}/turns", json={"prompt": "Hi"}, headers={"Prefer": "respond-async"})

    running = (await service.client.get(f"/v1/sessions?label=batch:{batch}&status=running")).json()["sessions"]

    assert [(session["session_id"], session["status"], session["is_active"]) for session in running] == [
        (five[0], "running", True)
    ]
    assert await listed(service, f"label=batch:{batch}&status=idle") == [five[4], five[3], five[2], five[1]]
    assert await listed(service, f"label=batch:{batch}&status=waiting") == []
    await service.client.post(f"/v1/sessions/{five[0]}/interrupt")


async def test_reading_and_listing_never_wait_for_a_running_turn(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.text("Par"), scripts.hang()])
    created = await service.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"
    await double.started(1)

    async with asyncio.timeout(READ_SECONDS):
        routes = (path, "/v1/sessions", f"{path}/turns", f"{path}/messages", f"{path}/events")
        asked = (service.client.get(route, headers={"Accept": "application/json"}) for route in routes)
        answers = await asyncio.gather(*asked)

    assert [answer.status_code for answer in answers] == [200] * 5
    assert answers[0].json()["state"]["status"] == "running"
    await service.client.post(f"{path}/interrupt")


async def test_messages_show_the_whole_history_oldest_first(service: Service, double: ProviderDouble) -> None:
    call = scripts.tool_call("datetime", {"timezone": "UTC"}, call_id="call_a")
    await double.play([scripts.reasoning("hm"), scripts.words("A moment."), call, scripts.finish("tool_calls")])
    await double.play([scripts.words("It is noon."), scripts.finish()])
    created = await service.create("What time?", system_prompt="Be brief.")
    await service.ended(created["session_id"], created["turn"]["turn_id"])

    page = (await service.client.get(f"/v1/sessions/{created['session_id']}/messages")).json()

    messages: list[dict[str, Any]] = page["messages"]
    shapes.assert_transcript(messages)
    assert page["next_after"] == 5
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert messages[0]["turn_id"] is None
    assert {message["turn_id"] for message in messages[1:]} == {created["turn"]["turn_id"]}
    assert [message.get("stop_reason") for message in messages] == [None, None, "tool_use", None, "end_turn"]
    assert messages[2]["content"] == [
        {"type": "reasoning", "text": "hm"},
        {"type": "text", "text": "A moment."},
        {"type": "tool_use", "id": "call_a", "name": "datetime", "args": {"timezone": "UTC"}},
    ]
    [result] = messages[3]["content"]
    assert result.keys() == {"type", "tool_use_id", "content", "is_error"}
    assert (result["tool_use_id"], result["is_error"]) == ("call_a", False)


async def test_messages_come_in_pages_whose_next_after_leads_on(service: Service) -> None:
    created = await service.create("One")
    path = f"/v1/sessions/{created['session_id']}"
    await service.ended(created["session_id"], created["turn"]["turn_id"])
    await service.client.post(f"{path}/turns", json={"prompt": "Two"})

    async def page(query: str) -> tuple[list[int], int]:
        found = (await service.client.get(f"{path}/messages?{query}")).json()
        return [message["ordinal"] for message in found["messages"]], found["next_after"]

    assert await page("limit=3") == ([1, 2, 3], 3)
    assert await page("after=3") == ([4], 4)
    assert await page("after=4") == ([], 4)
    assert await page("after=999999999999999999") == ([], 999999999999999999)
    assert await page("limit=0") == ([], 0)
    assert await page("after=&limit=") == ([1, 2, 3, 4], 4)
