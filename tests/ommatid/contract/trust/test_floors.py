from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ommatid.contract.trust.clock import BUILD_DATE, format_time, parse_time, raised_floor, reference_time
from ommatid.contract.trust.errors import FloorsLostError
from ommatid.contract.trust.facts import older_than
from ommatid.contract.trust.floors import COPIES, Floors, copies_agree, load_floors, save_floors
from ommatid.disk import RealDisk
from tests.support.repository import TODAY

FLOORS = Floors(TODAY, 7, "a" * 64, {"detector": 3, "other": 1})
MOMENTS = st.datetimes(min_value=BUILD_DATE.replace(tzinfo=None)).map(
    lambda moment: moment.replace(tzinfo=TODAY.tzinfo)
)


def test_floors_survive_the_disk(tmp_path: Path) -> None:
    assert load_floors(tmp_path) is None

    save_floors(tmp_path, RealDisk(), FLOORS)

    assert load_floors(tmp_path) == FLOORS
    assert copies_agree(tmp_path)


@given(name=st.sampled_from(COPIES), position=st.integers(0, 10_000), content=st.binary(max_size=4))
def test_one_damaged_copy_is_noticed_and_the_other_serves(
    tmp_path_factory: pytest.TempPathFactory, name: str, position: int, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("floors")
    save_floors(folder, RealDisk(), FLOORS)
    whole = (folder / name).read_bytes()
    position %= len(whole)
    (folder / name).write_bytes(whole[:position] + content + whole[position + len(content) + 1 :])

    assert load_floors(folder) == FLOORS


@given(content=st.binary(max_size=200))
def test_two_damaged_copies_are_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("floors")
    for name in COPIES:
        (folder / name).write_bytes(content)

    with pytest.raises(FloorsLostError):
        load_floors(folder)


@given(counters=st.lists(st.integers(0, 100)))
def test_a_counter_never_falls(counters: list[int]) -> None:
    floors = Floors(TODAY)
    for counter in counters:
        raised = floors.with_counter("detector", counter)
        assert raised.counters["detector"] >= floors.counters.get("detector", 0)
        floors = raised

    assert floors.counters.get("detector", 0) == max(counters, default=0)


@given(floor=MOMENTS, issued=MOMENTS, cap=MOMENTS, now=MOMENTS)
def test_the_time_floor_never_falls_and_stays_below_its_cap(
    floor: datetime, issued: datetime, cap: datetime, now: datetime
) -> None:
    raised = raised_floor(floor, issued, cap)

    assert raised >= floor
    assert raised <= max(floor, cap)
    assert reference_time(now, raised) == max(now, raised)


def test_a_time_is_read_as_it_was_written() -> None:
    assert parse_time(format_time(TODAY)) == TODAY


@pytest.mark.parametrize(
    ("agent", "needed", "older"),
    [("0.1.0", "0.1.0", False), ("0.1.0", "0.1", False), ("0.9.0", "0.10.0", True), ("1.0", "0.99.9", False)],
)
def test_agent_versions_compare_as_numbers(agent: str, needed: str, *, older: bool) -> None:
    assert older_than(agent, needed) is older
