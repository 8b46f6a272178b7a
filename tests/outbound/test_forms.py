"""Every form in which somebody could name an inside address, through everyone who goes by the door: none gets out.

A listener stands on loopback, so that a form which slips through finds somebody. The names are resolved by a table, as a name
server of an attacker's would; everything else is left to the system's resolver, which reads numbers in all their spellings.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import httpx2
import pytest

from app.errors import ProviderError, StartupError
from app.hooks.base import HookFault
from app.hooks.endpoint import Endpoint as HookEndpoint
from app.hooks.endpoint import url_of
from app.outbound import door as outbound
from app.outbound.addresses import Address, Inside
from app.outbound.door import Door, OutboundError, Policy
from app.providers.base import ModelRequest, ToolSpec
from app.providers.openai_compatible import OpenAICompatible
from app.seals import Seals
from app.tools.base import ToolError
from app.tools.http import Endpoint as ToolEndpoint
from app.tools.http import HttpTool
from app.webhooks import signing
from app.webhooks.deliveries import Delivery
from app.webhooks.webhook import Webhook
from app.worker.courier import Courier
from tests.tools.endpoint import Endpoint, listening

pytestmark = pytest.mark.anyio

SECRET = "sixteen characters and more"
SPELLED = (
    "127.0.0.1", "127.0.0.2", "127.255.255.254", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7F.1", "0x7f.0x0.0x0.0x1",
    "017700000001", "0177.0.0.1", "0177.1", "127.0.0.0x1", "00000177.00.00.01", "0", "0.0.0.0", "0.0", "localhost", "LOCALHOST",
    "localhost.", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]",
    "[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[fe80::1%25lo]", "[fe80::1]", "[::1%25lo]", "169.254.169.254", "2852039166",
    "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "100.100.100.200", "168.63.129.16",
    "192.0.0.192", "10.0.0.1", "10.1", "172.16.0.1", "192.168.0.1", "192.168.257", "100.64.0.1", "198.18.0.1", "224.0.0.1",
    "255.255.255.255", "240.0.0.1", "[fc00::1]", "[fec0::1]", "[ff02::1]", "127\u30020\u30020\u30021",
    "\u2460\u2461\u2466.0.0.1", "%31%32%37.0.0.1", "127.0.0.1%00.example.com", "1.1.1.1@127.0.0.1", "user:word@127.0.0.1",
    "1.1.1.1%20@127.0.0.1", "1.1.1.1\\@127.0.0.1", "127.0.0.1\t", "127.0.0.1\r\nhost: example.com", "[127.0.0.1]", "[::1", "",
)  # fmt: skip
"""Hosts as a URL has them."""
ALONE = (
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200",
    "100.127.255.255", "168.63.129.16", "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255",
    "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.1.1", "192.175.48.1",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::ffff:8.8.8.8", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::a00:1",
    "100::1", "100:0:0:1::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1",
    "2001:db8::1", "2002:7f00:1::1", "2002:a9fe:a9fe::1", "2002:808:808::1", "2620:4f:8000::1", "3fff::1", "4000::1", "5f00::1",
    "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fdff::1", "fe80::1", "fe80::a9fe:a9fe", "febf::1", "fec0::1", "ff02::1",
    "ff0e::1",
)  # fmt: skip
MIXED = (("1.1.1.1", "127.0.0.1"), ("2606:4700:4700::1111", "::1"), ("8.8.8.8", "1.1.1.1", "169.254.169.254"))
LED_TO: tuple[tuple[str, ...], ...] = (*((address,) for address in ALONE), *MIXED)
"""Addresses to which a name of an attacker's leads; it may have public ones, too."""
SCHEMES = ("ftp", "file", "gopher", "dict", "ldap", "ws", "unix", "data", "javascript", "jar", "")
"""What no door speaks."""


class Table:
    """Resolves names of the form `<number>.forms.test` by the table, and anything else as the system does."""

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        number = host.removesuffix(".forms.test")
        if number == host:
            return await outbound.resolved(host, port)
        return [ipaddress.ip_address(text) for text in LED_TO[int(number)]]


def forms(port: int) -> list[str]:
    """Write every form as a URL that leads to a port."""
    return [
        *(f"http://{host}:{port}/" for host in SPELLED),
        *(f"http://{number}.forms.test:{port}/" for number in range(len(LED_TO))),
        *(f"{scheme}://127.0.0.1:{port}/" for scheme in SCHEMES),
    ]


async def as_request(door: Door, url: str) -> None:
    await door.request("POST", url, headers={}, timeout_seconds=5)


async def as_document(door: Door, url: str) -> None:
    await door.get(url, limit_bytes=1_000, seconds=5)


async def as_client(door: Door, url: str) -> None:
    async with door.client(headers={}, timeout_seconds=5) as client:
        await client.post(url)


async def as_tool(door: Door, url: str) -> None:
    await HttpTool(ToolSpec("t", "d", {"type": "object"}), ToolEndpoint(url, {}, 5), door).run({})


async def as_hook(door: Door, url: str) -> None:
    await HookEndpoint(url_of(url), SECRET, door).answer(b"{}")


async def as_provider(door: Door, url: str) -> None:
    async with door.transport() as transport:
        async for _ in OpenAICompatible(url, "key", transport=transport).stream(ModelRequest("m", None, [])):
            pass


async def as_webhook(door: Door, url: str) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    told = Webhook("w", "default", url, ["turn_completed"], None, True, at, at, signing.new_secret())
    courier = Courier(None, door, Seals({}))  # type: ignore[arg-type] # nothing is claimed and nothing is written down
    outcome = await courier._outcome(Delivery("d", told, 1, b"{}"))
    if outcome.status == "pending" and outcome.http_status is None:
        raise OutboundError(outcome.error or "")


async def as_check(door: Door, url: str) -> None:
    await door.check(url)


USERS = (as_request, as_document, as_client, as_tool, as_hook, as_provider, as_webhook, as_check)
REFUSED = (
    OutboundError, ToolError, HookFault, ProviderError, StartupError, ValueError, httpx2.InvalidURL, httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)  # fmt: skip


@pytest.mark.parametrize("user", USERS)
async def test_no_form_gets_out(user: Callable[[Door, str], Awaitable[None]]) -> None:
    got_out = []
    door = Door(Policy(allows_http=True), resolver=Table())
    async with listening(Endpoint()) as endpoint, asyncio.timeout(50):
        every = forms(endpoint.port)
        for url in every:
            try:
                await user(door, url)
            except REFUSED:
                continue
            got_out.append(url)

    assert (got_out, endpoint.heads) == ([], [])
    print(f"{len(every)} forms as {user.__name__.removeprefix('as_')}: refused all")


async def test_the_listener_would_have_been_found() -> None:
    door = Door(Policy(Inside.parse(["127.0.0.1"]), allows_http=True), resolver=Table())
    async with listening(Endpoint()) as endpoint:
        await as_request(door, f"http://127.0.0.1:{endpoint.port}/")
        await as_tool(door, f"http://0.forms.test:{endpoint.port}/")

    assert len(endpoint.heads) == 2
