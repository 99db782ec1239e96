"""A disk on which the n-th operation fails, once or from then on, for every n."""

from pathlib import Path

import httpx
import pytest

from agent.update import engine as engine_module
from ommatid.disk import Disk
from tests.support.disks import FullDisk
from tests.support.updating import BundleServer, Device, FastDisk, Signed, slot

SHARDS = 3


def device_on(home: Path, disk: Disk, server: BundleServer, client: httpx.Client) -> Device:
    return Device(home, server.url, client=client, disk=disk)


@pytest.mark.parametrize("failures", [1, None], ids=["once", "for-good"])
@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_disk_that_fails_at_any_operation_never_stops_the_model_and_the_update_ends(
    tmp_path: Path,
    server: BundleServer,
    client: httpx.Client,
    v1: Signed,
    v2: Signed,
    shard: int,
    failures: int | None,
) -> None:
    fail_at, swept = shard, 0
    while True:
        # given a device that runs version 1
        home = tmp_path / str(fail_at)
        disk = FullDisk(FastDisk(), fail_at, failures)
        device = device_on(home, FastDisk(), server, client)
        device.run(v1.document)
        device = device_on(home, disk, server, client)
        device.engine.recover()

        # when its disk fails during the update to version 2
        device.engine.offer(v2.document)
        for _ in range(200):
            if device.engine.idle:
                break
            device.engine.tick()
            device.see_a_frame()
        if disk.operations <= fail_at:
            break
        swept += 1

        # then a whole model runs, and the end is reported
        running = device.loop.status().active
        assert running in {v1.sha256, v2.sha256}
        assert slot(device.root, "current") == running, f"operation {fail_at}"
        assert device.engine.record.state.final, f"operation {fail_at}: {device.engine.record}"
        offered = device.engine.record.release is not None and device.engine.record.release.sha256 == v2.sha256
        assert device.states[-1] == device.engine.record.state or not offered
        assert device.engine.record.failed == {}

        # and with room again, the same document leads to version 2
        disk.free()
        device.clock.pass_s(engine_module.RETRY_S)
        device.engine.offer(v2.document)
        device.finish()
        assert (device.current, device.previous) == (v2.sha256, v1.sha256), f"operation {fail_at}"
        fail_at += SHARDS
    assert swept * SHARDS > 90
