"""How tests ask the Anthropic adapter."""

from contextlib import aclosing

import pytest

from app.errors import ProviderError
from app.providers.base import ModelChunk, ModelRequest, Provider
from tests.providers.asking import REQUEST


async def ask(provider: Provider, request: ModelRequest = REQUEST) -> list[ModelChunk]:
    async with aclosing(provider.stream(request)) as chunks:
        return [chunk async for chunk in chunks]


async def refused(provider: Provider) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(provider)
    return caught.value
