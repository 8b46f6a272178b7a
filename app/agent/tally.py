"""What one try of a model call has used up so far, and how much of that is on record.

A provider that reports before its answer is whole is put on record at once, and then now and then: so whoever ends the turn
from its log, and the next attempt after a crash, find the usage counted.
"""

from app import clock
from app.journal.entry import Model, TurnChange
from app.messages import NO_USAGE, Usage

RECORDED_EVERY_SECONDS = 5.0  # at most, of reports that grow with each piece; the first goes at once


class Tally:
    """One try.

    Args:
        model: who was asked.

    Attributes:
        usage: as the provider has reported it.
        streamed: tokens of the answer that have come, counted in pieces.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.usage = NO_USAGE
        self.streamed = 0
        self._is_whole = False
        self._recorded = TurnChange()
        self._recorded_at: float | None = None

    @property
    def output(self) -> int:
        """Tokens of output: what was reported, and of an answer that is not whole no fewer than have come."""
        if self._is_whole:
            return self.usage.output_tokens or self.streamed
        return max(self.usage.output_tokens, self.streamed)

    @property
    def spent(self) -> int:
        """What budgets count of it."""
        return self.usage.input_tokens + self.output

    @property
    def unrecorded(self) -> TurnChange:
        """What is not on record yet; a try counts as a call once anything of it has come."""
        recorded = self._recorded
        usage, spent = self.usage - recorded.usage, self.spent - recorded.spent_tokens
        calls = int(self._is_whole or self.streamed > 0 or self.usage != NO_USAGE) - recorded.calls
        if not (calls or spent or usage != NO_USAGE):
            return TurnChange()
        return TurnChange(usage=usage, spent_tokens=spent, calls=calls, model=self._model)

    def report(self, usage: Usage) -> TurnChange | None:
        """Take a report in the middle of the answer; return what is to be put on record now, if it is time."""
        is_new, self.usage = usage != self.usage, usage
        now = clock.monotonic()
        is_due = self._recorded_at is None or now - self._recorded_at >= RECORDED_EVERY_SECONDS
        if not is_new or not is_due:
            return None
        self._recorded_at = now
        return self.record()

    def finish(self, usage: Usage) -> None:
        """Take the last report, of a whole answer."""
        self.usage, self._is_whole = usage, True

    def record(self) -> TurnChange:
        """Take what is not on record yet as recorded, and return it."""
        change = self.unrecorded
        self._recorded = TurnChange(usage=self.usage, spent_tokens=self.spent, calls=self._recorded.calls + change.calls)
        return change
