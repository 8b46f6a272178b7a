"""Hooks in Python, and how they are found."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.errors import StartupError
from app.hooks import plugin
from app.hooks.base import HookFault
from app.hooks.plugin import Plugin

pytestmark = pytest.mark.anyio

MODULE = """
async def function(payload):
    return {"decision": "allow", "seen": payload["point"]}

class Asked:
    async def __call__(self, payload):
        return {"decision": "allow"}

asked = Asked()

def blocking(payload):
    return {"decision": "allow"}

number = 5
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that offers entry points."""
    (tmp_path / "offered_hooks.py").write_text(MODULE, encoding="utf-8")
    info = tmp_path / "offered_hooks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offered-hooks\nVersion: 1.0\n", encoding="utf-8")
    names = ("function", "asked", "Asked", "blocking", "number", "missing")
    lines = "".join(f"{name} = offered_hooks:{name}\n" for name in names)
    (info / "entry_points.txt").write_text(f"[suricate.hooks]\n{lines}", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("name", ["function", "asked"])
async def test_async_function_or_object_is_found_and_asked(package: None, name: str) -> None:
    answer = await plugin.load(name).answer(b'{"point":"turn_started"}')

    assert orjson.loads(answer)["decision"] == "allow"


@pytest.mark.parametrize("name", ["Asked", "blocking", "number", "missing", "never offered"])
def test_anything_else_keeps_the_server_from_starting(package: None, name: str) -> None:
    with pytest.raises(StartupError, match=name):
        plugin.load(name)


async def test_exception_is_a_fault_that_names_its_kind_alone() -> None:
    async def hook(_payload: Any) -> Any:
        raise ValueError("canary")

    with pytest.raises(HookFault) as caught:
        await Plugin(hook).answer(b"{}")

    assert str(caught.value) == "The hook failed: ValueError."


async def test_cancelled_error_of_the_hook_itself_is_a_fault() -> None:
    async def hook(_payload: Any) -> Any:
        raise asyncio.CancelledError

    with pytest.raises(HookFault):
        await Plugin(hook).answer(b"{}")


async def test_cancelling_the_asker_cancels_the_hook() -> None:
    begun = asyncio.Event()

    async def hook(_payload: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(Plugin(hook).answer(b"{}"))
        await begun.wait()
        task.cancel()

    assert task.cancelled()


async def test_answer_that_is_no_json_is_a_fault() -> None:
    async def hook(_payload: Any) -> Any:
        return {"decision": object()}

    with pytest.raises(HookFault):
        await Plugin(hook).answer(b"{}")
