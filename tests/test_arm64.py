"""The device's code on arm64: a Debian userland under qemu-user, wheels from the agent's lock, a real int8 bundle."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ommatid.contract.bundle import unpack_bundle

ROOT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("OMMATID_CACHE", ROOT / ".cache"))
BIN = Path(sys.executable).parent


def run(*command: str | Path, **environment: str) -> str:
    """Run a command; its output is the failure message."""
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}: {result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def userland() -> Path:
    """Return a Debian arm64 root with its qemu."""
    folder = CACHE / "arm64"
    run(ROOT / "tools" / "arm64-root", folder)
    return folder


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the demo's detector as an int8-arm bundle, unpacked."""
    folder = tmp_path_factory.mktemp("int8")
    assets = json.loads(run(sys.executable, ROOT / "tools" / "assets.py", "--json"))
    video = assets["video"]
    run(
        *(BIN / "optimizer", "build", assets["model"], "--target", "int8-arm", "--decode", "ssd"),
        *("--labels", assets["labels"], "--name", "street", "--version", "1", "-o", folder),
        *("--calibrate", f"{video}#t=0,30", "--validate", f"{video}#t=40,75"),
    )
    unpack_bundle(next(folder.glob("*.bundle")), folder / "unpacked")
    return folder / "unpacked"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_golden_samples_of_an_int8_bundle_pass_on_arm64(userland: Path, int8_bundle: Path, tmp_path: Path) -> None:
    # given: the agent's locked packages, as wheels for arm64 alone
    platform = ("--python-version", "3.13", "--python-platform", "aarch64-manylinux_2_40", "--only-binary", ":all:")
    locked = ("--require-hashes", "-r", ROOT / "requirements" / "agent.txt")
    away = ("--directory", tmp_path)  # from pyproject.toml, whose constraints are for locking
    run(BIN / "uv", *away, "pip", "install", "--quiet", "--target", tmp_path, *platform, *locked)
    python = (userland / "usr/bin/qemu-aarch64", "-L", userland, userland / "usr/bin/python3.13")

    # when: the trial runs there, as it would on a device
    paths = f"{tmp_path}:{ROOT}"
    printed = run(*python, "-m", "agent.trial", "--candidate", int8_bundle, "--memory-mb", "4096", PYTHONPATH=paths)

    # then
    machine = run(*python, "-c", "import platform; print(platform.machine())")
    verdict = json.loads(printed.splitlines()[-1])
    assert machine.strip() == "aarch64"
    assert verdict["passed"], verdict
