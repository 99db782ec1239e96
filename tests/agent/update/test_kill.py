"""Kill -9 at every write, fsync, rename and port call of an update: the next start runs the old or the new model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.updating import BundleServer, Device, Signed

ROOT = Path(__file__).parents[3]
SHARDS = 4


def sweep(device: Device, server: BundleServer, to: Signed, least: int, **task: Any) -> None:  # noqa: ANN401 (JSON)
    """Kill the device at each moment of its update to `to`, which has at least so many."""
    home = device.root.parent
    task |= {
        "template": str(home),
        "home": str(home.with_name(f"{home.name}-swept")),
        "url": server.url,
        "document": to.document.decode(),
        "old": device.current,
        "new": to.sha256,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.kill_sweep"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    swept = json.loads(done.stdout)
    print(f"{swept['swept']} moments swept")  # noqa: T201 (pytest -s shows it)
    assert swept["failures"] == [], done.stderr
    assert swept["last"] >= least


@pytest.mark.parametrize("loop_dies", [True, False], ids=["whole-agent", "supervisor-alone"])
@pytest.mark.parametrize("shard", range(SHARDS))
def test_after_a_kill_at_any_moment_the_update_is_committed(
    device: Device, server: BundleServer, v1: Signed, v2: Signed, shard: int, *, loop_dies: bool
) -> None:
    ends = ("committed", v2.sha256, v1.sha256)

    sweep(device, server, v2, 140, first=shard, step=SHARDS, ends=ends, failing=[], loop_dies=loop_dies, twice=False)


@pytest.mark.parametrize("loop_dies", [True, False], ids=["whole-agent", "supervisor-alone"])
def test_two_kills_in_one_update_do_not_keep_it_from_its_commit(
    device: Device, server: BundleServer, v1: Signed, v2: Signed, *, loop_dies: bool
) -> None:
    ends = ("committed", v2.sha256, v1.sha256)

    sweep(device, server, v2, 140, first=1, step=5, ends=ends, failing=[], loop_dies=loop_dies, twice=True)


@pytest.mark.parametrize("loop_dies", [True, False], ids=["whole-agent", "supervisor-alone"])
@pytest.mark.parametrize("shard", range(2))
def test_after_a_kill_at_any_moment_a_bad_model_is_rolled_back(
    device: Device, server: BundleServer, v1: Signed, v2: Signed, shard: int, *, loop_dies: bool
) -> None:
    ends = ("rolled_back", v1.sha256, None)

    sweep(
        device, server, v2, 120, first=shard, step=4, ends=ends, failing=[v2.sha256], loop_dies=loop_dies, twice=False
    )


@pytest.mark.parametrize("loop_dies", [True, False], ids=["whole-agent", "supervisor-alone"])
def test_after_a_kill_at_any_moment_the_way_back_to_the_previous_model_is_finished(
    device: Device, server: BundleServer, v1: Signed, v2: Signed, *, loop_dies: bool
) -> None:
    device.engine.offer(v2.document)
    device.finish()
    order = Signed(**{**vars(v1), "rev": 9})
    ends = ("committed", v1.sha256, v2.sha256)

    sweep(device, server, order, 60, first=0, step=2, ends=ends, failing=[], loop_dies=loop_dies, twice=False)
