"""The double itself: routes, the queue of scripts, and the control endpoint."""

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.provider_double import scripts, transcript
from tests.provider_double.connection import Answer, Connection, HttpRequest, Reply
from tests.provider_double.ledger import Ledger, Record
from tests.provider_double.player import Player
from tests.provider_double.wheel import Wheel

COMPLETIONS = "/v1/chat/completions"
CONTROL_WAIT_SECONDS = 10.0  # how long a question for something that has not happened yet stays open


@dataclass(frozen=True)
class Options:
    """How the double plays where no script says otherwise.

    Args:
        tokens, token_rate: the default answer: so many tokens at so many a second, 0 is full speed.
        stamped: whether the default answer's tokens are the time at which they left.
        events_per_chunk: events in one HTTP chunk at full speed; real servers send one.
        api_key: asked for as a bearer token; None takes any.
        records: how many requests are remembered in full.
    """

    tokens: int = 64
    token_rate: float = 0
    stamped: bool = False
    events_per_chunk: int = 1
    api_key: str | None = None
    records: int = 1000


class Double:
    """Answers requests with the first queued script that matches, else with the default."""

    def __init__(self, options: Options, wheel: Wheel) -> None:
        self._options = options
        self._wheel = wheel
        self._default = (
            scripts.tokens(options.tokens, rate=options.token_rate, stamped=options.stamped),
            scripts.finish(),
        )
        self._queue: list[tuple[str | None, scripts.Script]] = []
        self._ledger = Ledger(options.records)
        self._going_on = asyncio.Event()
        self._control: dict[tuple[str, str], Callable[[Reply, bytes], None]] = {
            ("POST", "/control/scripts"): self._take_scripts,
            ("POST", "/control/reset"): self._reset,
            ("POST", "/control/go-on"): self._go_on,
            ("GET", "/control/requests"): self._tell_requests,
        }

    async def answer(self, connection: Connection, request: HttpRequest) -> None:
        """Answer one request, whatever it is."""
        path = request.path.partition("?")[0]
        if (request.method, path) == ("POST", COMPLETIONS):
            await self._complete(connection, request)
        elif control := self._control.get((request.method, path)):
            control(Reply(connection), request.body)
        elif request.method == "GET" and path.startswith("/control/requests/"):
            await self._tell_one(Reply(connection), path)
        else:
            Reply(connection).whole(404, error("No such route."))

    async def _complete(self, connection: Connection, request: HttpRequest) -> None:
        loop = asyncio.get_running_loop()
        record = self._ledger.open(request.headers, connection.client_port, loop.time())
        self._ledger.changed()

        def begun() -> None:
            record.first_byte_at = loop.time()
            self._ledger.changed()

        try:
            await self._judge_and_play(Reply(connection, begun), record, request)
            record.ended_at = loop.time()
            self._ledger.counts.completed += 1
        except asyncio.CancelledError:
            record.closed_by_client_at = loop.time()
            self._ledger.counts.closed_by_client += 1
            raise
        finally:
            self._ledger.changed()

    async def _judge_and_play(self, reply: Reply, record: Record, request: HttpRequest) -> None:
        key = self._options.api_key
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            reply.whole(401, error("Incorrect API key."))
            return
        try:
            record.body = transcript.parse(request.body)
        except transcript.InvalidTranscriptError as refusal:
            record.rejected = str(refusal)
            self._ledger.counts.rejected += 1
            reply.whole(400, error(str(refusal)))
            return
        script = self.script_for(record)
        player = Player(reply, record, self._wheel, events_per_chunk=self._options.events_per_chunk, going_on=self._going_on)
        await player.play(script)

    def script_for(self, record: Record) -> scripts.Script:
        """Choose what a request gets."""
        prompt = transcript.last_user_text(record.body)
        for position, (match, script) in enumerate(self._queue):
            if match is None or match in prompt:
                del self._queue[position]
                return script
        return self._default

    def _take_scripts(self, reply: Reply, body: bytes) -> None:
        try:
            posted = json.loads(body)
            loaded = [(posted.get("match"), scripts.load(script)) for script in posted["scripts"]]
        except (ValueError, KeyError, TypeError) as problem:
            reply.whole(400, error(f"not a list of scripts: {problem!r}"))
            return
        self._queue.extend(loaded)
        reply.whole(200, b"{}")

    def _reset(self, reply: Reply, _body: bytes) -> None:
        self._queue.clear()
        self._ledger.reset()
        reply.whole(200, b"{}")

    def _go_on(self, reply: Reply, _body: bytes) -> None:
        self._going_on.set()
        self._going_on = asyncio.Event()
        reply.whole(200, b"{}")

    def _tell_requests(self, reply: Reply, _body: bytes) -> None:
        reply.whole(200, to_json(self._ledger.dump()))

    async def _tell_one(self, reply: Reply, path: str) -> None:
        """Answer `/control/requests/{number}/{received|started|ended}` when that has happened."""
        try:
            number, stage = path.removeprefix("/control/requests/").split("/")
            async with asyncio.timeout(CONTROL_WAIT_SECONDS):
                record = await self._ledger.wait(int(number), stage)
        except (ValueError, TimeoutError):
            reply.whole(504, error("That did not happen."))
        else:
            reply.whole(200, to_json(dataclasses.asdict(record)))


def error(message: str) -> bytes:
    """Write an error in the vendor's form."""
    return to_json({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})


def to_json(value: object) -> bytes:
    """Write JSON in ASCII, which takes what scripts may hold: lone surrogates and numbers of any size."""
    return json.dumps(value).encode()


async def serve(answer: Answer, port: int, until: Callable[[int], Awaitable[None]]) -> None:
    """Serve on loopback until `until`, which is told the port, returns."""
    async with asyncio.TaskGroup() as tasks:
        open_connections: set[Connection] = set()
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(answer, tasks, open_connections), "127.0.0.1", port, backlog=4096
        )
        await until(server.sockets[0].getsockname()[1])
        server.close()
        for connection in open_connections:
            connection.close(is_reset=True)


async def stdin_closes() -> None:
    """Return when the process that started this one has closed its stdin, or is gone."""
    closed = asyncio.Event()

    def look() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            closed.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), look)
    await closed.wait()
    loop.remove_reader(sys.stdin.fileno())
