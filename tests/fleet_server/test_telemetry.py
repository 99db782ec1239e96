"""Telemetry added up, of devices that mean harm as well: one of them must not take the figures of all away."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from fleet_server.ingest.batch import Arrival, store
from fleet_server.inventory import list_devices
from fleet_server.telemetry import TelemetryView, summarize
from ommatid.contract.messages import Histogram, Report, SourceStatus, State, Window, encode, validate
from ommatid.contract.topics import DeviceTopics
from ommatid.errors import MessageError
from tests.support.small_fleet import BOOT, TENANT, SmallFleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[SmallFleet]:
    fleet = SmallFleet(tmp_path)
    fleet.enrol("cam-a")
    yield fleet
    fleet.database.close()


def window(seq: int, **changed: object) -> Window:
    report: dict[str, object] = {"boot": BOOT, "seq": seq, "uptime_s": 1.0, "sent_at": "", "source": "lane"}
    figures: dict[str, object] = {"started_at": "", "duration_s": 10.0, "frames": 100, "dropped": 0}
    return Window.model_validate(report | figures | changed)


def histogram(**changed: object) -> Histogram:
    plain: dict[str, object] = {"bins": "lin:0:256", "counts": {1: 1}, "n": 1, "sum_q16": 1, "sum_squares_q16": 1}
    return Histogram.model_validate(plain | changed)


def receive(fleet: SmallFleet, *messages: Report | State) -> None:
    with fleet.database.write() as session:
        store(session, [Arrival(DeviceTopics(TENANT, "cam-a"), message) for message in messages], fleet.time())


def added_up(fleet: SmallFleet) -> TelemetryView:
    with fleet.database.read() as session:
        (view,) = summarize(session, TENANT, fleet.time() - timedelta(hours=1))
    json.dumps(view.model_dump(mode="json"), allow_nan=False)
    return view


def test_windows_of_one_device_are_added(fleet: SmallFleet) -> None:
    receive(fleet, window(1, signals={"brightness": histogram()}), window(2, signals={"brightness": histogram()}))

    view = added_up(fleet)

    assert (view.windows, view.frames, view.fps, view.signals["brightness"].n) == (2, 200, 10.0, 2)


@pytest.mark.parametrize(
    "largest",
    [{"sum_q16": 2**100, "sum_squares_q16": 2**100}, {"counts": {1: 2**53}}, {"n": 2**53}],
    ids=["sums", "counts", "n"],
)
def test_the_largest_figures_of_two_windows_can_be_added(fleet: SmallFleet, largest: dict[str, object]) -> None:
    signals = {"brightness": histogram(**largest)}

    receive(fleet, window(1, signals=signals), window(2, signals=signals))

    assert added_up(fleet).windows == 2


@pytest.mark.parametrize(
    "bins", ["lin:-1e308:1e308", "lin:-inf:inf", "lin:0:nan", "log:1e-300:1e300", "log:1:inf", "log:1:1.79e308", "x"]
)
def test_no_bins_make_a_figure_that_json_does_not_know(fleet: SmallFleet, bins: str) -> None:
    receive(fleet, window(1, signals={"brightness": histogram(bins=bins, counts={255: 1})}))

    assert added_up(fleet).windows == 1


@pytest.mark.parametrize("duration_s", [5e-324, 1.7e308])
def test_a_window_of_impossible_length_is_refused(duration_s: float) -> None:
    with pytest.raises(MessageError, match="duration_s"):
        validate(window(1).model_dump() | {"duration_s": duration_s}, Window)


def test_frame_rates_of_a_device_stay_a_number_in_their_sum(fleet: SmallFleet) -> None:
    source = SourceStatus(name="lane", state="running", fps=1e6)
    receive(fleet, State(online=True, sources=(source,) * 1000))

    with fleet.database.read() as session:
        (device,) = list_devices(session, TENANT)

    assert device.fps == 1e9
    with pytest.raises(MessageError, match="fps"):
        validate(
            json.loads(encode(State(online=True, sources=(source,))))
            | {"sources": [{**source.model_dump(), "fps": 1e308}]},
            State,
        )
