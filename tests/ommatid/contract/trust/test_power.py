"""Kill, fill up or unplug the device at every operation on its disk: the next start knows whom to trust."""

import json
import shutil
from pathlib import Path

import pytest

from ommatid.contract.trust.errors import ReplayedError
from ommatid.disk import RealDisk
from ommatid.errors import StorageError
from tests.support.device_trust import Device
from tests.support.disks import Chance, CrashingDisk, FullDisk, Policy, PowerCut, RecordingDisk, replay
from tests.support.repository import Fleet


class QuickDisk(RealDisk):
    """A disk without fsync: what an fsync is worth is played through by `replay`, and a real one costs minutes."""

    def sync(self, path: Path) -> None:
        assert path.exists()


class Story:
    """A device at work: a first release, then a second after all keys were rotated, and its commit."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.first = self.fleet.direct(self.fleet.push("1.0"))
        self.old_files = dict(self.fleet.files)
        self.fleet.rotate_release_root()
        self.fleet.rotate_online_key()
        self.fleet.serve_rotated()
        second = self.fleet.push("2.0")
        self.replayed = self.fleet.direct(second, rev=1)
        self.second = self.fleet.direct(second, rev=2)

    def begin(self, device: Device) -> None:
        device.fetcher.files = self.old_files
        assert device.check(self.first) is not None

    def go_on(self, device: Device) -> None:
        device.fetcher.files = self.fleet.files
        assert device.check(self.second) is not None
        device.store.raise_counter_floor("detector", 1)

    def all(self, device: Device) -> None:
        self.begin(device)
        self.go_on(device)

    def restart(self, folder: Path, *, second_was_accepted: bool) -> None:
        """Open what is left: metadata is whole, what was accepted is not forgotten, and updates go on."""
        device = Device(folder, self.fleet, QuickDisk())
        floors = device.store.floors()
        assert all(json.loads(path.read_bytes())["signed"] for path in folder.glob("*.json"))
        assert not list((folder / "generations").iterdir())[1:]
        if second_was_accepted:
            assert floors.director_version == 2
            with pytest.raises(ReplayedError):
                device.check(self.replayed)
        self.go_on(device)
        assert device.store.floors().counters == {"detector": 1}
        assert {path.name for path in folder.glob("*.json")} == {
            "root.json",
            "timestamp.json",
            "snapshot.json",
            "targets.json",
        }


@pytest.fixture(scope="module")
def story() -> Story:
    return Story()


def test_a_kill_at_any_operation_leaves_a_store_that_works(story: Story, tmp_path: Path) -> None:
    counted = CrashingDisk(QuickDisk())
    story.all(Device(tmp_path / "counted", story.fleet, counted))
    assert counted.points.passed > 50

    for stop_at in range(counted.points.passed):
        folder = tmp_path / str(stop_at)
        device = Device(folder, story.fleet, CrashingDisk(QuickDisk(), stop_at))
        with pytest.raises(PowerCut):
            story.all(device)
        story.restart(folder, second_was_accepted=False)
        shutil.rmtree(folder)


def test_a_full_disk_is_named_and_goes_by(story: Story, tmp_path: Path) -> None:
    counted = FullDisk(QuickDisk())
    story.all(Device(tmp_path / "counted", story.fleet, counted))

    for fail_at in range(counted.operations):
        disk = FullDisk(QuickDisk(), fail_at)
        device = Device(tmp_path / str(fail_at), story.fleet, disk)
        with pytest.raises(StorageError):
            story.all(device)
        disk.free()
        story.go_on(device)
        shutil.rmtree(tmp_path / str(fail_at))


@pytest.mark.parametrize("policy", list(Policy), ids=lambda policy: policy.name.lower())
def test_a_power_cut_after_any_operation_leaves_a_store_that_works(
    story: Story, tmp_path: Path, policy: Policy
) -> None:
    cut_everywhere(story, tmp_path, policy)


@pytest.mark.parametrize("seed", [1])
def test_a_power_cut_that_keeps_changes_by_chance_leaves_a_store_that_works(
    story: Story, tmp_path: Path, seed: int
) -> None:
    cut_everywhere(story, tmp_path, Chance(seed))


def cut_everywhere(story: Story, tmp_path: Path, policy: Policy | Chance) -> None:
    root = tmp_path / "recorded"
    root.mkdir()
    disk = RecordingDisk(root, disk=QuickDisk())
    device = Device(root / "trust", story.fleet, disk)
    story.begin(device)
    device.fetcher.files = story.fleet.files
    device.check(story.second)
    accepted_at = len(disk.ops)
    device.store.raise_counter_floor("detector", 1)
    assert accepted_at > 50

    for upto in range(len(disk.ops) + 1):
        remains = tmp_path / str(upto)
        replay(remains, disk.ops, upto, policy)
        story.restart(remains / "trust", second_was_accepted=upto >= accepted_at)
        shutil.rmtree(remains)
