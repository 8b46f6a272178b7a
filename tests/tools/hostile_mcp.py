"""An MCP server that says, before its first answers, whatever should not be said: run as a program, it speaks over stdio."""

import json
import sys
from typing import Any

from tests.hostile import NO_JSON, TEXTS, VALUES

NOISE: list[Any] = [
    {},
    {"jsonrpc": "1.0", "id": 1, "result": {}},
    {"jsonrpc": "2.0", "id": 987654321, "result": {"tools": []}},
    {"jsonrpc": "2.0", "id": "no such id", "error": {"code": -1, "message": "x" * 10_000}},
    {"jsonrpc": "2.0", "id": None, "error": {"code": "a", "message": None}},
    {"jsonrpc": "2.0", "id": {"a": 1}, "result": []},
    {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "loud", "data": VALUES["depth"]}},
    {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": [], "progress": "a"}},
    {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 987654321}},
    {"jsonrpc": "2.0", "method": "no/such/notification", "params": VALUES["keys of Python"]},
    {"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}},
    {"jsonrpc": "2.0", "id": 8, "method": "roots/list"},
    {"jsonrpc": "2.0", "id": 9, "method": "elicitation/create", "params": {"message": "Your key?", "requestedSchema": {}}},
    {"jsonrpc": "2.0", "id": 10, "method": "no/such/method"},
]
SCHEMAS: dict[str, Any] = {
    "of a wrong type": {"type": "object", "properties": {"a": {"type": "objekt"}}},
    "that is not valid": {"type": "object", "properties": {"a": {"required": 5}}},
    "that is too large": {"type": "object", "description": "x" * 40_000},
    "that refers away": {"type": "object", "$ref": "https://169.254.169.254/schema"},
}


WRONG: list[dict[str, Any]] = [
    {"result": None}, {"result": []}, {"result": {"content": 5}}, {"result": {"content": [{"type": "no such type"}]}},
    {"result": {"content": [{"type": "text", "text": "\ud800"}]}}, {"result": {"content": [{"type": "image", "data": 5}]}},
    {"result": {"content": [], "structuredContent": VALUES["texts as keys"], "isError": True}},
    {"error": {"code": 2**70, "message": "x" * 10_000}}, {"error": {"code": 0}}, {"error": None}, {},
]  # fmt: skip
"""What is no answer to a call, or hardly one."""


def main() -> None:
    """Answer what is asked, badly surrounded, until stdin closes."""
    surrounded = set[str]()
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        if "id" not in asked or "method" not in asked:
            continue
        if asked["method"] not in surrounded:
            surrounded.add(asked["method"])
            for data in [*NO_JSON.values(), *(json.dumps(noise).encode() for noise in NOISE)]:
                say(data.replace(b"\n", b"").replace(b"\r", b""))
        say(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **answer(asked["method"], asked.get("params") or {})}).encode())


def say(line: bytes) -> None:
    """Write a line."""
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Answer a request."""
    match method:
        case "initialize":
            info = {"name": TEXTS["an event of its own"], "version": TEXTS["markup"]}
            capabilities: dict[str, Any] = {"tools": {}}
            version = params["protocolVersion"]
            return {"result": {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}}
        case "tools/list":
            return {"result": {"tools": tools(), "nextCursor": "for ever and ever"}}
        case "tools/call":
            return called(params["name"])
        case _:
            return {"error": {"code": -32601, "message": TEXTS["an event of its own"] * 100}}


def tools() -> list[dict[str, Any]]:
    """List tools whose names are hostile, and some whose schemas are no schemas."""
    fine = {"type": "object", "properties": {text: {"type": "string"} for text in TEXTS.values()}}
    listed = [{"name": name, "description": text * 50, "inputSchema": fine} for name, text in TEXTS.items()]
    listed += [{"name": text, "inputSchema": {"type": "object"}} for text in TEXTS.values()]
    return listed + [{"name": name, "inputSchema": schema} for name, schema in SCHEMAS.items()]


def called(name: str) -> dict[str, Any]:
    """Answer a call: with the text of that name, or with something that is no answer."""
    if name in TEXTS:
        return {"result": {"content": [{"type": "text", "text": TEXTS[name]}]}}
    return WRONG[list(TEXTS.values()).index(name)]


if __name__ == "__main__":
    main()
