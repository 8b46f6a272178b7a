"""The log as JSON pages, and the events of a whole life in their order."""

from typing import Any

import pytest

from tests.api import shapes
from tests.api.desk import Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

JSON = {"Accept": "application/json"}


class Told:
    """A session whose two turns have ended, and its log."""

    def __init__(self, service: Service, session_id: str, turn_ids: list[str], log: list[dict[str, Any]]) -> None:
        self.client = service.client
        self.path = f"/v1/sessions/{session_id}"
        self.turn_ids = turn_ids
        self.log = log

    async def page(self, query: str = "", route: str = "events") -> dict[str, Any]:
        answer = await self.client.get(f"{self.path}/{route}?{query}", headers=JSON)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    async def seqs(self, query: str) -> list[int]:
        return [event["seq"] for event in (await self.page(query))["events"]]

    def expected(self, *types: str, turn_id: str | None = None) -> list[int]:
        return [
            event["seq"] for event in self.log if (not types or event["type"] in types) and turn_id in {None, event["turn_id"]}
        ]


@pytest.fixture
async def told(service: Service) -> Told:
    """Two plain turns."""
    desk = Desk(service, (await service.create(title="T"))["session_id"])
    turn_ids = [(await desk.start(prompt)).json()["turn_id"] for prompt in ("One", "Two")]
    return Told(service, desk.id, turn_ids, await service.log_of(desk.id))


async def test_plain_turns_have_the_events_of_the_contract_in_order(told: Told) -> None:
    kinds = [event["type"] for event in told.log if event["type"] != "text_delta"]
    plain = ["turn_started", "step_started", "text_complete", "step_completed", "turn_completed"]

    assert kinds == ["session_created", *plain, *plain]
    shapes.assert_log(told.log)


async def test_first_event_tells_what_the_session_is(told: Told) -> None:
    created = told.log[0]

    own = {name: value for name, value in created.items() if name not in shapes.ENVELOPE}
    assert own == {"model": "double", "provider": "openai_compatible", "title": "T", "labels": {}}
    assert (created["seq"], created["turn_id"], created["scope_id"]) == (1, None, "primary")


async def test_terminal_event_agrees_with_the_turns_view(told: Told) -> None:
    for turn_id in told.turn_ids:
        view = (await told.client.get(f"{told.path}/turns/{turn_id}")).json()
        own = [event for event in told.log if event["turn_id"] == turn_id]

        assert (view["first_seq"], view["last_seq"]) == (own[0]["seq"], own[-1]["seq"])
        for name in ("text", "usage", "steps", "tool_calls"):
            assert view[name] == own[-1][name]


async def test_page_has_events_its_end_and_the_head(told: Told) -> None:
    page = await told.page()

    assert page.keys() == {"events", "next_after", "last_seq"}
    assert page["events"] == told.log
    assert page["next_after"] == page["last_seq"] == told.log[-1]["seq"]


async def test_next_after_leads_through_the_log(told: Told) -> None:
    seen: list[dict[str, Any]] = []
    after = 0
    while page := (await told.page(f"after={after}&limit=3"))["events"]:
        seen += page
        after = page[-1]["seq"]

    assert seen == told.log


async def test_empty_page_gives_the_given_cursor_back(told: Told) -> None:
    head = told.log[-1]["seq"]

    for after in (head, head + 1, 999_999_999_999_999_999):
        assert await told.page(f"after={after}") == {"events": [], "next_after": after, "last_seq": head}
    assert await told.page("limit=0") == {"events": [], "next_after": 0, "last_seq": head}
    assert await told.page("limit=0&after=3") == {"events": [], "next_after": 3, "last_seq": head}


async def test_types_turn_and_scope_filter(told: Told) -> None:
    first, second = told.turn_ids

    assert await told.seqs("types=text_complete") == told.expected("text_complete")
    assert await told.seqs("types=turn_started,turn_completed") == told.expected("turn_started", "turn_completed")
    assert await told.seqs(f"turn_id={second}") == told.expected(turn_id=second)
    assert await told.seqs(f"turn_id={first}&types=step_started") == told.expected("step_started", turn_id=first)
    assert await told.seqs("scope=primary") == told.expected()
    assert await told.seqs("scope=mob:other") == []
    assert await told.seqs("types=hook_started,tool_call_pending") == []
    assert await told.seqs("turn_id=00000000-0000-7000-8000-000000000000") == []


async def test_next_after_of_a_filtered_page_is_its_last_event(told: Told) -> None:
    page = await told.page("types=text_complete&limit=1")

    assert page["next_after"] == page["events"][0]["seq"] < page["last_seq"]


async def test_page_of_a_turn_has_its_events_alone(told: Told) -> None:
    for turn_id in told.turn_ids:
        page = await told.page(route=f"turns/{turn_id}/events")

        assert [event["seq"] for event in page["events"]] == told.expected(turn_id=turn_id)


async def test_cursor_may_come_as_header_and_the_header_wins(told: Told) -> None:
    for headers, query, first in [
        ({"Last-Event-ID": "4"}, "", 5),
        ({"Last-Event-ID": "4"}, "after=2", 5),
        ({"Last-Event-ID": ""}, "after=2", 3),
        ({"Last-Event-ID": "0"}, "after=2", 1),
        ({"Last-Event-ID": "000000000000000004"}, "", 5),
    ]:
        answer = await told.client.get(f"{told.path}/events?{query}", headers=JSON | headers)

        assert answer.json()["events"][0]["seq"] == first


async def test_empty_parameters_count_as_absent(told: Told) -> None:
    page = await told.page("after=&types=&turn_id=&scope=&limit=&follow=")

    assert page["events"] == told.log


async def test_tool_turn_tells_every_call_in_order(service: Service, double: ProviderDouble) -> None:
    calls = [
        scripts.tool_call("datetime", {"timezone": "UTC"}, index=0, call_id="call_a"),
        scripts.tool_call("no_such_tool", {}, index=1, call_id="call_b"),
        scripts.tool_call("datetime", '{"timezone": ', index=2, call_id="call_c"),
        scripts.tool_call("datetime", {"zone": 5}, index=3, call_id="call_d"),
    ]
    await double.play([scripts.reasoning("hm", " so"), *calls, scripts.finish("tool_calls")])
    await double.play([scripts.words("It is noon."), scripts.finish()])

    created = await service.create("What time is it?")
    view = await service.ended(created["session_id"], created["turn"]["turn_id"])

    log = await service.log_of(created["session_id"])
    shapes.assert_log(log)
    assert (view["status"], view["steps"], view["tool_calls"], view["text"]) == ("completed", 2, 4, "It is noon.")
    ordered = ["call_a", "call_b", "call_c", "call_d"]
    for name in ("tool_call_requested", "tool_result_received"):
        assert [event["id"] for event in log if event["type"] == name] == ordered
    done = {event["id"]: event for event in log if event["type"] == "tool_execution_completed"}
    assert {name: event["is_error"] for name, event in done.items()} == dict.fromkeys(ordered, True) | {"call_a": False}
    started = [event["id"] for event in log if event["type"] == "tool_execution_started"]
    assert started == ["call_a"]
    pieces = "".join(event["args_delta"] for event in log if event["type"] == "tool_call_delta" and event["id"] == "call_a")
    assert pieces == '{"timezone": "UTC"}'
    first = [event["type"] for event in log if event.get("step") == 1 and not event["type"].endswith("_delta")]
    assert first == ["step_started", "reasoning_complete", *["tool_call_requested"] * 4, "step_completed"]
    shapes.assert_transcript((await service.client.get(f"/v1/sessions/{created['session_id']}/messages")).json()["messages"])


async def test_tool_ids_that_a_provider_repeats_are_made_unique(service: Service, double: ProviderDouble) -> None:
    call: scripts.Script = [scripts.tool_call("datetime", {}, call_id="call_0"), scripts.finish("tool_calls")]
    await double.play(call, call)
    twice = [scripts.tool_call("datetime", {}, index=index, call_id="call_0") for index in (0, 1)]
    await double.play([*twice, scripts.finish("tool_calls")])

    created = await service.create("What time is it?")
    view = await service.ended(created["session_id"], created["turn"]["turn_id"])

    log = await service.log_of(created["session_id"])
    requested = [event["id"] for event in log if event["type"] == "tool_call_requested"]
    assert view["status"] == "completed"
    assert len(set(requested)) == len(requested) == 4
