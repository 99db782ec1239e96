"""The commands that steer and show the fleet, run as a person runs them, against a real server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleet_server.ingest.batch import Arrival, store
from ommatid.contract.messages import State, UpdateState, Window
from ommatid.contract.topics import DeviceTopics
from tests.support.page_server import page_server
from tests.support.small_fleet import TENANT, SmallFleet, histogram, reference


@dataclass(frozen=True)
class Desk:
    """A fleet, and the command line of somebody who steers it."""

    fleet: SmallFleet
    profile: Path

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from fleet_server.cli import main; main()", "--profile", str(self.profile)]
        return subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PYTHONPATH": "."}
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.begin(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    fleet = SmallFleet(tmp_path, real_time=True)
    fleet.push("1")
    fleet.enrol("cam-a", "cam-b")
    with page_server(tmp_path, fleet) as server:
        (tmp_path / "token").write_text(server.token)
        profile = tmp_path / "operator.toml"
        profile.write_text(f'server = "{server.url}"\nca = "authority/ca.crt"\ntoken_file = "token"\n')
        yield Desk(fleet, profile)
    fleet.database.close()


def until(desk: Desk, rollout: str, device: str) -> None:
    """Tick until a device has the offer."""
    seen = 0
    while device not in (desk.fleet.parts(rollout) if desk.fleet.desk.every() else {}):
        desk.fleet.runner.tick()
        seen = desk.fleet.changes.wait(seen, timeout_s=0.2)


def test_start_and_wait_follows_the_rollout_to_its_end(desk: Desk) -> None:
    # given
    waiting = desk.begin("rollout", "start", "detector", "1", "--stages", "100%", "--soak", "0", "--wait", "--json")

    # when
    for device in ("cam-a", "cam-b"):
        until(desk, "1", device)
        desk.fleet.commit(device, "1")
    desk.fleet.runner.tick()
    out, err = waiting.communicate(timeout=30)

    # then
    status = json.loads(out)
    assert waiting.returncode == 0
    assert (status["id"], status["model"], status["version"], status["state"]) == ("1", "detector", "1", "finished")
    assert status["push_to_committed_s"] > 0
    assert {device["id"]: device["state"] for device in status["devices"]} == {
        "cam-a": "committed",
        "cam-b": "committed",
    }
    assert "rollout 1: finished" in err


def test_an_aborted_rollout_ends_the_wait_with_exit_1(desk: Desk) -> None:
    # given
    options = ("--stages", "100%", "--max-failures", "1", "--wait", "--json")
    waiting = desk.begin("rollout", "start", "detector", "1", *options)

    # when
    until(desk, "1", "cam-a")
    desk.fleet.update("cam-a", "1", UpdateState.REFUSED, error="AgreementError", reason="agreement 0.4, needs 0.97")
    desk.fleet.runner.tick()
    out, err = waiting.communicate(timeout=30)

    # then
    assert waiting.returncode == 1
    failed = [device for device in json.loads(out)["devices"] if device["error"]]
    assert [(one["id"], one["error"], one["reason"]) for one in failed] == [
        ("cam-a", "AgreementError", "agreement 0.4, needs 0.97")
    ]
    assert "error: rollout 1 of detector 1 was aborted" in err
    assert "hint: `fleet rollout status 1`" in err


def test_a_rollout_is_paused_resumed_aborted_and_listed(desk: Desk) -> None:
    assert desk.run("rollout", "start", "detector", "1")[0] == 0
    assert "is paused" in desk.run("rollout", "pause", "1")[2]
    assert "is running" in desk.run("rollout", "resume", "1")[2]
    assert json.loads(desk.run("rollout", "abort", "1", "--json")[1])["state"] == "aborted"
    assert "aborted by anna" in desk.run("rollout", "status")[1]
    assert "aborted by anna" in desk.run("rollout", "status", "1")[1]


def test_a_dry_run_shows_the_stages_and_starts_nothing(desk: Desk) -> None:
    desk.fleet.enrol("cam-x", arch="x86_64")

    code, out, _ = desk.run("rollout", "start", "detector", "1", "--stages", "1,100%", "--dry-run")

    assert code == 0
    assert "cam-x is passed over: is x86_64; the release is for aarch64" in out
    assert desk.fleet.desk.every() == []


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("rollout", "start", "detector", "8"), 1, "no release detector 8 was pushed"),
        (("rollout", "start", "detector", "1", "--stages", "0%"), 1, "--stages: 0% is not between 0% and 100%"),
        (("rollout", "start", "detector", "1", "--soak", "long"), 2, "not a time such as"),
        (("rollout", "status", "7"), 1, "there is no rollout '7'"),
        (("rollout", "start", "detector"), 2, "Missing argument 'VERSION'"),
    ],
)
def test_what_makes_no_sense_is_refused(desk: Desk, arguments: tuple[str, ...], code: int, told: str) -> None:
    result = desk.run(*arguments)

    assert result[0] == code
    assert told in result[2]
    assert "Traceback" not in result[2]


def test_devices_and_telemetry_are_shown(desk: Desk) -> None:
    # given
    desk.fleet.show("cam-a", model=reference("1"))
    signals = {"brightness": histogram("lin:0:256", {90: 100}, 90.5)}
    desk.fleet.window("cam-a", source="gate", started_at="x", duration_s=10.0, frames=100, dropped=1, signals=signals)

    # when
    listed = desk.run("devices")[1]
    as_json = json.loads(desk.run("devices", "--json")[1])
    measured = desk.run("telemetry")[1]

    # then
    assert "detector 1 (int8-arm)" in listed
    assert [device["id"] for device in as_json] == ["cam-a", "cam-b"]
    assert "90.50" in measured


def test_the_page_command_says_where_the_page_and_the_token_are(desk: Desk) -> None:
    code, out, err = desk.run("page")

    assert (code, out.startswith("https://127.0.0.1:")) == (0, True)
    assert str(desk.profile.parent / "token") in err
    assert "token-of-anna" not in out + err


def test_what_a_device_says_steers_no_terminal_and_is_no_markup(desk: Desk) -> None:
    # given a device whose every word is meant for the operator's terminal
    said = "[/] [red]\x1b]0;owned\x07 \x1b[2J \x9b2J"
    state = State.model_validate(
        {
            "online": True,
            "model": {"name": said, "version": said, "target": said, "digest": "0" * 64, "release_counter": 1},
            "sources": [{"name": said, "state": "down", "quality": "flagged", "quality_reasons": [said]}],
        }
    )
    window = histogram_window(said)
    with desk.fleet.database.write() as session:
        store(session, [Arrival(DeviceTopics(TENANT, "cam-a"), one) for one in (state, window)], datetime.now(UTC))

    for command in ("devices", "telemetry"):
        for options in ((), ("--json",)):
            # when
            status, out, err = desk.run(command, *options)

            # then
            assert status == 0, err
            assert not set(out + err) & set("\x1b\x07\x9b")
            assert "[red]" in out


def histogram_window(label: str) -> Window:
    return Window(
        boot="0" * 32,
        seq=1,
        uptime_s=1,
        sent_at="",
        source="lane",
        started_at="",
        duration_s=1,
        frames=1,
        dropped=0,
        classes={label: 1},
    )
