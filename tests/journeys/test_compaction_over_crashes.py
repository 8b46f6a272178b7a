"""A transcript is summed up while its server is killed: one summary, the whole history, one end of the turn."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from tests.api import shapes, talk
from tests.api.desk import ASYNC, Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CONTEXT_TOKENS = 1000
ANSWER = "said " * 400
LONG = "word " * 400  # with the answer it makes a summary due
LONGER = "word " * 800  # it does so alone
SUMMARY = (scripts.text("They spoke of words."), scripts.finish())
CUT_SUMMARY = (scripts.text("They sp"), scripts.hang())
PARIS = (scripts.text("Paris."), scripts.finish())
OVERFLOW = (scripts.context_overflow(),)


def said(text: str) -> scripts.Script:
    """Make an answer."""
    return (scripts.text(text), scripts.finish())


@pytest.fixture
async def server(serve: Callable[..., Awaitable[Service]], double: ProviderDouble) -> Callable[[], Awaitable[Service]]:
    """Start servers on one database, whose model reads little."""

    async def start() -> Service:
        return await serve(
            SURICATE_LEASE_SECONDS="3",
            SURICATE_OPENAI_COMPATIBLE_BASE_URL=double.base_url,
            SURICATE_UNKNOWN_CONTEXT_TOKENS=str(CONTEXT_TOKENS),
        )

    return start


async def talked(service: Service, double: ProviderDouble, *answers: str) -> Desk:
    """Open a session in which the model has given these answers."""
    desk = Desk(service, (await service.create())["session_id"])
    await double.play(*map(said, answers))
    for _ in answers:
        assert (await desk.start("And?")).json()["status"] == "completed"
    return desk


async def killed_at(service: Service, desk: Desk, kind: str, number: int, double: ProviderDouble) -> None:
    """Kill the server once the log has an event of a type, and the model was asked for the so many-th time."""
    await service.frames(f"{desk.path}/events", until=[kind])
    await double.received(number)
    await service.kill()


async def assert_summed_up_once(desk: Desk, before: Sequence[dict[str, Any]], log: Sequence[dict[str, Any]]) -> None:
    """Hold a session against the promises: all that was said is there, and one summary, whose words nobody was shown."""
    shapes.assert_log(log)
    messages = await talk.history(desk)
    shapes.assert_transcript(messages)
    assert messages[: len(before)] == before
    assert [message.get("summary", False) for message in messages].count(True) == 1
    types = [event["type"] for event in log]
    assert (types.count("compaction_completed"), types.count("compaction_failed")) == (1, 0)
    assert "They sp" not in "".join(event.get("delta", "") for event in log)
    spent = [event["usage"]["output_tokens"] for event in log if event["type"] in {"step_completed", "compaction_completed"}]
    assert (await talk.state(desk))["billing"]["usage"]["output_tokens"] == sum(spent)


@pytest.mark.parametrize("is_told", [False, True], ids=["near the context", "told by the provider"])
async def test_summary_that_was_cut_is_begun_again(
    server: Callable[[], Awaitable[Service]], double: ProviderDouble, *, is_told: bool
) -> None:
    before = await server()
    desk = await talked(before, double, ANSWER)
    told = [OVERFLOW] if is_told else []
    await double.play(*told, CUT_SUMMARY, *told, SUMMARY, PARIS)
    turn = (await desk.start("So?" if is_told else LONG, ASYNC)).json()
    history = await talk.history(desk)
    await killed_at(before, desk, "compaction_started", 2 + len(told), double)

    after = await server()
    view = await after.ended(desk.id, turn["turn_id"])

    assert (view["status"], view["text"], view["attempt"]) == ("completed", "Paris.", 2)
    log = await after.log_of(desk.id)
    await assert_summed_up_once(Desk(after, desk.id), history, log)
    own = [event["type"] for event in log if event["turn_id"] == turn["turn_id"]]
    assert [kind for kind in own if kind.startswith(("compaction", "turn", "step"))] == (
        ["turn_started", "step_started", "compaction_started", "turn_resumed", "step_discarded", "step_started",
         "compaction_started", "compaction_completed", "step_started", "step_completed", "turn_completed"]
        if is_told else
        ["turn_started", "compaction_started", "turn_resumed", "compaction_started", "compaction_completed",
         "step_started", "step_completed", "turn_completed"]
    )  # fmt: skip
    asked = (await double.requests())[-1].body["messages"]
    assert "They spoke of words." in asked[0]["content"]
    assert ANSWER.strip() not in asked[0]["content"]


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [(LONG, []), (LONGER, [scripts.text("Par")])],
    ids=["short of the context, nothing shown", "near it by the prompt alone, some shown"],
)
async def test_summary_on_record_is_what_the_next_attempt_goes_on_with(
    server: Callable[[], Awaitable[Service]], double: ProviderDouble, prompt: str, shown: list[scripts.Action]
) -> None:
    before = await server()
    desk = await talked(before, double, ANSWER)
    await double.play(SUMMARY, [*shown, scripts.hang()], PARIS)
    turn = (await desk.start(prompt, ASYNC)).json()
    history = (await talk.history(desk))[:3]
    await killed_at(before, desk, "compaction_completed", 3, double)

    after = await server()
    view = await after.ended(desk.id, turn["turn_id"])

    assert (view["status"], view["text"], view["attempt"]) == ("completed", "Paris.", 2)
    now = Desk(after, desk.id)
    await assert_summed_up_once(now, history, await after.log_of(desk.id))
    asked = [request.body["messages"] for request in (await double.requests())[2:]]
    assert len(asked) == 2
    assert asked[0] == asked[1]


async def test_callers_compaction_that_was_cut_is_done_by_the_repeat_and_once(
    server: Callable[[], Awaitable[Service]], double: ProviderDouble
) -> None:
    before = await server()
    desk = await talked(before, double, ANSWER, ANSWER)
    history = await talk.history(desk)
    await double.play(CUT_SUMMARY, SUMMARY, PARIS)
    key = {"Idempotency-Key": "once"}

    async def ask_in_vain() -> None:
        with suppress(httpx2.TransportError):
            await desk.client.post(f"{desk.path}/compact", headers=key)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask_in_vain())
        await killed_at(before, desk, "compaction_started", 3, double)
    after = await server()
    now = Desk(after, desk.id)
    answers = [await after.client.post(f"{now.path}/compact", headers=key) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true"]
    assert answers[0].json() == answers[1].json()
    log = await after.log_of(desk.id)
    await assert_summed_up_once(now, history, log)
    assert [event["type"] for event in log[-3:]] == ["compaction_started", "compaction_started", "compaction_completed"]
    assert (await now.start("Still there?")).json()["text"] == "Paris."
    assert "They spoke of words." in (await double.requests())[-1].body["messages"][0]["content"]
