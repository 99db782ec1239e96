"""A device whose clock is in 1970, as after each power cut where there is no battery."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import BIN, call, until
from tests.support.system import System


@pytest.fixture(scope="module")
def in_1970(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the start of a command line under which it is 1970."""
    library = tmp_path_factory.mktemp("clock") / "clock_1970.so"
    source = Path(__file__).parents[1] / "support" / "clock_1970.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    return "/usr/bin/env", f"LD_PRELOAD={library}"


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System.begin(tmp_path_factory.mktemp("s"))
    try:
        yield system
    finally:
        system.end()


def test_a_device_in_1970_enrols_and_gets_its_updates(system: System, in_1970: tuple[str, ...]) -> None:
    # given: a device that believes it is 1970
    agent = system.add_agent("cam-a", wrapper=in_1970)

    # when: two versions are rolled out
    system.install()
    version = system.install()

    # then: it runs the second, and its reports are stored, with its own idea of the time
    system.wait_running(version)
    until(lambda: any(line["model"] is not None for line in agent.seen()), "frames with a model")
    assert agent.seen()[-1]["captured_at"] < "2000"
    updates = system.confirmed(agent).of_kind("update")
    assert all(body["sent_at"] < "2000" for body in updates)


def test_a_server_in_1970_signs_nothing(tmp_path: Path, in_1970: tuple[str, ...]) -> None:
    fleet, keys = tmp_path / "fleet", tmp_path / "keys"
    program = BIN / "fleet"

    result = call(*in_1970, program, "init", fleet, "--keys", keys, expect=1)

    assert [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "clock" in result.stderr
    assert "hint: " in result.stderr
    assert not [path for folder in (fleet, keys) for path in folder.rglob("*")]
