"""The chunks of one answer while its events are read, for every vendor's reader.

What comes together is given together: neighbouring pieces of one channel become one chunk. What surprises: a failure waits
until all that came before it was given.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypeAlias

from app.errors import ProviderError
from app.messages import NO_USAGE, StopReason, Usage
from app.providers import refusals
from app.providers.base import Finish, ModelChunk, ReasoningChunk, TextChunk, UsageChunk

Channel: TypeAlias = Literal["text", "reasoning"]


class Chunks:
    """Gathers chunks; `characters` is how many each channel has had so far, in the whole answer."""

    def __init__(self) -> None:
        self.characters: dict[Channel, int] = {"text": 0, "reasoning": 0}
        self._gathered: list[ModelChunk] = []
        self._pieces: list[str] = []  # neighbours of one channel
        self._channel: Channel = "text"
        self._usage = NO_USAGE

    def say(self, channel: Channel, text: str) -> None:
        """Add a piece of text or of reasoning; an empty one is none."""
        if not text:
            return
        if channel != self._channel:
            self._join()
            self._channel = channel
        self._pieces.append(text)
        self.characters[channel] += len(text)

    def add(self, chunk: ModelChunk) -> None:
        """Add any other chunk after what was said."""
        self._join()
        self._gathered.append(chunk)

    def count(self, usage: Usage) -> None:
        """Report the usage so far, before what came with it; for answers that are not finished yet."""
        self._usage = usage

    def given(self, take: Callable[[Iterable[bytes]], None], events: Iterable[bytes]) -> Iterator[ModelChunk]:
        """Let events be taken, and give what was gathered from them.

        Raises:
            ProviderError: what `take` raised, after what came before it.
        """
        failure: ProviderError | None = None
        try:
            take(events)
        except ProviderError as error:
            failure = error
        self._join()
        if self._usage != NO_USAGE:
            self._gathered.insert(0, UsageChunk(self._usage))
            self._usage = NO_USAGE
        gathered, self._gathered = self._gathered, []
        return iter(gathered) if failure is None else _before(failure, gathered)

    def _join(self) -> None:
        if self._pieces:
            kind = TextChunk if self._channel == "text" else ReasoningChunk
            self._gathered.append(kind("".join(self._pieces), len(self._pieces)))
            self._pieces.clear()


def _before(failure: ProviderError, gathered: Sequence[ModelChunk]) -> Iterator[ModelChunk]:
    yield from gathered
    raise failure


def finish(stop_reason: StopReason | None, usage: Usage, *, has_calls: bool) -> Finish:
    """Return an answer's last chunk; whether it asks for tools is seen in its calls, not in what the vendor says.

    Args:
        stop_reason: None where the finish marker has not come.

    Raises:
        ProviderError: `PROVIDER_PROTOCOL`; there was no finish marker, so this is no answer.
    """
    if stop_reason is None:
        raise refusals.malformed("The provider's stream ended without its finish marker.")
    return Finish("tool_use" if has_calls and stop_reason == "end_turn" else stop_reason, usage)
