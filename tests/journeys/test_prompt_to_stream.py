"""From a prompt to its stream, as a client sees it."""

import asyncio

import pytest

from tests.api import shapes
from tests.service import Service

pytestmark = pytest.mark.anyio


async def test_plain_turn_streams_the_events_of_the_contract_in_order(service: Service) -> None:
    body = {"prompt": "Hello", "model": "double", "provider": "openai_compatible"}

    frames = await service.frames("/v1/sessions", method="POST", json=body)

    kinds = [frame.event for frame in frames]
    deltas = [frame.data["delta"] for frame in frames if frame.event == "text_delta"]
    assert kinds[:2] == ["turn_started", "step_started"]
    assert set(kinds[2:-3]) == {"text_delta"}
    assert kinds[-3:] == ["text_complete", "step_completed", "turn_completed"]
    assert [frame.id for frame in frames] == list(range(2, len(frames) + 2))
    assert "".join(deltas) == frames[-3].data["content"] == frames[-1].data["text"]


async def test_scripted_model_thinks_calls_a_real_tool_and_quotes_prompt_and_output(service: Service) -> None:
    body = {"prompt": "Is it late?", "model": "scripted", "provider_params": {"tokens_per_second": 0}}

    frames = await service.frames("/v1/sessions", method="POST", json=body)

    events = [frame.data for frame in frames]
    kinds = [event["type"] for event in events if not event["type"].endswith("_delta")]
    [done] = [event for event in events if event["type"] == "tool_execution_completed"]
    assert kinds == [
        *("turn_started", "step_started", "reasoning_complete", "text_complete", "tool_call_requested", "step_completed"),
        *("tool_execution_started", "tool_execution_completed", "tool_result_received"),
        *("step_started", "text_complete", "step_completed", "turn_completed"),
    ]
    assert (done["name"], done["is_error"]) == ("datetime", False)
    assert "Is it late?" in events[-1]["text"]
    assert done["result"] in events[-1]["text"]
    shapes.assert_log(await service.log_of(events[0]["session_id"]))


async def test_scripted_model_speaks_at_the_rate_it_is_given(service: Service) -> None:
    loop = asyncio.get_running_loop()
    body = {"prompt": "Hi", "model": "scripted", "provider_params": {"tokens_per_second": 100, "tokens": 50}}
    began = loop.time()

    turn = (await service.client.post("/v1/sessions", json=body)).json()["turn"]

    assert turn["usage"]["output_tokens"] == 50
    assert 0.4 < loop.time() - began < 2
