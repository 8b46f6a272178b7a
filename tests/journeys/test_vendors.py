"""The three vendors over the whole path: a server that its environment points at strict doubles of them."""

import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.api import shapes
from tests.provider_double import gemini, scripts
from tests.provider_double.anthropic import AnthropicDouble
from tests.provider_double.gemini import GeminiDouble
from tests.provider_double.openai import OpenAIDouble
from tests.provider_double.scripts import Script
from tests.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KEY = "sk-canary"
MODELS = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-5.6-terra", "gemini": "gemini-3.8-flash"}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
GROWING = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Par"}]}, "index": 0}],
    "usageMetadata": {"promptTokenCount": 30, "candidatesTokenCount": 4},
}
CALL: dict[str, Script] = {
    "anthropic": (scripts.reasoning("hm"), scripts.tool_call("datetime", {}), scripts.finish("tool_use")),
    "openai": (scripts.reasoning("hm"), scripts.tool_call("datetime", {}), scripts.finish()),
    "gemini": (scripts.reasoning("hm"), gemini.call("datetime", {}, signature=gemini.SIGNATURE), scripts.finish()),
}


def words(vendor: str, text: str) -> Script:
    """An answer of these words."""
    return scripts.text(text), scripts.finish("end_turn" if vendor == "anthropic" else "stop")


@dataclass
class Vendors:
    """A server, and the doubles of the vendors that it asks."""

    service: Service
    anthropic: AnthropicDouble
    openai: OpenAIDouble
    gemini: GeminiDouble

    def play(self, vendor: str, *answers: Script) -> None:
        """Queue answers of one vendor."""
        getattr(self, vendor).play(*answers)

    def asked(self, vendor: str) -> list[Any]:
        """Return the bodies that a vendor was sent, oldest first."""
        found: list[Any] = getattr(self, vendor).bodies
        return found

    @property
    def rejected(self) -> Sequence[str]:
        """Why vendors refused requests."""
        return [*self.anthropic.rejected, *self.openai.rejected, *self.gemini.rejected]

    async def open(self, vendor: str) -> str:
        """Open a session on a vendor's model, told by the model's name alone; return its path."""
        created = await self.service.create(model=MODELS[vendor], provider=None)
        assert created["session"]["state"]["provider"] == vendor
        return f"/v1/sessions/{created['session_id']}"

    async def turn(self, path: str, prompt: Any, **fields: Any) -> dict[str, Any]:
        """Run one turn to its end."""
        answer = await self.service.client.post(f"{path}/turns", json={"prompt": prompt, **fields})
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        assert view["status"] == "completed", view
        return view

    async def messages(self, path: str) -> list[dict[str, Any]]:
        """Read a session's history, which is valid for every vendor."""
        found: list[dict[str, Any]] = (await self.service.client.get(f"{path}/messages")).json()["messages"]
        shapes.assert_transcript(found)
        return found


@pytest.fixture
async def vendors(serve: Callable[..., Any]) -> AsyncIterator[Vendors]:
    """A server with all three vendors; the test fails if one had to refuse a transcript, or if the log shows a key."""
    async with AsyncExitStack() as stack:
        anthropic = await stack.enter_async_context(AnthropicDouble(KEY))
        openai = await stack.enter_async_context(OpenAIDouble(KEY))
        google = await stack.enter_async_context(GeminiDouble(KEY))
        keys = {f"{vendor.upper()}_API_KEY": KEY for vendor in MODELS}
        urls = {
            "ANTHROPIC_BASE_URL": anthropic.base_url,
            "OPENAI_BASE_URL": openai.base_url,
            "GEMINI_BASE_URL": google.base_url,
        }
        running = Vendors(await serve(**keys, **urls), anthropic, openai, google)
        yield running
        assert running.rejected == []
        assert KEY not in running.service.log.read_text()


@pytest.mark.parametrize("vendor", MODELS)
async def test_plain_turn_streams_the_vendors_words(vendors: Vendors, vendor: str) -> None:
    vendors.play(vendor, words(vendor, "Paris."))
    path = await vendors.open(vendor)

    frames = await vendors.service.frames(f"{path}/turns", method="POST", json={"prompt": "Hello"})

    kinds = [frame.event for frame in frames]
    assert kinds == ["turn_started", "step_started", "text_delta", "text_complete", "step_completed", "turn_completed"]
    assert frames[-1].data["text"] == "Paris."
    assert frames[-1].data["usage"]["output_tokens"]
    assert len(vendors.asked(vendor)) == 1


@pytest.mark.parametrize("vendor", MODELS)
async def test_tool_turn_gives_the_result_back_to_the_vendor(vendors: Vendors, vendor: str) -> None:
    vendors.play(vendor, CALL[vendor], words(vendor, "It is noon."), words(vendor, "You are welcome."))
    path = await vendors.open(vendor)

    view = await vendors.turn(path, "What time is it?")
    await vendors.turn(path, "Thank you.")

    assert (view["text"], view["steps"], view["tool_calls"]) == ("It is noon.", 2, 1)
    _, called, answered, *_ = await vendors.messages(path)
    assert called["content"][0] == {"type": "reasoning", "text": "hm"}
    result = answered["content"][0]["content"]
    assert all(json.dumps(result)[1:-1] in json.dumps(body) for body in vendors.asked(vendor)[1:])


@pytest.mark.parametrize(
    ("vendor", "answer", "usage"),
    [
        ("anthropic", [scripts.text("Par"), scripts.hang()], (21, 1)),
        ("gemini", [scripts.event(GROWING), scripts.hang()], (30, 4)),
        ("openai", [scripts.text("Par"), scripts.hang()], (0, 0)),
    ],
)
async def test_interrupted_turn_is_billed_for_what_its_vendor_had_reported(
    vendors: Vendors, vendor: str, answer: Script, usage: tuple[int, int]
) -> None:
    vendors.play(vendor, answer)
    path = await vendors.open(vendor)
    client = vendors.service.client
    await client.post(f"{path}/turns", json={"prompt": "Hello"}, headers={"Prefer": "respond-async"})
    await vendors.service.frames(f"{path}/events", until=["text_delta"])

    view = (await client.post(f"{path}/interrupt")).json()

    billed = (await client.get(path)).json()["billing"]
    assert (view["usage"]["input_tokens"], view["usage"]["output_tokens"]) == usage
    assert (billed["usage"]["input_tokens"], billed["total_tokens"]) == (usage[0], sum(usage))


@pytest.mark.parametrize("vendor", MODELS)
async def test_image_of_a_prompt_reaches_the_vendor(vendors: Vendors, vendor: str) -> None:
    vendors.play(vendor, words(vendor, "A dot."))
    path = await vendors.open(vendor)

    view = await vendors.turn(path, [{"type": "text", "text": "What is this?"}, IMAGE])

    assert view["text"] == "A dot."
    assert PIXEL in json.dumps(vendors.asked(vendor)[0])
    assert (await vendors.messages(path))[0]["content"] == [{"type": "text", "text": "What is this?"}, IMAGE]


@pytest.mark.parametrize(("before", "after"), [*itertools.permutations(MODELS, 2)])
async def test_session_goes_on_at_another_vendor_with_its_whole_history(vendors: Vendors, before: str, after: str) -> None:
    vendors.play(before, CALL[before], words(before, "It is noon."), words(before, "Good bye."))
    vendors.play(after, CALL[after], words(after, "Still noon."))
    path = await vendors.open(before)
    await vendors.turn(path, [{"type": "text", "text": "What time is it?"}, IMAGE])

    changed = await vendors.service.client.patch(path, json={"model": MODELS[after]})
    there = await vendors.turn(path, "And now?")
    back = await vendors.turn(path, "Bye.", model=MODELS[before])

    assert changed.json()["state"]["provider"] == after
    assert (there["text"], back["text"]) == ("Still noon.", "Good bye.")
    first_there, last_back = vendors.asked(after)[0], vendors.asked(before)[-1]
    assert all(said in json.dumps(first_there) for said in ("What time is it?", PIXEL, "datetime", "It is noon.", "And now?"))
    assert all(said in json.dumps(last_back) for said in ("It is noon.", "And now?", "Still noon.", "Bye."))
    assert [len(vendors.asked(vendor)) for vendor in (before, after)] == [3, 2]
    await vendors.messages(path)


async def test_key_that_a_vendor_refuses_fails_the_turn_and_is_not_told(serve: Callable[..., Any]) -> None:
    async with AnthropicDouble("another") as double:
        service: Service = await serve(ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=double.base_url)
        created = await service.create("Hello", model=MODELS["anthropic"], provider=None)

        view = await service.ended(created["session_id"], created["turn"]["turn_id"])

        assert (view["status"], view["error"]["reason"]) == ("failed", "PROVIDER_AUTH")
        assert KEY not in str(view) + str(await service.log_of(created["session_id"])) + service.log.read_text()


async def test_server_without_a_key_is_asked_by_its_base_url_alone(serve: Callable[..., Any]) -> None:
    async with AnthropicDouble() as double:
        service: Service = await serve(ANTHROPIC_BASE_URL=f"{double.base_url}/", SURICATE_DEFAULT_MODEL="claude-at-home")
        created = await service.create("Hello", model=None, provider=None)

        view = await service.ended(created["session_id"], created["turn"]["turn_id"])

        assert (view["status"], double.bodies[0]["model"]) == ("completed", "claude-at-home")
        assert "x-api-key" not in double.requests[0].headers
