import configparser
import subprocess
from pathlib import Path

import pytest

from agent.processes import EX_CONFIG, LOOP_ENVIRONMENT

UNITS = Path(__file__).parents[2] / "systemd"
NAMES = ("edge-agent-loop.service", "edge-agent-supervisor.service")


def read(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # systemd's names have capitals
    parser.read(UNITS / name)
    return parser


@pytest.mark.parametrize("name", NAMES)
def test_systemd_understands_every_line(tmp_path: Path, name: str) -> None:
    for each in NAMES:
        (tmp_path / each).write_text((UNITS / each).read_text().replace("/usr/bin/edge-agent", "/bin/true"))

    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / name], capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")


def test_each_unit_starts_its_half_and_comes_back() -> None:
    loop, supervisor = (read(name)["Service"] for name in NAMES)

    assert loop["ExecStart"].endswith("edge-agent loop")
    assert supervisor["ExecStart"].endswith("edge-agent supervise")
    assert loop["Restart"] == supervisor["Restart"] == "always"
    assert supervisor["Type"] == "notify"
    assert int(supervisor["RestartPreventExitStatus"]) == EX_CONFIG


def test_the_loop_has_the_environment_that_run_gives_it() -> None:
    text = (UNITS / NAMES[0]).read_text()

    assert all(f"{name}={value}" in text for name, value in LOOP_ENVIRONMENT.items())


def test_what_broke_real_devices_is_not_asked_for() -> None:
    for name in NAMES:
        service = read(name)["Service"]
        assert service["ProcSubset"] == "all"
        assert "@resources" not in service["SystemCallFilter"]
        assert "MemoryDenyWriteExecute" not in service
