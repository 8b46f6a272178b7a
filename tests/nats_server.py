"""A NATS server as a process of its own: the one on PATH, or else Debian's, unpacked beside the virtual environment."""

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

UNPACKED = Path(__file__).resolve().parents[1] / ".venv" / "nats-server"
FETCH_SECONDS = 40
START_SECONDS = 10


@dataclass
class NatsServer:
    """A server on a free port of the loopback, which it keeps when it is started again."""

    program: str
    options: tuple[str, ...] = ()
    port: int = -1
    process: asyncio.subprocess.Process = field(init=False)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it takes clients."""
        command = [self.program, "--addr", "127.0.0.1", "--port", str(self.port), *self.options]
        self.process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        assert self.process.stderr is not None
        said = b""
        async with asyncio.timeout(START_SECONDS):
            while b"Server is ready" not in said:
                line = await self.process.stderr.readline()
                assert line, f"the NATS server has ended: {said.decode()}"
                said += line
        match = re.search(rb"client connections on 127\.0\.0\.1:(\d+)", said)
        assert match is not None
        self.port = int(match[1])

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


@asynccontextmanager
async def running(program: str, *options: str) -> AsyncIterator[NatsServer]:
    """Run a server for the length of the block."""
    server = NatsServer(program, options)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def found() -> str:
    """Find the server's program; fetch it once where there is none.

    Raises:
        FileNotFoundError: there is none on PATH, and Debian's package cannot be had.
    """
    installed, unpacked = shutil.which("nats-server"), UNPACKED / "usr" / "sbin" / "nats-server"
    if installed is None and not unpacked.exists():
        try:
            _fetch()
        except (OSError, subprocess.SubprocessError) as error:
            raise FileNotFoundError(f"no nats-server on PATH, and Debian's package cannot be fetched: {error}") from error
    return installed or str(unpacked)


def _fetch() -> None:
    UNPACKED.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=UNPACKED.parent) as folder:
        subprocess.run(
            ["apt-get", "download", "nats-server"], cwd=folder, check=True, capture_output=True, timeout=FETCH_SECONDS
        )
        [package] = Path(folder).glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, f"{folder}/tree"], check=True, timeout=FETCH_SECONDS)
        with suppress(OSError):  # another process may have been quicker
            Path(folder, "tree").rename(UNPACKED)
