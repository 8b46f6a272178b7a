"""Words of callers that wait for the live turn, as they enter its log and its transcript."""

from collections.abc import Sequence

import orjson

from app.journal.types import TurnSteered
from app.messages import Message
from app.turns import opening
from app.turns.turn import Turn


def told(live: Turn) -> list[TurnSteered]:
    """Return the events of the words that wait."""
    return [TurnSteered(orjson.loads(prompt)) for prompt in live.steering]


def words(live: Turn) -> Sequence[Message]:
    """Return the words that wait, as the model reads them."""
    return [Message("user", tuple(opening.prompt_blocks(prompt))) for prompt in live.steering]
