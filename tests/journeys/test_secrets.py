"""Every setting of a server holds a canary, and its vendors, tools, hooks and collector throw it back: none is told."""

import asyncio
import base64
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from app.redaction import MARK
from tests.hooks.receiver import Received, deciding, receiving, whole
from tests.service import ROOT, Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SETTINGS = (
    "database", "nats", "hooks", "hook", "anthropic", "openai", "gemini", "compatible", "anthropic-url", "openai-url",
    "gemini-url", "compatible-url", "otlp", "otlp-traces", "http-tool", "http-tool-other", "mcp-header", "mcp-url",
    "mcp-variable",
)  # fmt: skip
CANARIES = {name: f"canary/of+{name}=0123" for name in SETTINGS}
VENDORS = {"anthropic": "claude-x", "openai": "gpt-x", "gemini": "gemini-x", "openai_compatible": "some-model"}
FAULTS = ("401", "400", "event")
PAGES = (
    "/metrics", "/openapi.json", "/docs", "/livez", "/readyz", "/v1/capabilities", "/v1/models", "/v1/nodes", "/v1/nothing",
    "/v1/realm/config", "/v1/usage?group_by=provider,model", "/v1/usage?from=x", "/v1/sessions?limit=200", "/v1/sessions/x",
)  # fmt: skip


@dataclass
class Echo:
    """Vendors, a tool and a collector in one: each answers with what it was sent as its credentials."""

    port: int = 0
    seen: set[str] = field(default_factory=set)
    spans: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and hang up."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(length[1]) if length else 0)
        self.seen |= {name for name, canary in CANARIES.items() if canary in head or quote(canary, safe="") in head}
        if head.startswith("POST /collector"):
            self.spans.append(body)
        asked = re.search(rb"fault-(\w+)", body)
        writer.write(_thrown_back(head, asked[1].decode() if asked else "400"))
        writer.close()


def _thrown_back(head: str, fault: str) -> bytes:
    said = json.dumps({"type": "error", "error": {"type": "api_error", "code": 400, "message": head}, "message": head})
    if fault == "event":
        return whole(f"event: error\ndata: {said}\n\n".encode(), headers="Content-Type: text/event-stream\r\n")
    credential = re.search(r"^authorization: (.*?)\r$", head, re.IGNORECASE | re.MULTILINE)
    phrase = credential[1] if credential else "No"
    return whole(said.encode(), status=f"{fault} {phrase}", headers="Content-Type: application/json\r\n")


@asynccontextmanager
async def echoing() -> AsyncIterator[Echo]:
    """Run it for the length of the block."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    async with server:
        yield echo


def decided(received: Received) -> bytes:
    """Deny with the secret, fail with it, or allow."""
    payload = received.payload
    if payload["hook_id"] in {"failing", "beside"}:
        return whole(f"{CANARIES['hooks']}".encode(), status="500 No")
    if "deny" in str(payload.get("prompt")) or payload.get("name") == "datetime":
        return deciding({"decision": "deny", "reason": f"Not with {CANARIES['hook']} and {CANARIES['hooks']}."})
    return deciding({"decision": "allow"})


def settings(echo: Echo, hook_url: str, database_url: str, folder: Path) -> dict[str, str]:
    """Put a canary wherever a setting can hold one."""
    env, base = {}, f"127.0.0.1:{echo.port}"
    for name in ("anthropic", "openai", "gemini", "compatible"):
        prefix = "SURICATE_OPENAI_COMPATIBLE" if name == "compatible" else name.upper()
        env[f"{prefix}_API_KEY"] = CANARIES[name]
        env[f"{prefix}_BASE_URL"] = f"http://user:{quote(CANARIES[f'{name}-url'], safe='')}@{base}/{name}"
    tools = folder / "tools.json"
    tools.write_bytes(orjson.dumps(_tools(base)))
    hook = {"url": hook_url, "secret": CANARIES["hook"], "capability": "guardrail"}
    hooks = [
        hook | {"id": "denying", "points": ["turn_started", "pre_tool_execution"]},
        {"id": "failing", "url": hook_url, "capability": "observe", "points": ["turn_completed"]},
        {"id": "beside", "url": hook_url, "capability": "observe", "mode": "background", "points": ["turn_failed"]},
    ]
    return env | {
        "SURICATE_DATABASE_URL": f"{database_url}&password={quote(CANARIES['database'], safe='')}",
        "SURICATE_NATS_URL": f"nats://user:{quote(CANARIES['nats'], safe='')}@127.0.0.1:1",
        "SURICATE_HOOKS": orjson.dumps({"secret": CANARIES["hooks"], "hooks": hooks}).decode(),
        "SURICATE_TOOLS_FILE": str(tools),
        "SURICATE_OUTBOUND_HTTP": "true",
        "SURICATE_OUTBOUND_INSIDE": '["127.0.0.1"]',
        "SURICATE_OTLP": "true",
        "SURICATE_LOG_LEVEL": "debug",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{base}/collector",
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-unused={quote(CANARIES['otlp'], safe='')}",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"authorization=Bearer%20{quote(CANARIES['otlp-traces'], safe='')}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


def _tools(base: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {CANARIES['http-tool']}", "X-Other": CANARIES["http-tool-other"]}
    tool = {"name": "leak", "description": "Leaks.", "input_schema": {"type": "object"}, "url": f"http://{base}/tool"}
    away = {
        "transport": "http",
        "url": f"http://{base}/mcp?api_key={quote(CANARIES['mcp-url'], safe='')}",
        "connect_seconds": 2,
    }
    environment = {"PYTHONPATH": str(ROOT), "CANARY": CANARIES["mcp-variable"]}
    program = {
        "transport": "stdio", "command": [sys.executable, "-m", "tests.tools.mcp_server", "stdio"], "environment": environment
    }  # fmt: skip
    servers = {"away": away | {"headers": {"X-Key": CANARIES["mcp-header"]}}, "program": program}
    return {"http_tools": [tool | {"headers": headers}], "mcp_servers": servers}


@dataclass
class Said:
    """All that came out of a server."""

    service: Service
    texts: dict[str, str] = field(default_factory=dict)

    async def turn(self, name: str, prompt: str, **fields: Any) -> dict[str, Any]:
        """Run a turn in a session of its own, and keep all that is to be read of it."""
        client = self.service.client
        created = await self.service.create(prompt, **fields)
        view = await self.service.ended(created["session_id"], created["turn"]["turn_id"])
        path = f"/v1/sessions/{created['session_id']}"
        stream = await client.get(f"{path}/events?follow=false", headers={"Accept": "text/event-stream"})
        parts = [(await client.get(f"{path}{part}")).text for part in ("", "/turns", "/messages", "/export")]
        self.texts[name] = "\n".join([json.dumps(created), json.dumps(view), stream.text, *parts])
        return view

    async def page(self, path: str, **request: Any) -> None:
        """Keep a page."""
        self.texts[path] = (await self.service.client.get(path, **request)).text

    async def keys(self) -> list[str]:
        """Make a key, and a ticket with it; present them well and badly, and keep what comes of it."""
        client = self.service.client
        made = await client.post("/v1/keys", json={"name": "k", "scopes": ["admin"]})
        key: str = made.json()["key"]
        client.headers["Authorization"] = f"Bearer {key}"
        session_id = (await client.get("/v1/sessions?limit=1")).json()["sessions"][0]["session_id"]
        path = f"/v1/sessions/{session_id}"
        ticket: str = (await client.post(f"{path}/stream-tickets")).json()["ticket"]
        for page in ("/v1/keys", "/v1/audit", f"/v1/{key}", f"/v1/sessions?key={key}", f"/v1/sessions/{ticket}"):
            await self.page(page)
        del client.headers["Authorization"]
        stream = await client.get(f"{path}/events?follow=false&ticket={ticket}", headers={"Accept": "text/event-stream"})
        assert stream.status_code == 200
        self.texts["by ticket"] = stream.text
        for credential in (f"Bearer {key}x", f"Basic {key}", f"Bearer {ticket}"):
            await self.page(f"{path}?", headers={"Authorization": credential})
        return [key, ticket]

    def leaks(self) -> list[tuple[str, str]]:
        """Return where canaries stand, in whatever spelling."""
        return [
            (where, name)
            for where, text in self.texts.items()
            for name, canary in CANARIES.items()
            for spelling in spellings(canary)
            if spelling in text
        ]


def spellings(canary: str) -> list[str]:
    """Return how a value may stand in a text."""
    return [canary, quote(canary, safe=""), quote(canary), base64.b64encode(f"user:{canary}".encode()).decode()]


async def test_no_canary_comes_out_anywhere(
    serve: Callable[..., Awaitable[Service]], database_url: str, tmp_path: Path
) -> None:
    async with echoing() as echo, receiving(decided) as hook:
        service = await serve(**settings(echo, hook.url, database_url, tmp_path))
        said = Said(service)
        calls: list[dict[str, Any]] = [{"name": name, "args": {}} for name in ("leak", "program__leak", "datetime")]
        steps = [{"tool_calls": calls}, {"text": "Done."}]
        scene = {"provider": "scripted", "model": "scripted", "provider_params": {"scenario": {"steps": steps}}}
        views = await asyncio.gather(
            said.turn("tools", "Hello", **scene),
            said.turn("denied", "deny", provider="scripted", model="scripted"),
            *(
                said.turn(f"{vendor} {fault}", f"fault-{fault}", provider=vendor, model=model)
                for vendor, model in VENDORS.items()
                for fault in FAULTS
            ),
        )
        for path in PAGES:
            await said.page(path)
        ours = await said.keys()
        await service.terminate()
        said.texts["spans"] = b"".join(echo.spans).decode("latin-1")
        said.texts["log"] = service.log.read_text()

    assert [view["status"] for view in views] == ["completed", *["failed"] * 13]
    assert said.leaks() == []
    assert [(where, secret[:6]) for where, text in said.texts.items() for secret in ours if secret[-20:] in text] == []
    assert {"anthropic", "openai", "gemini", "compatible", "http-tool", "http-tool-other"} <= echo.seen
    assert {"mcp-header", "mcp-url", "otlp-traces"} <= echo.seen
    assert "invoke_agent" in said.texts["spans"]
    assert [name for name in ("tools", "denied", "log") if MARK not in said.texts[name]] == []
    for event in ("wakeups_lost", "mcp_server_failed", "background_hook_failed", "turn_failed", "spans batch"):
        assert event in said.texts["log"]
    size = sum(map(len, said.texts.values()))
    print(f"{len(CANARIES) + len(ours)} canaries, {size} characters of {len(said.texts)} outputs: 0 leaks")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:{}@127.0.0.1:1/db",
        "postgresql://user:{}@127.0.0.1:port/db",
        "postgresql://user:{}@127.0.0.1/db?sslmode=canary",
        "postgres//user:{}@nowhere",
    ],
)
async def test_start_that_is_refused_does_not_tell_why_with_the_password(tmp_path: Path, url: str) -> None:
    canary = CANARIES["database"]
    with pytest.raises(AssertionError, match="did not start") as refused:
        async with Service.started(tmp_path, {"SURICATE_DATABASE_URL": url.format(quote(canary, safe=""))}):
            pass

    assert [spelling for spelling in spellings(canary) if spelling in str(refused.value)] == []
