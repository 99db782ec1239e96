"""The `fleet` command as a person meets it: clear errors, right exit codes, secrets in files."""

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from ommatid.contract.enrolment import EnrolmentToken
from tests.support.fleet_server import FleetServer
from tests.support.programs import call


def fleet(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return call("fleet", *arguments, expect=None)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "\nerror: " in f"\n{done.stderr}"
    assert "\nhint: " in done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_serving_without_a_fleet_says_how_to_make_one(tmp_path: Path) -> None:
    assert_refused(fleet("--dir", tmp_path / "none", "serve"), "no fleet server here", "fleet init")


def test_a_command_without_a_profile_says_where_one_comes_from(tmp_path: Path) -> None:
    assert_refused(fleet("--dir", tmp_path / "none", "token"), "no such profile", "fleet init")


@pytest.mark.parametrize("arguments", [("nonsense",), ("token", "--expires", "soon"), ("init",), ("push",)])
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert fleet(*arguments).returncode == 2


@pytest.mark.parametrize(
    ("option", "value"), [("--tenant", "A/B"), ("--host", "a b"), ("--name", "'\"\\"), ("--http-port", "8883")]
)
def test_settings_that_cannot_be_are_refused_before_anything_is_made(tmp_path: Path, option: str, value: str) -> None:
    done = fleet("init", tmp_path / "server", "--keys", tmp_path / "keys", option, value)

    assert_refused(done)
    assert list(tmp_path.iterdir()) == []


def test_init_says_what_must_be_carried_away(tmp_path: Path) -> None:
    done = fleet("init", tmp_path / "server", "--keys", tmp_path / "keys")

    assert done.returncode == 0
    assert f"{tmp_path / 'keys'}: the release keys. Carry them away" in done.stderr
    assert (tmp_path / "server" / "operator.token").read_text().strip() not in done.stderr + done.stdout


def test_what_init_makes_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        fleet("init", tmp_path / "server", "--keys", tmp_path / "keys")
    finally:
        os.umask(before)

    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes[tmp_path / "server"] == modes[tmp_path / "keys"] == 0o700
    assert modes[tmp_path / "server" / "fleet.db"] == 0o600
    assert not [path for path, mode in modes.items() if mode & 0o077]


@pytest.mark.parametrize(("port", "what"), [("http_port", "HTTP"), ("mqtt_port", "MQTT")])
def test_a_port_in_use_is_one_clear_error(tmp_path: Path, port: str, what: str) -> None:
    server = FleetServer(tmp_path)
    number = getattr(server, port)
    with socket.create_server(("127.0.0.1", number)):
        done = server.call("serve", expect=None)

    assert_refused(done, f"127.0.0.1:{number}", what, "in use", "another port")


def test_a_token_is_printed_or_written_for_its_owner_alone(server: FleetServer, tmp_path: Path) -> None:
    path = tmp_path / "token"

    printed = server.call("token", "--tag", "lab", "--expires", "30m", "--uses", "3")
    written = server.call("token", "-o", path)

    assert EnrolmentToken.decode(printed.stdout).url == server.url
    assert printed.stdout.count("\n") == 1
    assert written.stdout == ""
    assert EnrolmentToken.decode(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_token_overwrites_nothing(server: FleetServer, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("the one of yesterday")

    refused = server.call("token", "-o", path, expect=None)

    assert_refused(refused, f"{path}: there is something already")
    assert path.read_text() == "the one of yesterday"


def test_revoking_nobody_is_one_clear_error(server: FleetServer) -> None:
    assert_refused(server.call("revoke", "nobody", expect=None), "there is no device 'nobody'")
