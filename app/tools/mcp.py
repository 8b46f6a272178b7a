"""MCP servers: each is a source of tools, named `<server>__<tool>`, over streamable HTTP or as a program of ours.

A connection is held by one task, `Server.run`, and used by any number of calls. When it is lost, calls in flight are told so
and never repeated, since nobody knows what was done; the next call, or a while, opens a new one. What servers say is not
trusted: names are made to fit, and descriptions, schemas, lists and bodies are bounded.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson
import structlog
from mcp import Client, MCPError, types
from mcp.client import IncomingMessage
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

from app import clock, redaction
from app.outbound.door import Door
from app.providers.base import ToolSpec
from app.tools import stdio
from app.tools.base import ToolError
from app.tools.registry import SEPARATOR

MOST_TOOLS: Final = 128
MOST_PAGES: Final = 16
MOST_NAME_CHARACTERS: Final = 64  # the strictest vendor's limit
MOST_DESCRIPTION_CHARACTERS: Final = 4_096
MOST_SCHEMA_BYTES: Final = 32 * 1024
MOST_ERROR_CHARACTERS: Final = 1_000
LEAST_PAUSE_SECONDS: Final = 0.5  # before a lost connection is opened again without being asked for
MOST_PAUSE_SECONDS: Final = 30.0
RELIST_SECONDS: Final = 60.0  # between two looks at a list; not every server says that it has changed
RELIST_LEAST_SECONDS: Final = 0.5  # between two looks at a list that is said to change
SESSION_GONE: Final = "Session terminated"  # the SDK's words for a 404 to a session that the server has forgotten

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Remote:
    """A server behind a URL.

    Args:
        headers: sent with every request, e.g. `Authorization`; never shown.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


Place: TypeAlias = Remote | stdio.Program


class McpTool:
    """One tool of a server, as it was listed last."""

    def __init__(self, server: "Server", remote_name: str, spec: ToolSpec, *, is_idempotent: bool) -> None:
        self._server = server
        self._remote_name = remote_name
        self._spec = spec
        self._is_idempotent = is_idempotent

    @property
    def spec(self) -> ToolSpec:
        """What the model is told."""
        return self._spec

    @property
    def is_idempotent(self) -> bool:
        """Whether the server says that a call changes nothing, or no more the second time."""
        return self._is_idempotent

    async def run(self, args: Mapping[str, Any]) -> str:
        """Call the tool and return its text.

        Raises:
            ToolError: the server cannot be reached, was lost, was too slow, or says that the call failed.
        """
        return await self._server.call(self._remote_name, args)


class _Connection:
    """An open connection and what is known of its state.

    Args:
        is_lost: nothing more can be asked over it.
        news: set when it is lost, or in doubt: its list may have changed, or it may be dead; listing again settles both.
    """

    def __init__(self) -> None:
        self.is_lost = False
        self.news = asyncio.Event()
        self.client: Client | None = None

    def lose(self) -> None:
        self.is_lost = True
        self.news.set()

    def doubt(self) -> None:
        self.news.set()

    async def hear(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.doubt()


class Server:
    """One configured server; `run` has to be running beside its calls.

    Args:
        timeout_seconds: longest call.
        connect_seconds: longest opening of a connection, listing included.
        relist_seconds: time after which the list is asked for again, which also finds out whether the server is alive.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        door: Door,
        *,
        timeout_seconds: float = 60.0,
        connect_seconds: float = 10.0,
        relist_seconds: float = RELIST_SECONDS,
    ) -> None:
        self._name = name
        self._place = place
        self._door = door
        self._timeout_seconds = timeout_seconds
        self._connect_seconds = connect_seconds
        self._relist_seconds = relist_seconds
        self._tools: Sequence[McpTool] = ()
        self._connection: _Connection | None = None
        self._wanted = asyncio.Event()
        self._attempt = asyncio.Event()

    @property
    def name(self) -> str:
        """What its tools' names begin with."""
        return self._name

    def tools(self) -> Sequence[McpTool]:
        """Return its tools as they were listed last; none before the first connection."""
        return self._tools

    async def run(self) -> None:
        """Hold a connection, and open it again when it is lost; ends only by being cancelled."""
        pause, task = LEAST_PAUSE_SECONDS, asyncio.current_task()
        while True:
            began = clock.monotonic()
            try:
                await self._hold()
            except Exception as error:  # whatever a server does, it costs no more than its connection
                if task is not None and task.cancelling():  # the SDK's groups drop a cancellation that comes as they fail
                    raise asyncio.CancelledError from error
                log.warning("mcp_server_failed", server=self._name, error=_cause(error))
            pause = (
                LEAST_PAUSE_SECONDS if clock.monotonic() - began > MOST_PAUSE_SECONDS else min(2 * pause, MOST_PAUSE_SECONDS)
            )
            await _set_within(self._wanted, pause)

    async def settled(self) -> bool:
        """Wait until a connection is open, or the next attempt to open one has failed; return whether one is open."""
        if not self._is_open:
            attempt = self._attempt
            self._wanted.set()
            await attempt.wait()
        return self._is_open

    async def call(self, remote_name: str, args: Mapping[str, Any]) -> str:
        """Call a tool by the server's own name for it.

        Raises:
            ToolError: as `McpTool.run`.
        """
        limit = asyncio.timeout(self._timeout_seconds)
        try:
            async with limit:
                return await self._called(remote_name, args)
        except TimeoutError as error:
            raise ToolError(f"The tool server {self._name!r} did not answer within {self._timeout_seconds:g} s.") from error
        except MCPError as error:
            raise ToolError(f"The tool server {self._name!r} refused the call: {_short(error.message)}") from error
        except (RuntimeError, ValueError, TypeError) as error:  # what the SDK raises for results that break a schema
            raise ToolError(f"The tool server {self._name!r} gave an answer that is not valid.") from error

    @property
    def _is_open(self) -> bool:
        return self._connection is not None and not self._connection.is_lost

    async def _called(self, remote_name: str, args: Mapping[str, Any]) -> str:
        try:
            return _text(await self._exchange(remote_name, args))
        except MCPError as error:
            if error.message != SESSION_GONE:
                raise
        return _text(await self._exchange(remote_name, args))  # a server that forgot the session did not carry the call out

    async def _exchange(self, remote_name: str, args: Mapping[str, Any]) -> types.CallToolResult:
        if not await self.settled():
            raise ToolError(f"The tool server {self._name!r} cannot be reached now.")
        connection = self._connection
        assert connection is not None
        assert connection.client is not None
        try:
            return await connection.client.call_tool(remote_name, dict(args))
        except asyncio.CancelledError:
            connection.doubt()
            raise
        except MCPError as error:
            if error.code == types.CONNECTION_CLOSED:
                connection.lose()
                raise ToolError(
                    f"The connection to the tool server {self._name!r} was lost; whether the call was carried out is unknown."
                ) from error
            if error.message == SESSION_GONE:
                connection.lose()
            raise

    async def _hold(self) -> None:
        connection = _Connection()
        async with AsyncExitStack() as stack:
            await self._open(connection, stack)
            try:
                await self._watch(connection)
            finally:
                connection.lose()

    async def _open(self, connection: _Connection, stack: AsyncExitStack) -> None:
        self._wanted.clear()
        try:
            async with asyncio.timeout(self._connect_seconds):
                client = Client(self._transport(connection), message_handler=connection.hear, cache=None)
                connection.client = await stack.enter_async_context(client)
                self._tools = await self._listed(client)
                self._connection = connection
        finally:
            attempt, self._attempt = self._attempt, asyncio.Event()
            attempt.set()
        log.info("mcp_server_connected", server=self._name, tools=len(self._tools))

    async def _watch(self, connection: _Connection) -> None:
        """Return when the connection is lost; list again now and then, and when it is in doubt."""
        assert connection.client is not None
        while not connection.is_lost:
            await _set_within(connection.news, self._relist_seconds)
            connection.news.clear()
            if connection.is_lost:
                return
            await asyncio.sleep(min(RELIST_LEAST_SECONDS, self._relist_seconds))
            async with asyncio.timeout(self._connect_seconds):
                self._tools = await self._listed(connection.client)

    @asynccontextmanager
    async def _transport(self, connection: _Connection) -> AsyncIterator[TransportStreams]:
        match self._place:
            case Remote(url, headers):
                silence = self._timeout_seconds + self._connect_seconds  # a call's own deadline comes first, and costs no more
                async with (
                    self._door.client(headers=headers, timeout_seconds=silence) as client,
                    streamable_http_client(url, http_client=client) as streams,
                ):
                    yield streams
            case stdio.Program() as program:
                async with stdio.started(program, on_end=connection.lose) as streams:
                    yield streams

    async def _listed(self, client: Client) -> Sequence[McpTool]:
        tools: dict[str, McpTool] = {}
        judged = set[str]()  # a schema's check takes its time, so that none is made twice, nor too many
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            for listed in page.tools:
                if listed.name in judged or len(judged) == MOST_TOOLS:
                    continue
                judged.add(listed.name)
                if tool := self._tool(listed):
                    tools.setdefault(tool.spec.name, tool)
            cursor = page.next_cursor
            if cursor is None:
                break
        return list(tools.values())

    def _tool(self, listed: types.Tool) -> McpTool | None:
        fault = _schema_fault(listed.input_schema)
        if fault is not None:
            log.warning("mcp_tool_left_out", server=self._name, tool=_short(listed.name), why=fault)
            return None
        description = (listed.description or "")[:MOST_DESCRIPTION_CHARACTERS]
        hints = listed.annotations
        return McpTool(
            self,
            listed.name,
            ToolSpec(tool_name(self._name, listed.name), description, listed.input_schema),
            is_idempotent=hints is not None and bool(hints.read_only_hint or hints.idempotent_hint),
        )


def tool_name(server: str, tool: str) -> str:
    """Return the name under which vendors accept a server's tool; one that was changed ends with a hash of the original."""
    name = f"{server}{SEPARATOR}{tool}"
    if len(name) <= MOST_NAME_CHARACTERS and re.fullmatch(r"[a-zA-Z0-9_-]+", tool):
        return name
    digest = hashlib.sha256(tool.encode("utf-8", "replace")).hexdigest()[:8]
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[: MOST_NAME_CHARACTERS - 9] + "_" + digest


def _schema_fault(schema: Mapping[str, Any]) -> str | None:
    import jsonschema

    try:
        if len(orjson.dumps(schema)) > MOST_SCHEMA_BYTES:
            return "its schema is too large"
        if schema.get("type") != "object":
            return "its schema is not that of an object"
        jsonschema.Draft202012Validator.check_schema(schema)
    except (orjson.JSONEncodeError, jsonschema.SchemaError, RecursionError):
        return "its schema is not valid"
    return None


def _text(result: types.CallToolResult) -> str:
    """Return a result as the model reads it.

    Raises:
        ToolError: the server says that the call failed.
    """
    text = "\n\n".join(_piece(block) for block in result.content)
    if not result.content and result.structured_content is not None:
        text = orjson.dumps(result.structured_content).decode()
    if result.is_error:
        raise ToolError(text or "The tool failed and did not say why.")
    return text


def _piece(block: types.ContentBlock) -> str:
    match block:
        case types.TextContent():
            return block.text
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            return resource.text
        case types.ResourceLink():
            return f"[a resource: {block.uri}]"
        case types.ImageContent() | types.AudioContent():
            return f"[left out: {block.mime_type}]"
        case _:
            return "[left out: a file]"


def _short(text: str) -> str:
    return redaction.redacted(text)[:MOST_ERROR_CHARACTERS]


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {_short(str(error))}"


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
