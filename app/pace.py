"""How long deltas are gathered: the busier the process, the longer, so that each costs less and all keep up.

A turn's event costs a share of a commit, a wake-up and a write to each reader, however many tokens are in it. While commits
wait longer than usual, more tokens go into each event and into each read of a provider's stream; when they do not, every delta
goes at the interval of the settings. The first of a step always goes at once.
"""

MOST_SECONDS = 0.3  # what a person still sees as flowing text
CALM_SECONDS = 0.01  # an entry's wait for its commit that needs nothing done
WAITS_GATHERED = 8.0  # the interval in lengths of what it waits beyond that
WEIGHT = 0.2  # of the newest wait in the running mean


class Pace:
    """The running interval of one process.

    Args:
        least_seconds: the interval while nothing is busy.
    """

    def __init__(self, least_seconds: float = 0.0) -> None:
        self._least_seconds = least_seconds
        self._wait_seconds = 0.0

    def observe(self, wait_seconds: float) -> None:
        """Take note of how long an entry has waited for its commit, from being handed in to being told."""
        self._wait_seconds += WEIGHT * (wait_seconds - self._wait_seconds)

    @property
    def gathering_seconds(self) -> float:
        """Least time between two delta events of one turn."""
        return max(self._least_seconds, min((self._wait_seconds - CALM_SECONDS) * WAITS_GATHERED, MOST_SECONDS))

    @property
    def reading_seconds(self) -> float:
        """Least time between two reads of one provider's stream; 0 while nothing is busy."""
        gathering_seconds = self.gathering_seconds
        return gathering_seconds if gathering_seconds > self._least_seconds else 0.0


UNHURRIED = Pace()
"""A pace that nothing changes: every delta goes and every read is made at once."""
