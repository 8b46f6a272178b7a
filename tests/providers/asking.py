"""How tests ask the adapter, and how they look at its chunks."""

from collections.abc import Sequence
from contextlib import aclosing

import pytest

from app.errors import ProviderError
from app.messages import Message, Text
from app.providers.base import Finish, ModelChunk, ModelRequest, Provider, TextChunk, ToolCallChunk
from app.providers.deadlines import Deadlines

REQUEST = ModelRequest("m", "Be brief.", (Message("user", (Text("Hello"),)),))
CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'

IMPATIENT = {
    "did not begin to answer in time": Deadlines(first_byte_seconds=0.15),
    "fell silent": Deadlines(idle_seconds=0.15),
    "longer than a whole call may": Deadlines(idle_seconds=0.4, total_seconds=0.5),
}
"""Deadlines of which one alone is short, by what is told when it has passed."""


async def ask(provider: Provider, request: ModelRequest = REQUEST) -> list[ModelChunk]:
    async with aclosing(provider.stream(request)) as chunks:
        return [chunk async for chunk in chunks]


async def refused(provider: Provider) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(provider)
    return caught.value


def text_of(chunks: Sequence[ModelChunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))


def finish_of(chunks: Sequence[ModelChunk]) -> Finish:
    *before, finish = chunks
    assert isinstance(finish, Finish)
    assert not any(isinstance(chunk, Finish) for chunk in before)
    return finish


def calls_of(chunks: Sequence[ModelChunk]) -> list[tuple[str | None, str | None, str]]:
    """The calls as id, name and joined arguments; only a call's first piece may name it."""
    calls: list[tuple[str | None, str | None, str]] = []
    for chunk in chunks:
        if isinstance(chunk, ToolCallChunk) and chunk.index == len(calls):
            calls.append((chunk.id, chunk.name, chunk.args_delta))
        elif isinstance(chunk, ToolCallChunk):
            assert (chunk.id, chunk.name) == (None, None)
            call_id, name, args = calls[chunk.index]
            calls[chunk.index] = call_id, name, args + chunk.args_delta
    return calls
