"""A model without a server: `edge-agent run --bundle`."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.bundles import make_bundle
from tests.support.loops import make_video
from tests.support.programs import BIN, call


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "video.avi", frames=30)


def test_every_frame_is_one_line_and_the_end_of_the_video_ends_it(bundle: Path, video: Path) -> None:
    options = ("--as-fast-as-possible", "--results", "-")

    result = call("edge-agent", "run", "--bundle", bundle, "--source", video, *options)

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["index"] for line in lines] == list(range(30))
    assert all(line["model"] and line["objects"] and line["quality"]["state"] for line in lines)
    assert "camera: 30 frames, 0 dropped" in result.stderr


def test_a_reader_that_has_seen_enough_ends_it(bundle: Path, video: Path) -> None:
    options = ("--bundle", bundle, "--source", f"{video}#loop", "--results", "-")
    with subprocess.Popen(
        [BIN / "edge-agent", "run", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert json.loads(run.stdout.readline())["objects"]

        run.stdout.close()

        assert run.wait(60) == 0
        said = run.stderr.read()
    assert "Errno" not in said
    assert "WARNING" not in said
    assert "error" not in said


def test_a_bundle_with_one_flipped_bit_is_refused(tmp_path: Path, bundle: Path, video: Path) -> None:
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bad = tmp_path / bundle.name
    bad.write_bytes(content)

    result = call("edge-agent", "run", "--bundle", bad, "--source", video, expect=1)

    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr


def test_a_model_that_fails_its_golden_samples_never_meets_the_camera(tmp_path: Path, video: Path) -> None:
    bad = make_bundle(tmp_path, fault="golden")

    result = call("edge-agent", "run", "--bundle", bad, "--source", video, "--results", "-", expect=1)

    assert "GoldenMismatchError" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("content", [None, b"", b"no video"])
def test_a_video_that_does_not_decode_is_one_clear_error(tmp_path: Path, bundle: Path, content: bytes | None) -> None:
    video = tmp_path / "broken.avi"
    if content is not None:
        video.write_bytes(content)

    result = call("edge-agent", "run", "--bundle", bundle, "--source", video, expect=1)

    assert [line for line in result.stderr.splitlines() if line.startswith("error: ")] == [
        line for line in result.stderr.splitlines() if "broken.avi" in line
    ]


def test_a_bundle_that_is_not_there_and_no_source_are_named(tmp_path: Path, bundle: Path, video: Path) -> None:
    missing = call("edge-agent", "run", "--bundle", tmp_path / "none.bundle", "--source", video, expect=1)
    sourceless = call("edge-agent", "run", "--bundle", bundle, expect=1)

    assert "none.bundle: no such bundle" in missing.stderr
    assert "--source" in sourceless.stderr
