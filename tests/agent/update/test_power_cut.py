"""A power cut after every file operation of two updates, with what was not fsynced lost, emptied or out of order."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.disks import Chance, Kind, Op, Policy, RecordingDisk, replay
from tests.support.updating import BundleServer, Device, Signed, serving, slot

SHARDS = 4
OPERATIONS = 200
"""Two updates have at least so many; fewer would mean that something is not swept any more."""


@dataclass(frozen=True)
class Recording:
    """All that happened to a disk from an empty device to version 1, and from there to version 2."""

    ops: list[Op] = field(repr=False)
    first_update: int
    v1: Signed
    v2: Signed
    url: str
    client: httpx.Client

    def check(self, upto: int, policy: Policy | Chance) -> None:
        """Cut the power, look at what is left, start the device again, and let it end its update."""
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            replay(home / "state", self.ops, upto, policy)

            # the old model or the new one is there, whole; before the first commit there may be none
            current, signed = slot(home / "state", "current"), self.v2
            if upto < self.first_update:
                signed = self.v1
                assert current in {None, self.v1.sha256}
            else:
                assert current in {self.v1.sha256, self.v2.sha256}
            for name in ("previous", "candidate"):
                slot(home / "state", name)

            # and the update ends
            device = Device(home, self.url, client=self.client)
            device.run(signed.document)
            assert device.engine.record.state == "committed"
            assert device.current == signed.sha256
            assert device.loop.status().active == signed.sha256
            assert device.previous == (None if signed is self.v1 else self.v1.sha256)
            assert [report for report in device.reports if report["kind"] != "update"] == []


@pytest.fixture(scope="module")
def recorded_server(bundles: Path) -> Iterator[BundleServer]:
    with serving(bundles) as server:
        yield server


@pytest.fixture(scope="module")
def recording(
    tmp_path_factory: pytest.TempPathFactory,
    recorded_server: BundleServer,
    client: httpx.Client,
    v1: Signed,
    v2: Signed,
) -> Recording:
    home = tmp_path_factory.mktemp("recorded")
    disk = RecordingDisk(home / "state")
    device = Device(home, recorded_server.url, client=client, disk=disk)
    device.run(v1.document)
    first = len(disk.ops)
    device.engine.offer(v2.document)
    device.finish()
    assert device.current == v2.sha256
    return Recording(disk.ops, first, v1, v2, recorded_server.url, client)


@pytest.mark.parametrize("policy", list(Policy), ids=lambda policy: policy.name.lower())
@pytest.mark.parametrize("shard", range(SHARDS))
def test_after_a_power_cut_the_old_or_the_new_model_is_whole_and_the_update_ends(
    recording: Recording, policy: Policy, shard: int
) -> None:
    assert len(recording.ops) >= OPERATIONS
    moments = range(shard, len(recording.ops) + 1, SHARDS)

    for upto in moments:
        recording.check(upto, policy)

    print(f"{len(moments)} moments swept, {policy.name}")  # noqa: T201 (pytest -s shows it)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_no_order_of_what_was_not_fsynced_leaves_the_device_without_a_model(
    recording: Recording, share: float, seed: int
) -> None:
    recording.check(round(share * len(recording.ops)), Chance(seed))


def test_a_disk_that_is_not_told_to_sync_loses_the_model(recording: Recording) -> None:
    """The sweep itself must be able to see a missing fsync."""
    forgetful = [op for op in recording.ops if (op.kind, op.path) != (Kind.SYNC, "models/detector")]

    with tempfile.TemporaryDirectory() as folder:
        replay(Path(folder) / "state", forgetful, len(forgetful), Policy.DROP)

        assert slot(Path(folder) / "state", "current") is None
