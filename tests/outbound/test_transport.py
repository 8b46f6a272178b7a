"""HTTP/1.1 as the transport speaks it, against the double and against a server that says exactly what a test wants."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from app.outbound.transport import HIGH_WATER_BYTES, MAX_HEAD_BYTES, Transport
from tests.provider_double import scripts as play
from tests.provider_double.client import ProviderDouble

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 5.0


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A transport of its own for each test."""
    async with Transport() as opened:
        yield opened


@asynccontextmanager
async def saying(answer: bytes, *, hangs_up: bool = True, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers every request with these bytes; yields its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline() not in {b"\r\n", b""}:
            pass
        writer.write(answer)
        with suppress(ConnectionResetError):
            await (writer.drain() if hangs_up else reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"{'https' if tls else 'http'}://localhost:{port}/"


async def get(transport: Transport, url: str) -> tuple[int, bytes]:
    async with asyncio.timeout(LIMIT_SECONDS):
        response = await transport.handle_async_request(httpx2.Request("GET", url))
        return response.status_code, await response.aread()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, b"hi")),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\nx: y\r\n\r\n", (200, b"hi")),
        (b"HTTP/1.1 200 OK\r\n\r\nhi", (200, b"hi")),
        (b"HTTP/1.0 200 OK\r\n\r\nhi", (200, b"hi")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhi", (200, b"hi")),
    ],
    ids=["length", "chunks and trailers", "until the end", "HTTP/1.0", "no content", "interim responses"],
)
async def test_each_framing_gives_the_whole_body(transport: Transport, answer: bytes, expected: tuple[int, bytes]) -> None:
    async with saying(answer) as url:
        assert await get(transport, url) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_HEAD_BYTES + 1) + b"\r\n\r\n",
    ],
    ids=["nothing", "half a head", "not HTTP", "upgrade", "too short", "no last chunk", "no chunk size", "huge head"],
)
async def test_broken_response_is_a_transport_error(transport: Transport, answer: bytes) -> None:
    async with saying(answer) as url:
        with pytest.raises(httpx2.TransportError):
            await get(transport, url)


async def test_endless_head_is_refused_at_its_limit(transport: Transport) -> None:
    async with saying(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * MAX_HEAD_BYTES, hangs_up=False) as url:
        with pytest.raises(httpx2.RemoteProtocolError):
            await get(transport, url)


async def test_connection_with_an_answer_too_many_is_not_used_again(transport: Transport) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    async with saying(answer + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", hangs_up=False) as url:
        answers = [await get(transport, url), await get(transport, url)]

    assert answers == [(200, b"hi")] * 2


async def test_server_that_hung_up_while_idle_is_asked_over_a_new_connection(
    transport: Transport, double: ProviderDouble
) -> None:
    async with saying(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi") as url:
        first = await get(transport, url)
        async with asyncio.timeout(LIMIT_SECONDS):
            while transport._open:
                await asyncio.sleep(0)
        second = await get(transport, url)

    assert first == second == (200, b"hi")


async def test_body_that_is_not_read_stops_being_received(transport: Transport, double: ProviderDouble) -> None:
    await double.play([play.endless()])
    request = httpx2.Request("POST", f"{double.base_url}/chat/completions", content=COMPLETION)
    response = await transport.handle_async_request(request)
    [connection] = transport._open

    async with asyncio.timeout(LIMIT_SECONDS):
        while not connection._is_paused:
            await asyncio.sleep(0)
        body = aiter(response.stream)  # type: ignore[arg-type] # it is the transport's own, so an async one
        piece, after = await anext(body), await anext(body)
    await response.aclose()

    assert HIGH_WATER_BYTES < len(piece) < 2 * HIGH_WATER_BYTES
    assert after


COMPLETION = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}'


async def test_closing_the_transport_fails_what_is_open(transport: Transport, double: ProviderDouble) -> None:
    await double.play([play.head(), play.hang()])
    request = httpx2.Request("POST", f"{double.base_url}/chat/completions", content=COMPLETION)
    response = await transport.handle_async_request(request)

    await transport.aclose()

    with pytest.raises(httpx2.ReadError):
        await response.aread()


async def test_header_with_a_line_end_is_not_sent(transport: Transport) -> None:
    request = httpx2.Request("GET", "http://localhost:9/", headers={"x": "a\r\ny: b"})

    with pytest.raises(httpx2.LocalProtocolError):
        await transport.handle_async_request(request)


async def test_connect_deadline_is_a_connect_timeout(transport: Transport) -> None:
    request = httpx2.Request("GET", "http://localhost:9/", extensions={"timeout": {"connect": 0}})

    with pytest.raises(httpx2.ConnectTimeout):
        await transport.handle_async_request(request)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost that nobody has signed, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("the certificate is made with openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


async def test_https_is_spoken_with_those_who_are_trusted_only(transport: Transport, certificate: tuple[Path, Path]) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    trusting = Transport(ssl.create_default_context(cafile=str(certificate[0])))

    async with saying(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", tls=server) as url, trusting:
        answer = await get(trusting, url)
        with pytest.raises(httpx2.ConnectError):
            await get(transport, url)

    assert answer == (200, b"hi")
