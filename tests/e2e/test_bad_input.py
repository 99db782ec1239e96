"""What people get wrong at the command line: each gets one clear error, and nothing half-written stays behind."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import free_port
from tests.support.bundles import make_bundle
from tests.support.fleet_server import FleetServer
from tests.support.full_disk import small_disk
from tests.support.loops import make_video
from tests.support.nets import build_arguments
from tests.support.programs import BIN, call, until

Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    fleet = FleetServer(tmp_path_factory.mktemp("fleet"))
    fleet.start()
    yield fleet
    fleet.stop()


def found(folder: Path) -> FleetServer:
    """Return a fleet that was founded, and never started."""
    return FleetServer(folder)


def the_error(result: Result) -> str:
    """Return the text of the one error that a command ended with."""
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert (result.returncode, len(errors)) == (1, 1), result.stderr
    assert [line for line in lines if line.startswith("hint: ")], result.stderr
    assert "Traceback" not in result.stderr
    return errors[0]


def enroll(state_dir: Path, token: str) -> Result:
    return call("edge-agent", "enroll", "--token-file", "-", "--state-dir", state_dir, stdin=token, expect=None)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class TestAServerThatIsNotThere:
    def test_is_named_to_whoever_enrols(self, tmp_path: Path, fleet: FleetServer) -> None:
        url = f"https://localhost:{free_port()}"
        token = fleet.token().model_copy(update={"url": url})

        result = enroll(tmp_path, token.encode())

        assert url in the_error(result)
        assert "identity/enrolment.json" not in files(tmp_path)

    def test_is_named_to_the_operator(self, tmp_path: Path) -> None:
        fleet = found(tmp_path)

        result = fleet.call("devices", expect=None)

        assert "https://localhost:" in the_error(result)
        assert "fleet serve" in result.stderr


class TestAPortInUse:
    @pytest.mark.parametrize("option", ["http", "mqtt"])
    def test_is_named_by_the_server_that_wants_it(self, tmp_path: Path, option: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ports = {"http": free_port(), "mqtt": free_port()} | {option: port}
            options = ("--http-port", str(ports["http"]), "--mqtt-port", str(ports["mqtt"]))
            call("fleet", "init", tmp_path / "fleet", "--keys", tmp_path / "keys", *options)

            result = call("fleet", "--dir", tmp_path / "fleet", "serve", expect=None)

        assert f"127.0.0.1:{port}" in the_error(result)
        assert f"{option}_port" in result.stderr

    def test_is_named_by_the_agent_that_wants_it(self, tmp_path: Path) -> None:
        video, bundle = make_video(tmp_path / "video.avi"), make_bundle(tmp_path)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            options = ("--source", video, "--http-port", str(port))

            result = call("edge-agent", "run", "--bundle", bundle, *options, expect=None)

        assert f"127.0.0.1:{port}: the port is in use" in the_error(result)


class TestAnEnrolmentToken:
    def test_that_has_expired_is_refused(self, tmp_path: Path, fleet: FleetServer) -> None:
        token, made = fleet.token(expires_s=1).encode(), time.monotonic()
        until(lambda: time.monotonic() - made > 1.1, "the end of the token")

        result = enroll(tmp_path, token)

        assert "expired" in the_error(result)
        assert "fleet token" in result.stderr
        assert "identity/enrolment.json" not in files(tmp_path)

    def test_that_was_used_is_refused_to_a_second_device(self, tmp_path: Path, fleet: FleetServer) -> None:
        token = fleet.token().encode()
        assert enroll(tmp_path / "first", token).returncode == 0

        result = enroll(tmp_path / "second", token)

        assert "used" in the_error(result)
        assert "identity/enrolment.json" not in files(tmp_path / "second")

    def test_that_was_cut_short_is_none(self, tmp_path: Path, fleet: FleetServer) -> None:
        result = enroll(tmp_path, fleet.token().encode()[:40])

        assert "not an enrolment token" in the_error(result)
        assert files(tmp_path) == []


class TestABundle:
    def test_that_was_cut_short_is_not_pushed(self, tmp_path: Path, fleet: FleetServer) -> None:
        bundle = make_bundle(tmp_path, "short")
        bundle.write_bytes(bundle.read_bytes()[: bundle.stat().st_size // 2])

        result = fleet.call("push", bundle, "--keys", fleet.keys, expect=None)

        assert bundle.name in the_error(result)
        assert "short" not in fleet.call("releases", "--json").stdout

    def test_whose_version_was_pushed_with_other_content_is_not_pushed(
        self, tmp_path: Path, fleet: FleetServer
    ) -> None:
        fleet.call("push", make_bundle(tmp_path / "a", "twice"), "--keys", fleet.keys)
        other = make_bundle(tmp_path / "b", "twice", samples=1)

        result = fleet.call("push", other, "--keys", fleet.keys, expect=None)

        assert "twice" in the_error(result)

    def test_cannot_follow_releases_that_went_back(self, tmp_path: Path) -> None:
        # given: a server that was restored from a backup, and has forgotten the last release
        fleet = found(tmp_path)
        fleet.start()
        fleet.call("push", make_bundle(tmp_path, "back", "1"), "--keys", fleet.keys)
        fleet.stop()
        shutil.copytree(fleet.folder, tmp_path / "backup")
        fleet.start()
        fleet.call("push", make_bundle(tmp_path, "back", "2"), "--keys", fleet.keys)
        fleet.stop()
        shutil.rmtree(fleet.folder)
        shutil.copytree(tmp_path / "backup", fleet.folder)
        fleet.start()
        before = files(fleet.folder / "bundles")

        # when: the next release would take the counter of the forgotten one
        result = fleet.call("push", make_bundle(tmp_path, "back", "3"), "--keys", fleet.keys, expect=None)

        # then: it is refused, and the server has nothing of it
        assert "pushed from here" in the_error(result)
        assert files(fleet.folder / "bundles") == before
        fleet.stop()


@pytest.mark.parametrize("content", [b"", b"no video at all" * 1000])
def test_a_video_that_does_not_decode_is_named(tmp_path: Path, content: bytes) -> None:
    video = tmp_path / "street.avi"
    video.write_bytes(content)

    result = call("edge-agent", "run", "--bundle", make_bundle(tmp_path), "--source", video, expect=None)

    assert "street.avi" in the_error(result)
    assert result.stdout == ""


class TestAFullDisk:
    def test_leaves_no_half_bundle_of_the_optimizer(self, tmp_path: Path) -> None:
        arguments = build_arguments(tmp_path)
        wrapper = small_disk(tmp_path / "out", "8k")
        look = ("sh", "-c", 'out="$1"; shift; "$@"; code=$?; find "$out" -mindepth 1; exit $code', "sh")

        command = (*wrapper, *look, str(tmp_path / "out"), str(BIN / "optimizer"), *arguments)
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

        assert str(tmp_path / "out") in the_error(result)
        assert result.stdout == ""

    @pytest.mark.parametrize("size", ["8k", "28k"])  # full in the middle of the bundle, and in its last few bytes
    def test_of_the_server_refuses_a_push_and_goes_on_serving(self, tmp_path: Path, size: str) -> None:
        # given: a server whose folder of bundles is nearly full
        fleet = found(tmp_path)
        wrapper = small_disk(fleet.folder / "bundles", size)
        with (tmp_path / "log").open("ab") as log:
            command = (*wrapper, str(BIN / "fleet"), "--dir", str(fleet.folder), "serve")
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            until(lambda: fleet.call("devices", expect=None).returncode == 0, "the fleet server", 60)

            # when: a bundle comes that is larger than what is left
            result = fleet.call("push", make_bundle(tmp_path), "--keys", fleet.keys, expect=None)

            # then: it is refused, and nothing of it stays
            assert "No space left" in the_error(result)
            inside = Path(f"/proc/{process.pid}/root{fleet.folder}")
            assert files(inside / "bundles") == []
            assert fleet.call("releases", "--json").stdout.strip() == "[]"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
