"""One session of each provider goes through everything that a session can meet, and is sound after each step of its way."""

from collections.abc import AsyncIterator

import pytest

from tests.api.talk import erase, export, fork, history, resume
from tests.journeys.checks import assert_sound
from tests.journeys.talks import CALLS, Serve, Talk, opened
from tests.provider_double.client import ProviderDouble
from tests.providers import behaviours

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
ANSWER = 'Here it is:\n```json\n{"city": "Paris"}\n```'
OSLO = "Oslo, with some luck, though nobody there would promise you more than one dry day in a whole week of rain."
FIRST, SECOND, THIRD = "Where is it sunny?", "And in the north?", "Tell me all of it."


@pytest.fixture(params=behaviours.ALL)
async def talk(request: pytest.FixtureRequest, serve: Serve, double: ProviderDouble) -> AsyncIterator[Talk]:
    """A session with each provider."""
    async with opened(request.param, serve, double) as found:
        yield found


async def test_session_is_sound_after_tools_a_cut_an_interrupt_a_fork_and_an_import(talk: Talk) -> None:
    for happens in (calls_are_allowed_and_answered, stream_is_cut, turn_is_interrupted, fork_goes_on, import_goes_on):
        await happens(talk)
        await assert_sound(talk)


async def calls_are_allowed_and_answered(talk: Talk) -> None:
    """The model thinks and makes two calls at once, for leave and for a result, then answers with a value."""
    await talk.play(talk.calling(), talk.whole(ANSWER))
    turn_id = await talk.begin(FIRST, until="tool_call_pending", output_schema=SCHEMA)
    pending = {call["name"]: call for call in (await talk.desk.turn(turn_id))["pending_tool_calls"]}
    assert {name: call["kind"] for name, call in pending.items()} == {"datetime": "approval", "weather": "external"}

    path, client = talk.desk.path, talk.desk.client
    allowed = await client.post(f"{path}/approvals/{pending['datetime']['id']}", json={"decision": "allow"})
    results = [{"tool_call_id": pending["weather"]["id"], "content": "Sun in Paris."}]
    answered = await client.post(f"{path}/tool_results", json={"results": results})
    turn = await talk.ended(turn_id)

    assert (allowed.status_code, answered.status_code) == (200, 200)
    assert (turn["status"], turn["steps"], turn["tool_calls"]) == ("completed", 2, 2)
    assert (turn["text"], turn["structured_output"]) == (ANSWER, {"city": "Paris"})
    _, asked, called, given, _ = await history(talk.desk)
    assert asked["content"] == [{"type": "text", "text": FIRST}]
    assert called["content"][0] == {"type": "reasoning", "text": behaviours.THOUGHT}
    assert [block["name"] for block in called["content"][2:]] == [*CALLS.values()]
    time, weather = given["content"]
    assert (time["is_error"], weather["content"]) == (False, "Sun in Paris.")


async def stream_is_cut(talk: Talk) -> None:
    """What was shown of the answer is discarded, and the model is asked again."""
    turn = await talk.cut(SECOND, OSLO)

    assert (turn["status"], turn["text"], turn["steps"]) == ("completed", OSLO, 1)
    kinds = [event["type"] for event in await talk.log_of(turn["turn_id"])]
    at = kinds.index("step_discarded")
    assert tuple(kinds[at - 1 : at + 2]) == talk.retold_by
    assert kinds.count("step_discarded") == 1
    assert "text_delta" in kinds[:at]


async def turn_is_interrupted(talk: Talk) -> None:
    """What was said until then stays the assistant's."""
    await talk.hold("Winters there")
    turn_id = await talk.begin(THIRD, until="text_delta")
    await talk.desk.interrupt()
    turn = await talk.ended(turn_id)

    assert (turn["status"], turn["stop_reason"]) == ("interrupted", "interrupted")
    said = "".join(event["delta"] for event in await talk.log_of(turn_id) if event["type"] == "text_delta")
    [*_, kept] = await history(talk.desk)
    assert (kept["stop_reason"], kept["content"][-1]["text"], turn["text"]) == ("interrupted", said, said)
    assert said.startswith("Winters")


async def fork_goes_on(talk: Talk) -> None:
    """A copy of the first turn takes a second one of its own, of which the source knows nothing."""
    messages = await history(talk.desk)
    copied = talk.forked((await fork(talk.desk, {"through_turn": 1})).json()["session_id"])
    assert len(await history(copied.desk)) == 5
    await assert_sound(copied)

    await goes_on(copied, number=2)

    await copied.assert_told(FIRST, "Sun in Paris.", but_not=[SECOND, OSLO, THIRD, "Winters"])
    assert await history(talk.desk) == messages


async def import_goes_on(talk: Talk) -> None:
    """The document that is refused while the session is there brings it back once it is erased."""
    document, messages = await export(talk.desk), await history(talk.desk)
    taken = await resume(talk.service, document)
    assert (taken.status_code, taken.json()["code"]) == (409, "SESSION_EXISTS")
    await erase(talk.desk)
    assert (await talk.desk.client.get(talk.desk.path)).status_code == 404

    resumed = await resume(talk.service, document)

    assert (resumed.status_code, resumed.json()["session_id"]) == (201, talk.id)
    assert (await export(talk.desk), await history(talk.desk)) == (document, messages)
    if talk.reported is not None:
        talk.reported.clear()  # the log has begun anew
    await assert_sound(talk)

    await goes_on(talk, number=4)

    await talk.assert_told(FIRST, "Sun in Paris.", SECOND, OSLO, THIRD, "Winters")


async def goes_on(talk: Talk, *, number: int) -> None:
    """Take one more turn, whose request its vendor accepts."""
    await talk.play(talk.whole("You are welcome."))

    turn = (await talk.desk.start("Thank you.")).json()

    assert (turn["status"], turn["text"], turn["number"]) == ("completed", "You are welcome.", number)
    await assert_sound(talk)
