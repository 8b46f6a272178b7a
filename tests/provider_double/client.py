"""The double from a test's side: start it, tell it what to play, ask what it was sent.

with ProviderDouble() as double:
    await double.play([words("Hello there."), finish()], match="greet")
    ...
    assert (await double.counts()).rejected == 0
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.provider_double.ledger import Counts, Record
from tests.provider_double.scripts import Script, dump

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 5.0


class ProviderDouble:
    """A double in a process of its own, on a free port; it ends with the block, or with this process.

    Args:
        options: the command line's, e.g. `tokens=512, token_rate=50`.
    """

    def __init__(self, **options: str | float | bool) -> None:
        self._options = options
        self.base_url = ""

    def start(self) -> None:
        """Start the process and wait for its port."""
        command = [sys.executable, "-m", "tests.provider_double", "--until-stdin-closes", *self._flags()]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()
        assert self.base_url, "the provider double did not start; its stderr says why"
        address = urlsplit(self.base_url)
        self._host, self._port = address.hostname, address.port

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """The process, for those who measure it."""
        return self._process.pid

    async def play(self, *scripts: Script, match: str | None = None) -> None:
        """Queue scripts, one per request; with `match` only for requests whose last user message holds that text."""
        await self._call("POST", "/control/scripts", {"scripts": [dump(script) for script in scripts], "match": match})

    async def requests(self) -> list[Record]:
        """Return what was asked since the last reset, oldest first."""
        return [Record(**record) for record in (await self._call("GET", "/control/requests"))["requests"]]

    async def counts(self) -> Counts:
        """Return how many requests came, were rejected, completed or given up by the client."""
        return Counts(**(await self._call("GET", "/control/requests"))["counts"])

    async def received(self, number: int) -> Record:
        """Wait until the request with this number (from 1) has come."""
        return Record(**await self._call("GET", f"/control/requests/{number}/received"))

    async def started(self, number: int) -> Record:
        """Wait until the first byte of its answer has been written."""
        return Record(**await self._call("GET", f"/control/requests/{number}/started"))

    async def ended(self, number: int) -> Record:
        """Wait until it was answered in full, or the client went away."""
        return Record(**await self._call("GET", f"/control/requests/{number}/ended"))

    async def go_on(self) -> None:
        """Let all answers that hang now go on with what comes after it in their scripts."""
        await self._call("POST", "/control/go-on", {})

    async def reset(self) -> None:
        """Forget scripts and requests; numbers start at 1 again."""
        await self._call("POST", "/control/reset", {})

    def _flags(self) -> list[str]:
        flags: list[str] = []
        for name, value in self._options.items():
            flag = "--" + name.replace("_", "-")
            flags += ([flag] if value else []) if isinstance(value, bool) else [flag, str(value)]
        return flags

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            payload = b"" if body is None else json.dumps(body).encode()
            head = f"{method} {path} HTTP/1.1\r\nhost: double\r\ncontent-length: {len(payload)}\r\n\r\n"
            writer.write(head.encode() + payload)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            content = json.loads(await reader.readexactly(length))
        finally:
            writer.close()
            await writer.wait_closed()
        assert b" 200 " in answer.splitlines()[0], f"{method} {path}: {content}"
        return content

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.__exit__(kind, error, at)
