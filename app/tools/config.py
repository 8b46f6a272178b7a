"""The file that names HTTP tools and MCP servers, and the registry that is opened from it.

{"http_tools": [{"name": "weather", "description": "…", "input_schema": {"type": "object"}, "url": "https://…"}],
 "mcp_servers": {"search": {"transport": "http", "url": "https://…"},
                 "files": {"transport": "stdio", "command": ["mcp-files", "/srv/files"]}}}
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from app import redaction
from app.errors import StartupError
from app.outbound.door import Door
from app.providers.base import ToolSpec
from app.tools.base import Tool
from app.tools.http import Endpoint, HttpTool
from app.tools.registry import SEPARATOR, Registry

if TYPE_CHECKING:
    from app.tools import mcp

log = structlog.get_logger()


def _name_apart(name: str) -> str:
    if SEPARATOR in name or name.startswith("_") or name.endswith("_"):
        raise ValueError("may not hold '__' nor begin or end with '_': that sets a server's name apart from its tool's")
    return name


def _object_schema(schema: dict[str, Any]) -> dict[str, Any]:
    import jsonschema

    if schema.get("type") != "object":
        raise ValueError("has to be the JSON Schema of an object")
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"is no JSON Schema: {error.message}") from error
    return schema


Seconds: TypeAlias = Annotated[float, Field(gt=0, le=3_600)]
ToolName: TypeAlias = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$"), AfterValidator(_name_apart)]
ServerName: TypeAlias = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,32}$"), AfterValidator(_name_apart)]
Schema: TypeAlias = Annotated[dict[str, Any], AfterValidator(_object_schema)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpToolConfig(_Part):
    """A tool behind an endpoint."""

    name: ToolName = Field(description="What the model calls it.")
    description: str = Field(min_length=1, max_length=4_096, description="What the model is told of it.")
    input_schema: Schema = Field(description="JSON Schema of its arguments, an object.")
    url: str = Field(description="Where calls are posted.")
    headers: dict[str, str] = Field(default_factory=dict, repr=False, description="Sent with every call; default none.")
    timeout_seconds: Seconds = Field(30, description="Longest call, in seconds.")
    is_idempotent: bool = Field(default=False, description="Whether a call may be made twice; after a crash it then is.")


class HttpServerConfig(_Part):
    """An MCP server over streamable HTTP."""

    transport: Literal["http"]
    url: str = Field(description="Its endpoint.")
    headers: dict[str, str] = Field(default_factory=dict, repr=False, description="Sent with every request; default none.")
    timeout_seconds: Seconds = Field(60, description="Longest call, in seconds.")
    connect_seconds: Seconds = Field(10, description="Longest opening of a connection, in seconds.")


class StdioServerConfig(_Part):
    """An MCP server that is a program of ours."""

    transport: Literal["stdio"]
    command: list[str] = Field(min_length=1, description="The program, then its arguments; no shell reads it.")
    environment: dict[str, str] = Field(
        default_factory=dict, repr=False, description="Added to PATH, HOME and the like; default nothing."
    )
    folder: Path | None = Field(None, description="Where it runs; default where the server does.")
    timeout_seconds: Seconds = Field(60, description="Longest call, in seconds.")
    connect_seconds: Seconds = Field(10, description="Longest start, in seconds.")


ServerConfig: TypeAlias = Annotated[HttpServerConfig | StdioServerConfig, Field(discriminator="transport")]


class ToolsConfig(_Part):
    """The whole file."""

    http_tools: list[HttpToolConfig] = Field(default_factory=list, description="Tools behind endpoints.")
    mcp_servers: dict[ServerName, ServerConfig] = Field(
        default_factory=dict, description="MCP servers by name; their tools are named `<server>__<tool>`."
    )

    @property
    def secrets(self) -> Iterator[str]:
        """What the redactor has to know of it: values of headers and of programs' variables, and the credentials in URLs."""
        for part in (*self.http_tools, *self.mcp_servers.values()):
            if isinstance(part, StdioServerConfig):
                yield from part.environment.values()
            else:
                yield from redaction.credentials_in(part.headers.values())
                yield from redaction.credentials_of(part.url)


def read(path: Path) -> ToolsConfig:
    """Read the file.

    Raises:
        StartupError: it cannot be read or is not valid; the message names each fault, and no value.
    """
    try:
        return ToolsConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StartupError(f"The tools file {str(path)!r} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in error.errors())
        raise StartupError(f"The tools file {str(path)!r} is not valid. {faults}") from error


@asynccontextmanager
async def opened(config: ToolsConfig, door: Door, builtins: Sequence[Tool]) -> AsyncIterator[Registry]:
    """Open what the file names, and give the registry of all tools; leaving the block ends connections and programs.

    Each MCP server is waited for once. One that cannot be reached stops nothing: it is tried again, and has no tools before.

    Raises:
        StartupError: two tools have one name.
    """
    servers = _servers(config.mcp_servers, door)
    registry = Registry([*builtins, *(_http_tool(tool, door) for tool in config.http_tools)], servers)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(server.run()) for server in servers]
        try:
            for server, is_open in zip(servers, await asyncio.gather(*(server.settled() for server in servers)), strict=True):
                if not is_open:
                    log.warning("mcp_server_unreachable", server=server.name)
            yield registry
        finally:
            for task in running:
                task.cancel()


def _http_tool(config: HttpToolConfig, door: Door) -> HttpTool:
    spec = ToolSpec(config.name, config.description, config.input_schema)
    endpoint = Endpoint(config.url, config.headers, config.timeout_seconds)
    return HttpTool(spec, endpoint, door, is_idempotent=config.is_idempotent)


def _servers(configs: Mapping[str, ServerConfig], door: Door) -> "Sequence[mcp.Server]":
    if not configs:
        return []
    from app.tools import mcp, stdio  # the SDK takes a second to import

    def place(config: ServerConfig) -> mcp.Place:
        match config:
            case HttpServerConfig():
                return mcp.Remote(config.url, config.headers)
            case StdioServerConfig():
                return stdio.Program(config.command, config.environment, config.folder)

    return [
        mcp.Server(name, place(config), door, timeout_seconds=config.timeout_seconds, connect_seconds=config.connect_seconds)
        for name, config in configs.items()
    ]
