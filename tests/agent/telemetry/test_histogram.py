import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.bins import BINS, SIGNALS, BinSpec
from agent.telemetry.histogram import Accumulator
from fleet_server.telemetry import add
from ommatid.contract.messages import Histogram
from ommatid.vision import signals as quality

SPEC = BinSpec("lin", 0, 256)
finite = st.floats(-1000, 1000)


def histogram(values: list[float]) -> Histogram:
    accumulator = Accumulator(SPEC)
    for value in values:
        accumulator.add(value)
    made = accumulator.histogram()
    assert made is not None
    return made


@given(st.lists(st.lists(finite, min_size=1), min_size=1), st.randoms())
def test_the_server_adds_windows_exactly_in_any_order(parts: list[list[float]], shuffle: random.Random) -> None:
    whole = histogram([value for part in parts for value in part])
    shuffled = [histogram(part) for part in parts]
    shuffle.shuffle(shuffled)

    assert add(shuffled) == whole


def test_values_outside_the_bins_fall_into_the_outer_ones() -> None:
    made = histogram([-5.0, 0.0, 255.9, 1e6])

    assert made.counts == {0: 2, 255: 2}
    assert (made.min, made.max, made.n) == (-5.0, 1e6, 4)


def test_what_is_no_number_is_not_counted() -> None:
    accumulator = Accumulator(SPEC)
    for value in (math.nan, math.inf, -math.inf):
        accumulator.add(value)

    assert accumulator.histogram() is None


def test_moments_are_fixed_point() -> None:
    made = histogram([1.5, 2.0])

    assert made.sum_q16 == round(3.5 * 65536)
    assert made.sum_squares_q16 == round(6.25 * 65536)


def test_of_different_bins_only_the_newest_are_added() -> None:
    other = Accumulator(BinSpec("log", 0.1, 10))
    other.add(1.0)
    made = other.histogram()
    assert made is not None

    assert add([histogram([1.0]), made]) == made


@pytest.mark.parametrize("name", sorted(SIGNALS))
@given(value=finite)
def test_every_value_has_one_of_256_bins(name: str, value: float) -> None:
    assert 0 <= SIGNALS[name].index(value) < BINS


def test_the_bins_of_a_signal_never_change() -> None:
    assert {name: spec.id for name, spec in SIGNALS.items()} == {
        "brightness": "lin:0:255",
        "contrast": "lin:0:128",
        "clip_low": "lin:0:1",
        "clip_high": "lin:0:1",
        "entropy": "lin:0:8",
        "sharpness_fine": "lin:-8:2",
        "sharpness_coarse": "lin:-8:2",
        "noise": "lin:-4:4",
        "change": "lin:0:64",
        "tiles_lost": "lin:0:16",
        "confidence": "lin:0:1",
        "objects": "lin:0:256",
        "latency_ms": "log:0.1:10000",
    }


def test_every_signal_of_the_quality_checks_has_bins_over_its_range() -> None:
    measured = {name: (rule.minimum, rule.maximum) for name, rule in quality.SIGNALS.items()}

    assert {name: (SIGNALS[name].low, SIGNALS[name].high) for name in measured} == measured
