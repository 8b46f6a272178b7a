"""A hook behind HTTP, against a server on loopback."""

import hashlib
import hmac
import re

import pytest

from app import clock
from app.hooks.base import MAX_BODY_BYTES, HookFault
from app.hooks.endpoint import Endpoint, signature, url_of
from app.outbound.door import Door
from tests.hooks.receiver import SECRET, deciding, receiving, whole

pytestmark = pytest.mark.anyio

BODY = '{"point":"turn_started","hook_id":"häkchen"}'.encode()
ALLOW = {"decision": "allow"}


async def ask(door: Door, url: str) -> bytes:
    return await Endpoint(url_of(url), SECRET, door).answer(BODY)


async def test_payload_is_posted_as_it_is_and_its_answer_returned(door: Door) -> None:
    async with receiving(deciding(ALLOW)) as receiver:
        answer = await ask(door, receiver.url + "?of=us")

    assert answer == b'{"decision":"allow"}'
    assert receiver.requests[0].line == "POST /hook?of=us HTTP/1.1"
    assert receiver.requests[0].headers["content-type"] == "application/json"
    assert receiver.requests[0].body == BODY


async def test_receiver_that_knows_the_secret_can_verify_time_and_body(door: Door) -> None:
    async with receiving(deciding(ALLOW)) as receiver:
        await ask(door, receiver.url)

    header = receiver.requests[0].headers["x-suricate-signature"]
    match = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", header)
    assert match is not None
    signed = f"{match[1]}.".encode() + receiver.requests[0].body
    assert hmac.compare_digest(match[2], hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest())
    assert abs(int(match[1]) - clock.epoch_milliseconds() / 1000) < 60


def test_signature_changes_with_secret_time_and_body() -> None:
    made = {
        signature("a", b"x", at=1), signature("b", b"x", at=1), signature("a", b"y", at=1), signature("a", b"x", at=2),
    }  # fmt: skip

    assert len(made) == 4


@pytest.mark.parametrize("status", ["204 No Content", "302 Found", "307 Temporary Redirect", "401 No", "500 No", "503 No"])
async def test_any_status_but_200_is_a_fault_and_no_redirect_is_followed(door: Door, status: str) -> None:
    async with receiving(deciding(ALLOW)) as elsewhere:
        body = b"" if status.startswith("204") else b'{"decision":"allow"}'
        async with receiving(whole(body, status=status, headers=f"Location: {elsewhere.url}\r\n")) as receiver:
            with pytest.raises(HookFault, match=status[:3]):
                await ask(door, receiver.url)

    assert elsewhere.requests == []
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        whole(b"x" * (MAX_BODY_BYTES + 1)),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + b"x" * 0x8000 + b"\r\n" + b"8000\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + b'{"decision"',
        whole(b"\x1f\x8b", headers="Content-Encoding: gzip\r\n"),
        b"HTTP/1.1 200",
        b"",
        b"hello\r\n\r\n",
    ],
    ids=["too large", "chunks cut off", "cut off", "compressed", "half a head", "hung up", "no HTTP"],
)
async def test_an_answer_that_is_too_large_or_not_whole_is_a_fault(door: Door, answer: bytes) -> None:
    async with receiving(answer) as receiver:
        with pytest.raises(HookFault):
            await ask(door, receiver.url)


async def test_an_answer_without_end_is_given_up_at_the_limit(door: Door) -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY_BYTES + 1)

    async with receiving(endless, hangs=True) as receiver:
        with pytest.raises(HookFault, match="over the limit"):
            await ask(door, receiver.url)


async def test_an_answer_at_the_limit_is_taken(door: Door) -> None:
    async with receiving(whole(b"x" * MAX_BODY_BYTES)) as receiver:
        assert len(await ask(door, receiver.url)) == MAX_BODY_BYTES


async def test_nobody_there_is_a_fault_that_names_no_address(door: Door) -> None:
    async with receiving(b"") as gone:
        pass

    with pytest.raises(HookFault) as caught:
        await ask(door, gone.url)

    assert "127.0.0.1" not in str(caught.value)


async def test_a_name_that_no_resolver_takes_is_a_fault(door: Door) -> None:
    with pytest.raises(HookFault):
        await ask(door, f"http://{'a' * 64}.invalid/")


@pytest.mark.parametrize(
    "text",
    ["", "x", "/hook", "ftp://h/", "http://", "http:///x", "http://u@h/", "http://u:p@h/", "http://h/#a", "http://h\r\n/",
     "http://h:0/", "http://h:65536/", " http://h/", "file:///etc/passwd"],
)  # fmt: skip
def test_url_that_is_no_plain_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|URL"):
        url_of(text)
