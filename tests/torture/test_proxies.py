"""Each way of breaking an edge bites, is counted, and is over once the edge is opened."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.torture import edges
from tests.torture.edges import Edges

pytestmark = pytest.mark.anyio

SILENCE_SECONDS = 0.2


@asynccontextmanager
async def _opened(tmp_path: Path) -> AsyncIterator[tuple[Edges, "Talk"]]:
    """Offer an edge to a server that says everything back, and a connection through it."""
    heard = asyncio.Queue[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                heard.put_nowait(line)
                writer.write(line)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, edges.running(tmp_path) as network:
        host, port = server.sockets[0].getsockname()
        address = await network.make("e", f"{host}:{port}")
        talk = Talk(heard, int(address.rpartition(":")[2]))
        await talk.connect()
        try:
            yield network, talk
        finally:
            talk.writer.close()


class Talk:
    """A connection through the edge, and what the server has heard."""

    def __init__(self, heard: "asyncio.Queue[bytes]", port: int) -> None:
        self.heard = heard
        self._port = port

    async def connect(self) -> None:
        """Connect, again if there was a connection."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def say(self, line: bytes) -> bytes:
        """Say a line and return what comes back."""
        self.writer.write(line)
        async with asyncio.timeout(5):
            return await self.reader.readline()


async def held(network: Edges, count: int) -> None:
    """Wait until an edge holds so many bytes."""
    async with asyncio.timeout(5):
        while await network.count("e") != {"held_bytes": count}:
            await asyncio.sleep(0.005)


async def test_an_open_edge_passes_everything(tmp_path: Path) -> None:
    async with _opened(tmp_path) as (_, talk):
        assert await talk.say(b"x" * 50_000 + b"\n") == b"x" * 50_000 + b"\n"


async def test_cut_resets_what_is_there_and_what_comes(tmp_path: Path) -> None:
    async with _opened(tmp_path) as (network, talk):
        await talk.say(b"one\n")
        await network.cut("e")

        with pytest.raises(ConnectionError):
            await talk.reader.readline()
        with pytest.raises(ConnectionError):
            await talk.connect()
            await talk.reader.readline()
        assert await network.open("e") == {"cut": 1, "refused": 1}
        await talk.connect()
        assert await talk.say(b"two\n") == b"two\n"


async def test_held_bytes_arrive_late(tmp_path: Path) -> None:
    async with _opened(tmp_path) as (network, talk):
        await talk.say(b"one\n")
        await network.hold("e")
        talk.writer.write(b"two\n")
        await held(network, 4)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(talk.reader.readline(), SILENCE_SECONDS)

        assert talk.heard.qsize() == 1
        assert await network.open("e") == {"held_bytes": 4}
        assert await talk.reader.readline() == b"two\n"


async def test_held_bytes_are_lost_with_their_connection(tmp_path: Path) -> None:
    async with _opened(tmp_path) as (network, talk):
        await talk.say(b"one\n")
        await network.hold("e")
        talk.writer.write(b"two\n")
        await held(network, 4)
        await network.open("e", is_late=False)

        with pytest.raises(ConnectionError):
            await talk.reader.readline()
        assert talk.heard.qsize() == 1


async def test_an_edge_deaf_in_one_way_passes_the_other(tmp_path: Path) -> None:
    async with _opened(tmp_path) as (network, talk):
        await talk.say(b"one\n")
        await network.hold("e", ["down"])
        talk.writer.write(b"two\n")
        async with asyncio.timeout(5):
            assert [await talk.heard.get(), await talk.heard.get()] == [b"one\n", b"two\n"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(talk.reader.readline(), SILENCE_SECONDS)

        await network.open("e")
        assert await talk.reader.readline() == b"two\n"


async def test_what_was_held_for_one_who_has_left_is_dropped(tmp_path: Path) -> None:
    async with _opened(tmp_path) as (network, talk):
        await talk.say(b"one\n")
        await network.hold("e", ["down"])
        talk.writer.write(b"two\n")
        async with asyncio.timeout(5):
            assert [await talk.heard.get(), await talk.heard.get()] == [b"one\n", b"two\n"]
        await held(network, 4)
        talk.writer.close()
        await talk.writer.wait_closed()
        assert await network.open("e") == {"held_bytes": 4}

        await talk.connect()
        assert await talk.say(b"three\n") == b"three\n"


async def test_a_slow_edge_takes_its_time_and_keeps_order(tmp_path: Path) -> None:
    async with _opened(tmp_path) as (network, talk):
        await talk.say(b"one\n")
        await network.slow("e", 0.1, 1_000)
        loop = asyncio.get_running_loop()
        began = loop.time()

        assert await talk.say(b"x" * 99 + b"\n") == b"x" * 99 + b"\n"
        assert loop.time() - began > 2 * (0.1 + 0.1) - 0.01
        assert await network.open("e") == {"slow_bytes": 200}
        assert await talk.say(b"two\n") == b"two\n"
