"""The one way out, against an endpoint on loopback."""

import gzip
import ipaddress
import ssl
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app import clock
from app.outbound.addresses import EVERYWHERE, Address, Inside
from app.outbound.door import Answer, Door, OutboundError, Policy
from tests.tools.endpoint import Endpoint, answer, listening

pytestmark = pytest.mark.anyio

LOOPBACK = Policy(Inside.parse(["127.0.0.0/8"]), allows_http=True)


class Names:
    """A resolver that gives these answers in turn, and finds nothing after them."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        if not self.answers:
            raise OSError(host, port)
        return [ipaddress.ip_address(text) for text in self.answers.pop(0)]


async def ask(url: str, policy: Policy = LOOPBACK, *, content: bytes = b"{}", seconds: float = 10) -> Answer:
    """Post under a policy."""
    return await Door(policy).request("POST", url, content=content, headers={"x-key": "k"}, timeout_seconds=seconds)


async def test_answer_is_given_whole_whatever_its_status() -> None:
    async with listening(Endpoint(answer(b"no \xff", status=418, kind="Text/Plain; charset=utf-8"))) as endpoint:
        given = await ask(endpoint.url(), content=b"body")

    assert given == Answer(418, "text/plain", b"no \xff")
    assert given.text == "no \ufffd"
    assert endpoint.bodies == [b"body"]
    assert "x-key: k\r\n" in endpoint.heads[0]
    assert f"host: 127.0.0.1:{endpoint.port}\r\n" in endpoint.heads[0].lower()


async def test_name_stays_in_the_host_header_while_the_connection_goes_to_its_checked_address() -> None:
    async with listening(Endpoint()) as endpoint:
        given = await ask(endpoint.url("localhost"), Policy(Inside.parse(["localhost"]), allows_http=True))

    assert given.status == 200
    assert f"host: localhost:{endpoint.port}\r\n" in endpoint.heads[0].lower()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"]
)
async def test_inside_address_is_refused_in_every_spelling_and_nothing_is_sent(host: str) -> None:
    async with listening(Endpoint()) as endpoint:
        with pytest.raises(OutboundError) as caught:
            await ask(endpoint.url(host), Policy(allows_http=True))

    assert endpoint.heads == []
    assert "127" not in str(caught.value)


async def test_name_with_one_inside_address_among_public_ones_is_refused() -> None:
    door = Door(Policy(), resolver=Names(["1.1.1.1", "10.0.0.1"]))

    with pytest.raises(OutboundError, match="may not be reached"):
        await door.check("https://mixed.example/")


async def test_name_that_moves_inside_after_its_check_is_not_looked_up_again() -> None:
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    async with listening(Endpoint()) as endpoint:
        door = Door(LOOPBACK, resolver=names)
        given = await door.request("GET", endpoint.url("moving.example"), headers={}, timeout_seconds=5)

    assert given.status == 200
    assert names.answers == [["10.0.0.1"]]


async def test_next_address_is_tried_where_one_cannot_be_connected_to() -> None:
    async with listening(Endpoint()) as endpoint:
        door = Door(LOOPBACK, resolver=Names(["127.0.0.2", "127.0.0.1"]))
        given = await door.request("POST", endpoint.url("two.example"), content=b"x", headers={}, timeout_seconds=5)

    assert given.status == 200
    assert endpoint.bodies == [b"x"]


async def test_check_accepts_a_public_address_without_calling_it() -> None:
    await Door(Policy(), resolver=Names(["1.1.1.1", "2606:4700:4700::1111"])).check("https://public.example/hook")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.com/", "https://"),
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("example.com", "https://"),
        ("https://", "host"),
        ("https://user:secret@example.com/", "user or password"),
        ("https://exa\0mple.com/", "valid URL"),
        ("https://[", "not found"),
        ("https://no.such.host/", "not found"),
    ],
)
async def test_address_of_a_wrong_form_is_refused(url: str, words: str) -> None:
    with pytest.raises(OutboundError, match=words):
        await Door(Policy(), resolver=Names()).request("GET", url, headers={}, timeout_seconds=5)


async def test_redirect_is_an_answer_and_is_not_followed() -> None:
    async with listening(Endpoint(answer(status=307, head="location: http://127.0.0.1:1/\r\n"))) as endpoint:
        given = await ask(endpoint.url())

    assert given.status == 307
    assert len(endpoint.heads) == 1


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with listening(Endpoint()) as endpoint:
        direct = await ask(endpoint.url())
        async with Door(LOOPBACK).client(headers={}, timeout_seconds=5) as client:
            through_client = await client.get(endpoint.url())

    assert (direct.status, through_client.status_code) == (200, 200)


async def test_body_over_the_limit_is_not_sent() -> None:
    async with listening(Endpoint()) as endpoint:
        policy = Policy(LOOPBACK.inside, allows_http=True, max_request_bytes=10)
        with pytest.raises(OutboundError, match="limit of 10 bytes"):
            await ask(endpoint.url(), policy, content=b"x" * 11)

    assert endpoint.heads == []


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint(answer(b"x" * 2_000)),
        Endpoint(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1_000, repeats=2),
        Endpoint(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"3e8\r\n" + b"x" * 1_000 + b"\r\n", repeats=100_000
        ),
    ],
    ids=["announced", "until the end", "chunked without end"],
)
async def test_answer_over_the_limit_is_cut_off(endpoint: Endpoint) -> None:
    async with listening(endpoint):
        policy = Policy(LOOPBACK.inside, allows_http=True, max_response_bytes=1_999)
        with pytest.raises(OutboundError, match="limit of 1999 bytes"):
            await ask(endpoint.url(), policy)


async def test_compressed_answer_is_refused() -> None:
    bomb = answer(gzip.compress(b"\0" * 10_000_000), head="content-encoding: gzip\r\n")
    async with listening(Endpoint(bomb)) as endpoint:
        with pytest.raises(OutboundError, match="compressed"):
            await ask(endpoint.url())


async def test_document_is_the_body_of_a_200_within_its_limit() -> None:
    door = Door(LOOPBACK)
    async with listening(Endpoint(answer(b"x" * 100))) as endpoint:
        taken = await door.get(endpoint.url(), limit_bytes=100, seconds=5)
        with pytest.raises(OutboundError, match="limit of 99 bytes"):
            await door.get(endpoint.url(), limit_bytes=99, seconds=5)
    async with listening(Endpoint(answer(b"x", status=404))) as endpoint:
        with pytest.raises(OutboundError, match="404, not 200"):
            await door.get(endpoint.url(), limit_bytes=100, seconds=5)

    assert taken == b"x" * 100


@pytest.mark.parametrize("reply", [None, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"], ids=["no head", "half a body"])
async def test_client_gives_up_where_nothing_comes(reply: bytes | None) -> None:
    async with (
        listening(Endpoint(reply, hangs=True)) as endpoint,
        Door(LOOPBACK).client(headers={}, timeout_seconds=0.1) as client,
    ):
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(endpoint.url())


async def test_everything_is_let_in_where_the_operator_alone_has_written_it() -> None:
    async with listening(Endpoint()) as endpoint:
        given = await ask(endpoint.url("0x7f.1"), Policy(EVERYWHERE, allows_http=True))

    assert given.status == 200


async def test_silent_endpoint_is_given_up_at_the_deadline_and_hung_up_on() -> None:
    async with listening(Endpoint(None)) as endpoint:
        with pytest.raises(OutboundError, match=r"within 1 s"):
            await ask(endpoint.url(), seconds=1)
        await endpoint.hung_up.wait()


async def test_answer_that_breaks_off_is_an_error() -> None:
    async with listening(Endpoint(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")) as endpoint:
        with pytest.raises(OutboundError, match="before the answer was complete"):
            await ask(endpoint.url())


async def test_endpoint_that_is_down_is_an_error_without_its_address() -> None:
    async with listening(Endpoint()) as endpoint:
        url = endpoint.url()

    with pytest.raises(OutboundError, match=r"^No connection could be made\.$"):
        await ask(url)


async def test_certificate_is_checked_against_the_name_not_the_address(tmp_path: Path) -> None:
    server, client = _contexts(tmp_path, "localhost")
    door = Door(Policy(Inside.parse(["127.0.0.0/8", "localhost"])), ssl_context=client)
    async with listening(Endpoint(), tls=server) as endpoint:
        by_name = await door.request("GET", endpoint.url("localhost", scheme="https"), headers={}, timeout_seconds=5)
        with pytest.raises(OutboundError, match="No connection"):
            await door.request("GET", endpoint.url(scheme="https"), headers={}, timeout_seconds=5)

    assert by_name.status == 200
    await door.aclose()


def _contexts(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = clock.now()
    certificate = (
        x509
        .CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = folder / "cert.pem"
    chain.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    return server, ssl.create_default_context(cafile=str(chain))
