"""From a prompt to its stream, as a client sees it."""

import pytest

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
