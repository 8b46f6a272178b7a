"""The running interval."""

from app.pace import MOST_SECONDS, Pace


def test_interval_is_the_settings_while_commits_are_quick() -> None:
    pace = Pace(0.015)

    for _ in range(50):
        pace.observe(0.001)

    assert (pace.gathering_seconds, pace.reading_seconds) == (0.015, 0.0)


def test_interval_grows_with_the_wait_up_to_its_limit_and_comes_back() -> None:
    pace = Pace(0.015)
    seen = []

    for wait in [0.017] * 50 + [5.0] * 50 + [0.001] * 80:
        pace.observe(wait)
        seen.append(pace.gathering_seconds)

    assert 0.05 < seen[49] < 0.07
    assert seen[99] == MOST_SECONDS == max(seen)
    assert seen[-1] == 0.015
