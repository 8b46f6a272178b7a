"""Whose key goes where."""

import pytest

from app.errors import CapabilityUnavailable, ProviderError, StartupError
from app.outbound.door import Door, Policy
from app.outbound.transport import Transport
from app.providers import calls
from app.providers.base import ModelRequest, Provider
from app.providers.scripted import Scripted
from app.providers.vendors import Access, Brought, Vendors, Ways
from app.seals import Seals
from tests.tools.endpoint import Endpoint, answer, listening

pytestmark = pytest.mark.anyio

SEALS = Seals({"k": bytes(32)})
KEY = SEALS.seal("tenants-key", realm="acme")


def vendors(access: Access, outside: Transport | None = None) -> Vendors:
    inside = Transport()
    return Vendors({"openai_compatible": access}, Scripted(), Ways(inside, outside or inside), SEALS)


async def ask(provider: Provider) -> None:
    with pytest.raises(ProviderError):
        async for _ in provider.stream(ModelRequest("m", None, [])):
            pass


@pytest.mark.parametrize(
    ("has_url", "has_key", "sent"),
    [(True, True, "Bearer tenants-key"), (True, False, None), (False, True, "Bearer tenants-key")],
)
async def test_realm_is_asked_for_with_its_own_key_and_never_the_operators(
    has_url: bool, has_key: bool, sent: str | None
) -> None:
    async with listening(Endpoint(answer(status=401))) as operators, listening(Endpoint(answer(status=401))) as tenants:
        brought = Brought(tenants.url() if has_url else None, KEY if has_key else None)
        found = vendors(Access(operators.url(), "operators-key")).of({"openai_compatible": brought}, realm="acme")

        await ask(found["openai_compatible"])

    [head] = [*tenants.heads, *operators.heads]
    assert bool(tenants.heads) is has_url
    assert "operators-key" not in head
    assert (f"authorization: {sent}\r\n" in head) if sent else ("authorization" not in head.lower())


async def test_url_of_a_realm_is_reached_through_the_door_alone() -> None:
    async with listening(Endpoint()) as inside:
        outside = Door(Policy(allows_http=True)).transport()
        found = vendors(Access(), outside).of({"openai_compatible": Brought(inside.url(), KEY)}, realm="acme")

        with pytest.raises(ProviderError, match="may not be reached") as caught:
            async for _ in found["openai_compatible"].stream(ModelRequest("m", None, [])):
                pass

    assert caught.value.reason == "PROVIDER_UNAVAILABLE"
    assert inside.heads == []


async def test_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_ANSWER_BYTES", 100_000)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    async with listening(Endpoint(head, b": ping\n\n" * 1_000, repeats=100_000)) as endless:
        found = vendors(Access(endless.url())).of({})

        with pytest.raises(ProviderError, match="is over 100000 bytes") as caught:
            async for _ in found["openai_compatible"].stream(ModelRequest("m", None, [])):
                pass

    assert caught.value.reason == "PROVIDER_PROTOCOL"


async def test_key_of_another_realm_takes_the_provider_away_instead_of_lending_the_operators() -> None:
    found = vendors(Access("http://127.0.0.1:1/", "operators-key")).of({"openai_compatible": Brought(None, KEY)}, realm="other")

    assert "openai_compatible" not in found


async def test_key_without_any_url_leaves_the_provider_out() -> None:
    found = vendors(Access()).of({"openai_compatible": Brought(None, KEY)})

    with pytest.raises(CapabilityUnavailable):
        found.choose("m", "openai_compatible")


async def test_vendor_that_nobody_set_up_is_off_and_one_that_is_brought_is_on() -> None:
    made = vendors(Access(None, "a key and no URL"))

    assert set(made.of({})) == {"scripted"}
    assert set(made.of({"anthropic": Brought(None, KEY), "gemini": Brought("https://example.com", None)})) == {
        "scripted", "anthropic", "gemini",
    }  # fmt: skip


async def test_operators_setting_that_cannot_be_used_stops_the_start() -> None:
    with pytest.raises(StartupError, match="openai_compatible cannot be set up"):
        vendors(Access("ftp://example.com"))
