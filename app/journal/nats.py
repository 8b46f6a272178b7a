"""Wake-ups over NATS: one subject, nothing kept. For fleets that find NOTIFY too dear.

Its library is an extra, so only who uses this module imports it. Two of the library's services are not used: reconnecting,
since meanwhile it takes what is published and says nothing, and pings, since an answer that nobody waits for any more ends the
library's reading. The sign of life is our own payload come back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import unquote

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, SecureConnWantedError

from app import ids
from app.db.engine import EVERY_REALM, Database
from app.journal.wakeups import Send

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 1.0

_SUBJECT = """
SELECT format('suricate.wakeups.%s.%s', system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()))
FROM pg_control_system()"""
"""A subject is of one database, so that several deployments can share a NATS."""


class Nats:
    """Carries wake-ups over a NATS server or cluster.

    Args:
        url: `nats://` or `tls://`; may bear `user:password@` or `token@`, and several hosts with commas between them.
    """

    name = "nats"
    is_needed = False  # all nodes share it: if it took them out of traffic, all would go at once, and they are only slower

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        scheme, _, rest = url.rstrip("/").partition("://")
        credentials, _, hosts = rest.rpartition("@")
        user, has_password, password = map(unquote, credentials.partition(":"))
        self._options: dict[str, Any] = {"user": user, "password": password} if has_password else {"token": user or None}
        self._options["servers"] = [f"{scheme}://{host}" for host in hosts.split(",")]
        self._client = _Encrypted if scheme == "tls" else Client

    @asynccontextmanager
    async def connected(self, on_payload: Callable[[str], None]) -> AsyncIterator[Send]:
        """Subscribe, and give what publishes.

        Raises:
            ConnectionError: no server could be reached, or one refused us.
            StoreUnavailable: the database, which tells the subject, could not be reached.
        """
        async with self._database.transaction(EVERY_REALM) as db:
            subject = await db.fetchval(_SUBJECT)
        line = _Line(self._client(), subject, on_payload)
        try:
            await line.open(self._options)
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError  # the library connects inside `wait_for`, which can lose it before Python 3.12
            yield line.send
        finally:
            await line.close()


class _Line:
    """One connection, used until its first fault."""

    def __init__(self, client: Client, subject: str, on_payload: Callable[[str], None]) -> None:
        self.client = client
        self.fault = ""
        self._subject = subject
        self._on_payload = on_payload
        self._awaited = ""
        self._is_settled = asyncio.Event()

    async def open(self, options: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self.client.connect(
                    **options, name="suricate", error_cb=self._note, allow_reconnect=False,
                    max_reconnect_attempts=1, reconnect_time_wait=0,
                )  # fmt: skip
                self.fault = ""  # another server may have been tried first
                await self.client.subscribe(self._subject, cb=self._hear)
                await self.send([ids.node_id()])  # what comes back proves that the subscription holds
        except Exception as error:  # a server that is none makes the library stumble in many ways
            raise ConnectionError(self.fault or str(error) or type(error).__name__) from error

    async def send(self, payloads: Sequence[str]) -> None:
        self._awaited = payloads[-1]
        self._is_settled.clear()
        try:
            for payload in payloads:
                await self.client.publish(self._subject, payload.encode())
        except Error as error:
            raise ConnectionError(self.fault or str(error)) from error
        await self._is_settled.wait()
        if self.fault:
            raise ConnectionError(self.fault)

    async def close(self) -> None:
        with suppress(OSError, Error):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.client.close()

    async def _hear(self, message: Msg) -> None:
        payload = message.data.decode(errors="replace")
        if payload == self._awaited:
            self._is_settled.set()
        self._on_payload(payload)

    async def _note(self, error: Exception) -> None:
        self.fault = str(error) or type(error).__name__
        self._is_settled.set()


class _Encrypted(Client):
    """A client that tells a server without TLS nothing; the library's own would go on in the clear, with its password."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and not info.get("tls_required"):
            raise SecureConnWantedError
        await super()._process_info(info, initial_connection)
