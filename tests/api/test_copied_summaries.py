"""Copies of sessions whose older messages were summed up: the copy's model reads the summary too, where it can."""

from typing import Any

import pytest

from tests.api.desk import ASYNC, Desk
from tests.api.talk import erase, export, forked, history, resume, without_ids
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

LONG = "word " * 400
OPENING = "Summary of the conversation so far:\n\n"
DONE = (scripts.text("Fine."), scripts.finish())


def said(text: str) -> Any:
    """Make an answer."""
    return (scripts.text(text), scripts.finish())


@pytest.fixture
async def talk(service: Service, double: ProviderDouble) -> Desk:
    """A session of two long turns, a summary that a caller asked for, and a third turn with one of its own."""
    desk = Desk(service, (await service.create(system_prompt="Be brief."))["session_id"])
    await double.play(said(LONG), said(LONG), said("First summary."))
    await desk.start("One?")
    await desk.start("Two?")
    assert (await desk.client.post(f"{desk.path}/compact")).status_code == 200
    await double.play([scripts.context_overflow()], said("Second summary."), said("Three."))
    assert (await desk.start("Three?")).json()["text"] == "Three."
    return desk


async def read_by(desk: Desk, double: ProviderDouble) -> list[str]:
    """Ask once more, and return what the model was shown."""
    await double.play(DONE)
    assert (await desk.start("And?")).json()["text"] == "Fine."
    return [message["content"] for message in (await double.requests())[-1].body["messages"]]


async def test_fork_of_the_whole_reads_the_newest_summary_as_its_source_does(
    talk: Desk, service: Service, double: ProviderDouble
) -> None:
    copied = await forked(talk, service)

    assert without_ids(await history(copied)) == without_ids(await history(talk))
    assert await read_by(copied, double) == await read_by(talk, double)
    assert "Second summary." in str((await double.requests())[-1].body["messages"])


@pytest.mark.parametrize(
    ("through", "read"),
    [
        (1, ["Be brief.", "One?", LONG, "And?"]),
        (2, ["Be brief.", f"{OPENING}Second summary.\n\nAnd?"]),
    ],
)
async def test_summary_goes_with_a_fork_that_has_all_it_stands_in_for(
    talk: Desk, service: Service, double: ProviderDouble, through: int, read: list[str]
) -> None:
    copied = await forked(talk, service, {"through_turn": through})

    summaries = [message for message in await history(copied) if message.get("summary")]
    assert {summary["turn_id"] for summary in summaries} <= {None}
    assert await read_by(copied, double) == read


async def test_summed_up_session_comes_back_as_it_was(talk: Desk, service: Service, double: ProviderDouble) -> None:
    document, messages = await export(talk), await history(talk)
    await erase(talk)

    answer = await resume(service, document)

    assert answer.status_code == 201, answer.text
    pointers = [(message["ordinal"], message["sums_up_to"]) for message in document["messages"] if message.get("summary")]
    assert pointers == [(6, 4), (8, 6)]
    assert await export(talk) == document
    assert await history(talk) == messages
    assert (await read_by(talk, double))[1].startswith(f"{OPENING}Second summary.")


async def test_summary_of_a_live_turn_is_exported_without_the_turn(
    talk: Desk, service: Service, double: ProviderDouble
) -> None:
    await double.play([scripts.context_overflow()], said("Third."), [scripts.text("Fo"), scripts.hang()])
    await talk.start(LONG, ASYNC)
    await service.frames(f"{talk.path}/events", after=(await service.log_of(talk.id))[-1]["seq"] - 1, until=["text_delta"])

    document = await export(talk)
    await talk.interrupt()
    await erase(talk)
    answer = await resume(service, document)

    assert (document["messages"][-1]["summary"], document["messages"][-1]["turn_id"]) == (True, None)
    assert answer.status_code == 201, answer.text
    assert await export(talk) == document


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"sums_up_to": None}, ""),
        ({"summary": None}, ""),
        ({"summary": False}, ".summary"),
        ({"sums_up_to": 0}, ".sums_up_to"),
        ({"sums_up_to": "2"}, ".sums_up_to"),
        ({"sums_up_to": 7}, ".sums_up_to"),
        ({"sums_up_to": 2}, ".sums_up_to"),
    ],
)
async def test_summary_that_cannot_stand_in_for_what_it_says_is_refused(
    service: Service, double: ProviderDouble, change: dict[str, Any], place: str
) -> None:
    desk = Desk(service, (await service.create())["session_id"])
    await double.play([scripts.tool_call("datetime", {}), scripts.finish("tool_calls")], said(LONG), said(LONG), said("Short."))
    await desk.start(LONG)
    await desk.start("Two?")
    await desk.client.post(f"{desk.path}/compact")
    document = await export(desk)
    await erase(desk)
    [*_, call, result, _, _, _, summary] = document["messages"]
    assert (call["ordinal"], result["role"], summary["ordinal"], summary["summary"]) == (2, "tool", 7, True)
    summary |= change

    answer = await resume(service, document)

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert any(error["loc"].endswith(place) for error in answer.json()["errors"])
