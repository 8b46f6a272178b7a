"""A session with each provider, and how what can befall a model's answer is brought about there.

Answers are written in the neutral scripts of `tests/providers/behaviours.py`. A vendor's double sees every request, refuses
what the vendor would, and reports usage that is known beforehand. The scripted model plays the same answers as a scenario of
its session. It has no connection that could break, so that a killed server stands for the cut; and it refuses nothing, so that
the words which it says it was given are counted.
"""

import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeAlias

from tests.api.desk import ASYNC, Desk
from tests.api.talk import history
from tests.provider_double import anthropic, scripts
from tests.provider_double.client import ProviderDouble
from tests.provider_double.scripts import Script
from tests.providers import behaviours
from tests.service import Service

Serve: TypeAlias = Callable[..., Awaitable[Service]]
Turn: TypeAlias = Mapping[str, Any]

CALLS = {"call_a": "datetime", "call_b": "weather"}
WEATHER = {"name": "weather", "description": "Tells the weather.", "input_schema": {"type": "object"}}
NOTHING = dict.fromkeys(("input_tokens", "output_tokens", "cache_creation_tokens", "cache_read_tokens"), 0)
REPORTED_EARLY = NOTHING | {"input_tokens": anthropic.USAGE["input_tokens"], "output_tokens": anthropic.USAGE["output_tokens"]}
SLOW = 4  # words a second: seconds are left to act in


@dataclass(kw_only=True)
class Talk:
    """One session, with a tool that its caller runs and one that waits for leave.

    Args:
        service: the server that was last asked for it.
        reported: usage of each whole answer on its log, oldest first; None where nobody else knows it.
        is_fork: whether it began as a copy of turns that another session has paid for.

    Attributes:
        retold_by: the events around a step's `step_discarded` where it is asked again.
    """

    service: Service
    vendor: behaviours.Stage
    id: str = ""
    reported: list[Mapping[str, int]] | None = None
    is_fork: bool = False
    retold_by: ClassVar[Sequence[str]]

    @property
    def reported_early(self) -> Mapping[str, int]:
        """Usage that is reported of an answer which is cut off."""
        return NOTHING

    async def play(self, *answers: Script) -> None:
        """Let the model give these answers next."""
        raise NotImplementedError

    async def cut(self, prompt: str, answer: str) -> Turn:
        """Take a turn whose stream breaks off in the middle, and that ends with this answer; return it."""
        raise NotImplementedError

    async def hold(self, beginning: str) -> None:
        """Let the next answer think, begin so, and not come to its end."""
        raise NotImplementedError

    async def assert_told(self, *said: str, but_not: Sequence[str] = ()) -> None:
        """Hold the last turn's request, its only one, against what it has to tell the model."""
        raise NotImplementedError

    async def rejected(self) -> Sequence[str]:
        """Return why requests were refused."""
        raise NotImplementedError

    @property
    def desk(self) -> Desk:
        """The session as a client speaks of it."""
        return Desk(self.service, self.id)

    async def open(self, **provider_params: Any) -> Self:
        """Open the session."""
        created = await self.service.create(
            model=self.vendor.model,
            provider=self.vendor.name,
            provider_params=provider_params,
            system_prompt="Be brief.",
            max_tokens=4096,
            external_tools=[WEATHER],
            approval_tools=["datetime"],
        )
        self.id = created["session_id"]
        return self

    def forked(self, session_id: str) -> Self:
        """Return another session, a fork of this one."""
        return dataclasses.replace(self, id=session_id, reported=None if self.reported is None else [], is_fork=True)

    def whole(self, text: str) -> Script:
        """A whole answer of these words."""
        return scripts.words(text), self.vendor.finish(usage=self._usage())

    def calling(self) -> Script:
        """A whole answer that thinks, and makes two calls at once."""
        return self.vendor.reasoned_calls(*CALLS, tools=[*CALLS.values()], usage=self._usage())

    async def begin(self, prompt: str, *, until: str, **fields: Any) -> str:
        """Begin a turn and see an event of this type; return the turn's id."""
        turn_id: str = (await self.desk.start(prompt, ASYNC, **fields)).json()["turn_id"]
        await self.service.frames(f"{self.desk.path}/turns/{turn_id}/events", until=[until])
        return turn_id

    async def ended(self, turn_id: str) -> Turn:
        """Return a turn once it has ended."""
        return await self.service.ended(self.id, turn_id)

    async def log_of(self, turn_id: str) -> Sequence[Mapping[str, Any]]:
        """Return a turn's events."""
        return [event for event in await self.service.log_of(self.id) if event["turn_id"] == turn_id]

    def _usage(self) -> Any:
        return scripts.DEFAULT_USAGE


@dataclass(kw_only=True)
class WiredTalk(Talk):
    """A session with a vendor's strict double."""

    vendor: behaviours.WiredStage
    reported: list[Mapping[str, int]] = field(default_factory=list)
    retold_by = ("retrying", "step_discarded", "step_started")

    @property
    def reported_early(self) -> Mapping[str, int]:
        return REPORTED_EARLY if isinstance(self.vendor, behaviours.AnthropicStage) else NOTHING

    async def play(self, *answers: Script) -> None:
        await self.vendor.play(*answers)

    async def cut(self, prompt: str, answer: str) -> Turn:
        await self.play([scripts.reasoning("Hm."), scripts.text(answer[:3]), scripts.cut()], self.whole(answer))
        turn: Turn = (await self.desk.start(prompt)).json()
        return turn

    async def hold(self, beginning: str) -> None:
        await self.play([scripts.reasoning("Hm."), scripts.words(beginning), scripts.hang()])

    async def assert_told(self, *said: str, but_not: Sequence[str] = ()) -> None:
        """Its own seal on what it once thought goes back to the vendor too."""
        seal = [] if self.vendor.seal is None else [self.vendor.seal]
        assert_says(json.dumps((await self.vendor.bodies())[-1]), [*said, *seal], but_not)

    async def rejected(self) -> Sequence[str]:
        return await self.vendor.rejected()

    def _usage(self) -> Any:
        number = len(self.reported) + 1
        fresh, cached, output = 100 * number, 10 * number, number
        counts = {"input_tokens": fresh, "output_tokens": output, "cache_creation_tokens": 0, "cache_read_tokens": cached}
        self.reported.append(counts)
        return self.vendor.usage(fresh, cached, output)


@dataclass(kw_only=True)
class ScriptedTalk(Talk):
    """A session with the scripted model."""

    serve: Serve
    vendor: behaviours.ScriptedStage
    retold_by = ("turn_resumed", "step_discarded", "step_started")

    async def play(self, *answers: Script) -> None:
        await self._set(0, *answers)

    async def cut(self, prompt: str, answer: str) -> Turn:
        """Kill the server while its model speaks slowly; that of the next one speaks as fast as it can."""
        await self._set(None, self.whole(answer))
        turn_id = await self.begin(prompt, until="text_delta")
        await self.service.kill()
        self.service = await self.serve(**scripted_at(0))
        return await self.ended(turn_id)

    async def hold(self, beginning: str) -> None:
        await self._set(SLOW, [scripts.reasoning("Hm."), scripts.words(beginning + " and so on" * 20)])

    async def assert_told(self, *said: str, but_not: Sequence[str] = ()) -> None:
        """Count the words of the history, in which all that was said stands: so many it says it was given."""
        turn = (await self.desk.turns("limit=200"))["turns"][-1]
        told = [block for message in (await history(self.desk))[:-1] for block in message["content"]]
        given = " ".join(block.get("text") or block["content"] for block in told if block["type"] in {"text", "tool_result"})
        assert turn["usage"]["input_tokens"] == len(given.split())
        assert_says(given, said, but_not)

    async def rejected(self) -> Sequence[str]:
        """Return nothing: it takes any transcript."""
        return []

    async def _set(self, tokens_per_second: float | None, *answers: Script) -> None:
        """Make answers the scenario, at this rate or at the server's."""
        await self.vendor.play(*answers)
        params = {**self.vendor.request().params, "tokens_per_second": tokens_per_second}
        changed = await self.desk.client.patch(self.desk.path, json={"provider_params": params})
        assert changed.status_code == 200, changed.text


@asynccontextmanager
async def opened(provider: str, serve: Serve, double: ProviderDouble) -> AsyncIterator[Talk]:
    """Open a session with a provider's model, on a server that has this provider alone."""
    if provider == "scripted":
        service = await serve(**scripted_at(SLOW))
        yield await ScriptedTalk(service=service, serve=serve, vendor=behaviours.ScriptedStage()).open()
        return
    async with behaviours.wired(provider, double) as vendor:
        prefix = {"openai_compatible": "SURICATE_OPENAI_COMPATIBLE"}.get(provider, provider.upper())
        service = await serve(**{f"{prefix}_BASE_URL": vendor.base_url, f"{prefix}_API_KEY": behaviours.KEY})
        yield await WiredTalk(service=service, vendor=vendor).open(**vendor.thinking)


def scripted_at(tokens_per_second: float) -> Mapping[str, str]:
    """Return settings under which the scripted model speaks so fast, and what a killed server held is soon taken over."""
    return {"SURICATE_LEASE_SECONDS": "1", "SURICATE_SCRIPTED_TOKENS_PER_SECOND": str(tokens_per_second)}


def assert_says(text: str, said: Sequence[str], but_not: Sequence[str]) -> None:
    """Hold a text against what it has to hold, and what it must not."""
    assert [part for part in said if part not in text] == []
    assert [part for part in but_not if part in text] == []
