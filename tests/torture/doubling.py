"""How a double of a run is started: in a process of its own, on loopback, with a folder for its records."""

import argparse
import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import uvloop

from tests.provider_double.connection import Answer
from tests.provider_double.server import serve, stdin_closes


def run(prog: str, words: str | None, opened: Callable[[Path], AbstractContextManager[Answer]]) -> None:
    """Read the command line and serve until a signal ends the process, or stdin closes where that is asked for.

    Args:
        opened: called in the loop with the folder; gives what answers, for as long as it serves.
    """
    parser = argparse.ArgumentParser(prog=prog, description=words)
    parser.add_argument("--folder", type=Path, required=True, help="where its records go")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one; its address is announced on stdout")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started this one")
    uvloop.run(_serve(parser.parse_args(), opened))


async def _serve(given: argparse.Namespace, opened: Callable[[Path], AbstractContextManager[Answer]]) -> None:
    async def until(bound_port: int) -> None:
        print(f"http://127.0.0.1:{bound_port}", flush=True)
        await (stdin_closes() if given.until_stdin_closes else asyncio.Event().wait())

    with opened(given.folder) as answer:
        await serve(answer, given.port, until)
