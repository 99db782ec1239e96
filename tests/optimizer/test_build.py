import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from ommatid.contract.bundle import read_manifest, unpack_bundle
from ommatid.contract.manifest import MAX_GOLDEN
from ommatid.runtime.golden import check_golden
from ommatid.runtime.model import Model
from ommatid.vision.reference import ReferenceProfile
from tests.support.models import write_detector_onnx
from tests.support.nets import (
    CLASSES,
    ROOT,
    build_arguments,
    make_model,
    optimizer,
    report,
    write_pictures,
    write_spots,
    write_video,
)

PER_TENSOR = ("--per-tensor", "--no-search")


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").iterdir())


def replaced(arguments: list[str], **options: str | Path) -> list[str]:
    changed = list(arguments)
    for name, value in options.items():
        changed[changed.index(f"--{name}") + 1] = str(value)
    return changed


def test_a_build_tells_what_it_came_to(tmp_path: Path) -> None:
    arguments = build_arguments(tmp_path)

    told = report(optimizer(*arguments, "--json"))

    bundle = Path(told["bundle"])
    assert bundle.name == "colours-1-int8-x86.bundle"
    assert told["size_bytes"] == bundle.stat().st_size
    assert told["agreement_f1"] == 1
    assert told["images"] == 24
    assert told["gate"] == "passed"
    assert told["float_layers"] == []
    assert told["latency_ms"] > 0
    assert told["float_latency_ms"] > 0
    assert [step["step"] for step in told["steps"]] == ["float model", "int8 per channel, full ranges"]
    assert any("--decode" in text for text in told["assumptions"])


def test_what_is_packed_runs_and_proves_itself_on_a_device(tmp_path: Path) -> None:
    told = report(optimizer(*build_arguments(tmp_path), "--json"))

    manifest = unpack_bundle(Path(told["bundle"]), tmp_path / "device")

    with Model.load(tmp_path / "device") as model:
        verdict = check_golden(model)
        red = model.infer(np.full((30, 40, 3), (20, 30, 220), np.uint8)).result
    profile = ReferenceProfile.decode((tmp_path / "device" / manifest.reference).read_bytes())
    assert verdict.passed
    assert len(verdict.samples) == told["golden_samples"] <= MAX_GOLDEN
    assert CLASSES[int(red.class_id[0])] == "red"
    assert profile.images == 24
    assert manifest.evidence.gate == "passed"
    assert manifest.provenance.calibration_sha256 is not None
    assert manifest.input.dtype == "uint8"
    assert manifest.compatible.arch == ("x86_64",)


@pytest.mark.parametrize("target", ["int8-x86", "int8-arm", "fp32"])
def test_building_twice_gives_the_same_bytes(tmp_path: Path, target: str) -> None:
    first, second = (replaced(build_arguments(tmp_path / name), target=target) for name in ("a", "b"))

    told = [report(optimizer(*arguments, "--json")) for arguments in (first, second)]

    assert told[0]["sha256"] == told[1]["sha256"]


def test_the_gate_refuses_what_lost_too_much_and_writes_nothing(tmp_path: Path) -> None:
    arguments = build_arguments(tmp_path)

    result = optimizer(*arguments, *PER_TENSOR)

    assert result.exit_code == 1
    assert "error: the gate refuses this build: agreement on the likeliest class" in result.stderr
    assert "0.333" in result.stderr
    assert "hint: " in result.stderr
    assert left_over(tmp_path) == []


def test_the_search_finds_what_passes(tmp_path: Path) -> None:
    arguments = build_arguments(tmp_path)

    told = report(optimizer(*arguments, "--per-tensor", "--json"))

    assert told["float_layers"] == ["Conv_0"]
    assert told["agreement_f1"] == 1
    assert read_manifest(Path(told["bundle"])).evidence.float_layers == ("Conv_0",)


def test_a_bad_build_forced_through_fails_its_golden_samples(tmp_path: Path) -> None:
    told = report(optimizer(*build_arguments(tmp_path), *PER_TENSOR, "--no-gate", "--json"))

    result = optimizer("verify", told["bundle"], "--json")

    assert told["gate"] == "overridden"
    assert read_manifest(Path(told["bundle"])).evidence.gate == "overridden"
    assert result.exit_code == 1
    verdict = json.loads(result.stdout)
    assert not verdict["passed"]
    assert verdict["worst_difference"] == 0
    assert verdict["agreement"] < verdict["minimum_agreement"] == 0.97


def test_class_folders_let_the_drop_of_accuracy_decide(tmp_path: Path) -> None:
    arguments = build_arguments(tmp_path)
    write_pictures(tmp_path / "labelled", 24, seed=4, by_class=True)
    judged = replaced(arguments, validate=tmp_path / "labelled")

    good = report(optimizer(*judged, "--max-drop", "0.01", "--json"))
    bad = optimizer(*replaced(judged, version="2"), *PER_TENSOR, "--max-drop", "0.01")

    assert good["accuracy"] == good["float_accuracy"] == 1
    assert bad.exit_code == 1
    assert "accuracy fell by 66.67 points to 33.33 %" in bad.stderr


def test_a_detector_is_built_from_a_video_and_a_decode_file(tmp_path: Path) -> None:
    model = write_detector_onnx(tmp_path / "spots.onnx")
    write_spots(tmp_path / "spots.avi", 40)
    (tmp_path / "decode.toml").write_text(
        'family = "ssd"\n[anchors]\nstrides = [16, 32]\n[input]\nmean = [0.0]\nscale = [1.0]\n'
        'color = "rgb"\nresize = "letterbox"\n[task]\nscore_threshold = 0.6\n'
    )
    video = tmp_path / "spots.avi"
    images = ("--calibrate", f"{video}#t=0,2", "--validate", f"{video}#t=2,4")
    decode = ("--decode", tmp_path / "decode.toml", "--target", "int8-arm", "-o", tmp_path)

    told = report(optimizer("build", model, *images, *decode, "--json"))

    manifest = read_manifest(Path(told["bundle"]))
    assert told["metric"] == "agreement_f1"
    assert told["objects"] > 0
    assert manifest.task.score_threshold == 0.6
    assert manifest.input.resize == "letterbox"
    assert not any("--mean" in text for text in told["assumptions"])


def test_inspect_verify_and_targets_answer_people_and_programs(tmp_path: Path) -> None:
    bundle = report(optimizer(*build_arguments(tmp_path), "--json"))["bundle"]

    assert "colours 1 for int8-x86" in optimizer("inspect", bundle).stdout
    assert report(optimizer("inspect", bundle, "--json"))["manifest"]["name"] == "colours"
    assert "match their digests" in optimizer("verify", bundle).stdout
    assert report(optimizer("verify", bundle, "--json"))["passed"]
    assert "int8-arm" in optimizer("targets").stdout
    assert {entry["name"] for entry in report(optimizer("targets", "--json"))} == {"int8-arm", "int8-x86", "fp32"}


def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    bundle = Path(report(optimizer(*build_arguments(tmp_path), "--json"))["bundle"])
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.write_bytes(content)

    result = optimizer("verify", bundle)

    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def bad_inputs(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Return commands that must fail, and words of their error."""
    good = build_arguments(folder)
    (folder / "empty").mkdir()
    (folder / "text.avi").write_text("no video")
    (folder / "garbage.onnx").write_bytes(b"\x00garbage" * 40)
    (folder / "garbage.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + b"\xff" * 64)
    onnx.save(no_weights(), folder / "pool.onnx")
    onnx.save(foreign(), folder / "foreign.onnx")
    onnx.save(unknown(), folder / "unknown.onnx")
    short = write_video(folder / "short.avi", 10)

    def model(name: str) -> list[str]:
        return ["build", str(folder / name), *good[2:]]

    return {
        "no model": (model("nothing.onnx"), "nothing.onnx: no such file"),
        "not a model": (model("garbage.onnx"), "garbage.onnx: not a model"),
        "labels as model": (model("labels.txt"), "labels.txt: not a model"),
        "not a tflite model": (model("garbage.tflite"), "garbage.tflite: not a TFLite model"),
        "nothing to quantize": (model("pool.onnx"), "GlobalAveragePool"),
        "foreign operator": (model("foreign.onnx"), "org.example.Secret"),
        "empty folder": (replaced(good, calibrate=folder / "empty"), "no image found"),
        "no folder": (replaced(good, validate=folder / "nowhere"), "nowhere"),
        "no video": (replaced(good, calibrate=folder / "text.avi"), "not a video"),
        "past the end": (replaced(good, validate=f"{short}#t=60,70"), "it lasts 1.0 s"),
        "wrong outputs": (replaced(good, decode="ssd"), "scores (1, 3)"),
        "wrong decode": (replaced(good, decode="yolo"), "--decode yolo"),
        "wrong target": (replaced(good, target="int4-toaster"), "int4-toaster"),
        "wrong labels": (replaced(good, labels=folder / "decode.toml"), "decode.toml"),
        "wrong name": ([*good, "--name", "../up"], "--name ../up"),
        "wrong version": (replaced(good, version="1-2"), "--version 1-2"),
        "unknown operator": (model("unknown.onnx"), "does not know: Scarcely"),
        "output is no folder": ([*good, "-o", str(folder / "none")], "none: no such folder"),
        "no output folder": ([*good, "-o", str(folder / "none" / "x.bundle")], "no such folder"),
        "drop without labels": ([*good, "--max-drop", "0.1"], "--max-drop needs labels"),
        "no calibration": (good[: good.index("--calibrate")] + good[good.index("--validate") :], "needs calibration"),
        "size of another": ([*good, "--input-size", "32x32"], "fixed at 16x16"),
    }


def no_weights() -> onnx.ModelProto:
    nodes = [
        helper.make_node("GlobalAveragePool", ["picture"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["scores"]),
    ]
    return make_model(nodes, {}, {"picture": (1, 3, 16, 16)}, {"scores": (1, 3)})


def unknown() -> onnx.ModelProto:
    nodes = [helper.make_node("Scarcely", ["picture"], ["scores"])]
    return make_model(nodes, {}, {"picture": (1, 3, 16, 16)}, {"scores": (1, 3)})


def foreign() -> onnx.ModelProto:
    nodes = [helper.make_node("Secret", ["picture"], ["scores"], domain="org.example")]
    return make_model(nodes, {}, {"picture": (1, 3, 16, 16)}, {"scores": (1, 3)}, domains=["org.example"])


def test_bad_input_gets_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    for name, (arguments, words) in bad_inputs(tmp_path).items():
        result = optimizer(*arguments)

        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert result.exit_code == 1, name
        assert len(errors) == 1, name
        assert words in result.stderr, f"{name}: {result.stderr}"
        assert "\nhint: " in result.stderr, name
        assert left_over(tmp_path) == [], name


def test_wrong_usage_exits_with_2(tmp_path: Path) -> None:
    assert optimizer("build").exit_code == 2
    assert optimizer(*build_arguments(tmp_path), "--mean", "red").exit_code == 2
    assert optimizer(*build_arguments(tmp_path / "b"), "--input-size", "big").exit_code == 2


def test_an_existing_bundle_is_not_overwritten(tmp_path: Path) -> None:
    arguments = build_arguments(tmp_path)
    bundle = Path(report(optimizer(*arguments, "--json"))["bundle"])
    before = bundle.read_bytes()

    result = optimizer(*arguments, "--min-agreement", "0.5")

    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert bundle.read_bytes() == before


def test_a_disk_that_takes_no_more_leaves_no_half_bundle(tmp_path: Path) -> None:
    arguments = build_arguments(tmp_path)
    limit = 30_000  # bytes of one file: the model fits, the bundle does not

    result = subprocess.run(
        [sys.executable, "-m", "optimizer.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )

    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "colours-1-int8-x86.bundle: " in result.stderr
    assert left_over(tmp_path) == []
