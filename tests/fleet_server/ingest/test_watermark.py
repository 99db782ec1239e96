"""How far reports are stored without a gap."""

import random

from hypothesis import given
from hypothesis import strategies as st

from fleet_server.ingest.watermark import fold
from ommatid.contract.messages import MAX_IN_FLIGHT

SEQS = st.lists(st.integers(min_value=1, max_value=MAX_IN_FLIGHT), max_size=80)


class Database:
    """What many batches leave behind."""

    def __init__(self) -> None:
        self.mark = 0
        self.stored: list[int] = []

    def batch(self, arrived: list[int]) -> None:
        folded = fold(self.mark, [seq for seq in self.stored if seq > self.mark], arrived)
        assert folded.mark >= self.mark
        self.mark = folded.mark
        self.stored += folded.fresh


@given(st.lists(SEQS, max_size=12))
def test_whatever_arrives_is_stored_once_and_acknowledged_to_the_first_gap(batches: list[list[int]]) -> None:
    database = Database()

    for batch in batches:
        database.batch(batch)

    arrived = {seq for batch in batches for seq in batch}
    first_gap = next(seq for seq in range(1, MAX_IN_FLIGHT + 2) if seq not in arrived)
    assert sorted(database.stored) == sorted(arrived)
    assert database.mark == first_gap - 1


@given(st.integers(min_value=1, max_value=MAX_IN_FLIGHT), st.randoms(use_true_random=False), st.integers(1, 7))
def test_the_order_of_arrival_does_not_matter(count: int, chance: random.Random, size: int) -> None:
    order = list(range(1, count + 1))
    chance.shuffle(order)
    database = Database()

    for start in range(0, count, size):
        database.batch(order[start : start + size])

    assert database.mark == count


def test_what_lies_behind_the_mark_is_never_stored_again() -> None:
    assert fold(5, [], [1, 2, 5]).fresh == ()


@given(st.integers(0, 500), st.integers(0, 500), st.randoms(use_true_random=False))
def test_a_server_restored_from_a_backup_catches_up_with_its_devices(
    backup: int, forgotten: int, chance: random.Random
) -> None:
    """The device was acknowledged up to `forgotten`; the backup knows less, or more."""
    database = Database()
    database.batch(list(range(1, backup + 1)))
    in_flight = list(range(forgotten + 1, forgotten + MAX_IN_FLIGHT + 1))
    chance.shuffle(in_flight)

    for seq in in_flight:
        database.batch([seq])

    assert database.mark == max(backup, forgotten + MAX_IN_FLIGHT)
    assert {*in_flight} <= {*database.stored}
