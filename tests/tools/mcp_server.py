"""A small MCP server made with the SDK: over stdio, or over streamable HTTP on a port of 127.0.0.1.

`python -m tests.tools.mcp_server stdio` or `python -m tests.tools.mcp_server http 0`, which says its port on stdout.
"""

import asyncio
import os
import socket
import subprocess
import sys

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ImageContent, TextContent, ToolAnnotations

server = MCPServer("double", log_level="CRITICAL")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return f"{a} + {b} = {a + b}"


@server.tool()
def fail(why: str) -> str:
    """Fail."""
    raise ToolError(why)


@server.tool()
def leak() -> str:
    """Fail with a variable of the program's own."""
    raise ToolError(f"Refused with {os.environ['CANARY']}.")  # noqa: TID251 - this program's own environment


@server.tool()
def blocks() -> CallToolResult:
    """Answer in several blocks."""
    image = ImageContent(type="image", data="AAAA", mime_type="image/png")
    return CallToolResult(content=[TextContent(type="text", text="one"), image, TextContent(type="text", text="two")])


@server.tool()
async def hang() -> str:
    """Answer never."""
    await asyncio.Event().wait()
    return ""


@server.tool()
def pid() -> str:
    """Tell the process's id."""
    return str(os.getpid())


@server.tool()
def die() -> str:
    """End the process without an answer."""
    os._exit(3)


@server.tool()
def big(size: int) -> str:
    """Answer with so many characters."""
    return "x" * size


@server.tool()
def spawn() -> str:
    """Start a process that holds stdout open and ignores everyone, and tell its id."""
    return str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)


@server.tool(name="odd.name/with a space")
def odd() -> str:
    """Have a name that no vendor takes."""
    return "odd"


@server.tool()
def grow() -> str:
    """Add a tool."""
    server.add_tool(lambda: "grown", name="grown", description="Was not there before.")
    return "done"


def main() -> None:
    """Serve until stdin closes, or until ended."""
    if sys.argv[1] == "stdio":
        server.run("stdio")
        return
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[2])))
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(server.streamable_http_app(), log_level="error", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
