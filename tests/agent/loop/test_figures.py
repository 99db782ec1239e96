import pytest

from agent.loop.capture import Pace
from agent.loop.inbox import Counts
from agent.loop.statistics import SourceStatistics, Timing, frames_per_second, percentile
from agent.loop.swap_account import History, SwapAccount, drop_rate, dropped_beyond


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 101)]

    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) is None


def test_the_rate_of_a_young_source_is_that_of_its_frames() -> None:
    times = [100 + index / 20 for index in range(21)]

    assert frames_per_second(times, now_s=101) == pytest.approx(20)
    assert frames_per_second([], now_s=101) == 0
    assert frames_per_second(times, now_s=200) == 0


def test_the_rate_falls_when_frames_stay_away() -> None:
    times = [index / 10 for index in range(1000)]

    assert frames_per_second(times, now_s=100) == pytest.approx(10, rel=0.02)
    assert frames_per_second(times, now_s=105) == pytest.approx(5, rel=0.02)


def test_frames_that_failed_have_no_timing() -> None:
    statistics = SourceStatistics()

    statistics.add(Timing(1, 10, 20), failed=False)
    statistics.add(Timing(2, 1, 1), failed=True)

    assert (statistics.frames, statistics.errors, len(statistics.timings())) == (2, 1, 1)


@pytest.mark.parametrize(
    ("rate", "captured", "dropped", "expected"),
    [(0.0, 100, 0, 0), (0.0, 100, 3, 3), (0.1, 100, 10, 0), (0.1, 100, 12, 2), (0.5, 100, 10, 0), (0.005, 100, 1, 1)],
)
def test_only_drops_beyond_the_steady_rate_are_the_swaps(
    rate: float, captured: int, dropped: int, expected: int
) -> None:
    assert dropped_beyond(rate, captured, dropped) == expected


def test_the_steady_rate_is_that_of_the_last_minute() -> None:
    history = History(span_s=60)
    history.note(0, Counts(0, 0))
    for second in range(1, 121):  # everything is dropped in the first minute, a tenth in the second
        late = max(0, second - 60)
        history.note(second, Counts(10 * second, 10 * (second - late) + late))

    assert history.steady_rate(Counts(1200, 660)) == pytest.approx(0.1)
    assert History().steady_rate(Counts(5, 5)) == 0
    assert drop_rate(Counts(5, 5), Counts(5, 5)) == 0


def test_a_swap_is_accounted_until_one_second_after_it() -> None:
    account = SwapAccount(began_at=Counts(100, 10), steady_rate=0.1)
    account.add(5)
    before = account.over(1000)

    account.swapped(now_s=50, digest="new", previous="old")
    account.add(9)
    account.load_ms = 30
    figures = account.close(Counts(140, 16))

    assert not before
    assert not account.over(50.9)
    assert account.over(51)
    assert (figures.digest, figures.previous, figures.load_ms) == ("new", "old", 30)
    assert (figures.frames, figures.dropped, figures.dropped_by_swap, figures.p99_ms) == (2, 6, 2, 9)


def test_pictures_are_due_by_the_clock_and_a_late_one_is_made_up_for() -> None:
    pace = Pace(fps=10, now_s=0)

    assert [pace.due_s(now) for now in (0, 0.05, 0.5, 0.5)] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_after_a_long_pause_the_pictures_in_it_are_not_made_up_for() -> None:
    pace = Pace(fps=10, now_s=0)
    pace.due_s(0)

    assert [pace.due_s(now) for now in (60, 60)] == pytest.approx([60, 60.1])
