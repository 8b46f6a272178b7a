"""Forks of sessions, and exports as documents."""

from typing import Any

import pytest

from app import ids
from tests.api import shapes
from tests.api.desk import ASYNC, Desk
from tests.api.talk import erase, export, fork, forked, history, state, talked, without_ids
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio


@pytest.fixture
async def talk(service: Service, double: ProviderDouble) -> Desk:
    """A session of two turns."""
    return await talked(service, double)


async def test_fork_has_the_history_options_and_turns_and_a_log_of_its_own(talk: Desk, service: Service) -> None:
    answer = await fork(talk)

    assert (answer.status_code, answer.json()["turn"]) == (201, None)
    copied = Desk(service, answer.json()["session_id"])
    assert answer.headers["location"] == copied.path
    shapes.assert_shaped(answer.json()["session"], shapes.SESSION)
    assert without_ids(await history(copied)) == without_ids(await history(talk))
    assert [event["type"] for event in await service.log_of(copied.id)] == ["session_created"]
    source, view = (await state(talk))["state"], await state(copied)
    kept = ("title", "labels", "model", "provider", "message_count", "last_assistant_text")
    assert [view["state"][name] for name in kept] == [source[name] for name in kept]
    assert view["billing"]["total_tokens"] == 0


async def test_turns_of_a_fork_keep_their_numbers_and_have_no_events(talk: Desk, service: Service) -> None:
    copied = await forked(talk, service)

    theirs, ours = (await talk.turns())["turns"], (await copied.turns())["turns"]
    assert [turn["number"] for turn in ours] == [1, 2]
    assert [(turn["text"], turn["usage"]) for turn in ours] == [(turn["text"], turn["usage"]) for turn in theirs]
    assert {turn["turn_id"] for turn in ours}.isdisjoint(turn["turn_id"] for turn in theirs)
    for turn in ours:
        shapes.assert_shaped(turn, shapes.TURN)
        assert (turn["first_seq"], turn["last_seq"]) == (2, 1)
        assert await service.frames(f"{copied.path}/turns/{turn['turn_id']}/events") == []


async def test_fork_through_a_turn_leaves_out_what_came_later(talk: Desk, service: Service) -> None:
    copied = await forked(talk, service, {"through_turn": 1})

    assert [message["role"] for message in await history(copied)] == ["system", "user", "assistant", "tool", "assistant"]
    assert [turn["number"] for turn in (await copied.turns())["turns"]] == [1]
    assert (await state(copied))["state"]["last_assistant_text"] == "One"


async def test_fork_and_its_source_go_their_own_ways(talk: Desk, service: Service, double: ProviderDouble) -> None:
    copied = await forked(talk, service, {"through_turn": 1})

    answer = await copied.start("Other?")

    assert (answer.json()["status"], answer.json()["number"]) == ("completed", 2)
    assert [message["ordinal"] for message in await history(copied)] == list(range(1, 8))
    assert len((await talk.turns())["turns"]) == 2
    request = (await double.requests())[-1]
    said = [message["content"] for message in request.body["messages"] if message["role"] == "user"]
    assert said == ["Hello", "Other?"]
    await erase(talk)
    assert len(await history(copied)) == 7


@pytest.mark.parametrize("through", [3, 2**31, 0, -1, True, "1"])
async def test_fork_beyond_the_last_turn_or_of_no_turn_is_refused(talk: Desk, through: Any) -> None:
    answer = await fork(talk, {"through_turn": through})

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert answer.json()["errors"][0]["loc"] == "through_turn"


async def test_live_turn_is_not_copied_and_cannot_be_named(talk: Desk, service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.text("Thr"), scripts.hang()])
    live = (await talk.start("Third?", ASYNC)).json()
    queued = await talk.queue("Fourth?")
    await talk.client.delete(f"{talk.path}/turns/{queued['turn_id']}")

    assert [(await fork(talk, {"through_turn": n})).status_code for n in (2, 3, 4)] == [201, 422, 422]
    copied = await forked(talk, service)
    assert [turn["number"] for turn in (await copied.turns())["turns"]] == [1, 2]
    assert [turn["number"] for turn in (await export(talk))["turns"]] == [1, 2]
    assert live["turn_id"] not in {message["turn_id"] for message in (await export(talk))["messages"]}
    assert (await state(copied))["state"]["status"] == "idle"
    await talk.interrupt()


async def test_fork_of_a_session_without_turns_keeps_its_kept_prompt(service: Service, double: ProviderDouble) -> None:
    created = await service.create("Mind this.", initial_turn="defer")

    copied = await forked(Desk(service, created["session_id"]), service)
    await copied.start("Go.")

    assert (await double.requests())[-1].body["messages"][-1]["content"] == "Mind this.\n\nGo."


async def test_system_prompt_changed_since_is_put_on_record_with_the_forks_next_turn(talk: Desk, service: Service) -> None:
    await talk.client.patch(talk.path, json={"system_prompt": "Be long."})
    copied = await forked(talk, service, {"through_turn": 1})

    await copied.start("Go.")

    system = [message["content"][0]["text"] for message in await history(copied) if message["role"] == "system"]
    assert system == ["Be brief.", "Be long."]


async def test_repeat_of_a_fork_makes_nothing(talk: Desk) -> None:
    key = {"Idempotency-Key": ids.uuid7()}

    first, second = await fork(talk, {"through_turn": 1}, key), await fork(talk, {"through_turn": 1}, key)
    other = await fork(talk, {}, key)

    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert other.json()["code"] == "IDEMPOTENCY_KEY_REUSED"


async def test_archived_session_is_forked_open(talk: Desk, service: Service) -> None:
    await talk.client.post(f"{talk.path}/archive")

    copied = await forked(talk, service)

    assert (await state(copied))["state"]["archived_at"] is None


@pytest.mark.parametrize(("method", "path"), [("POST", "fork"), ("GET", "export")])
async def test_copy_of_what_is_not_there_is_404(service: Service, method: str, path: str) -> None:
    answer = await service.client.request(method, f"/v1/sessions/{ids.session_id()}/{path}")

    assert (answer.status_code, answer.json()["code"]) == (404, "SESSION_NOT_FOUND")


async def test_export_has_events_only_on_request(talk: Desk, service: Service) -> None:
    assert (await export(talk)).keys() == {"format", "version", "session", "turns", "messages"}
    assert "events" not in await export(talk, "events=false")
    assert (await export(talk, "events=true"))["events"] == await service.log_of(talk.id)
