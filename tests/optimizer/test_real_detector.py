"""The demo's real detector and video: what a person would build first."""

from pathlib import Path
from typing import Any

import pytest

from ommatid.contract.bundle import read_manifest
from ommatid.contract.manifest import SsdDecode
from optimizer import graph
from optimizer.artifact import Artifact
from optimizer.errors import ConversionError
from optimizer.images import load_images
from optimizer.passes.importing import CheckConversion, read_model
from optimizer.passes.normalise import Normalise
from optimizer.preprocessing import DEFAULTS
from optimizer.request import Sampling
from tests.support.nets import fetch_assets, optimizer, report

IMAGES = 30


@pytest.fixture(scope="module")
def assets() -> dict[str, Path]:
    return fetch_assets()


def arguments(assets: dict[str, Path], output: Path, target: str) -> list[str]:
    video = assets["video"]
    images = ["--calibrate", f"{video}#t=0,30", "--validate", f"{video}#t=40,75", "--images", str(IMAGES)]
    names = ["--name", "street", "--labels", str(assets["labels"]), "--decode", "ssd", "--target", target]
    return ["build", str(assets["model"]), *images, *names, "-o", str(output)]


@pytest.fixture(scope="module")
def built(assets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("bundles")
    return {target: report(optimizer(*arguments(assets, folder, target), "--json")) for target in ("fp32", "int8-x86")}


def test_the_float_bundle_is_the_model_itself(built: dict[str, dict[str, Any]]) -> None:
    assert built["fp32"]["agreement_f1"] >= 0.995
    assert built["fp32"]["objects"] > 100
    assert any("of LiteRT" in fact for step in built["fp32"]["lineage"] for fact in step["facts"])


def test_int8_is_three_times_smaller_faster_and_sees_the_same(built: dict[str, dict[str, Any]]) -> None:
    assert built["int8-x86"]["size_bytes"] * 3 < built["fp32"]["size_bytes"]
    assert built["int8-x86"]["latency_ms"] < built["int8-x86"]["float_latency_ms"]
    assert built["int8-x86"]["agreement_f1"] >= 0.97


def test_the_bundles_prove_themselves_here(built: dict[str, dict[str, Any]]) -> None:
    for told in built.values():
        assert report(optimizer("verify", told["bundle"], "--json"))["passed"]


def test_what_was_assumed_is_in_the_manifest(built: dict[str, dict[str, Any]]) -> None:
    manifest = read_manifest(Path(built["int8-x86"]["bundle"]))

    assert isinstance(manifest.task.decode, SsdDecode)
    assert manifest.task.decode.background == 0
    assert manifest.input.normalized_in_graph is not None
    assert manifest.input.normalized_in_graph.mean == (127.5, 127.5, 127.5)


def test_one_scale_a_tensor_is_refused(assets: dict[str, Path], tmp_path: Path) -> None:
    result = optimizer(*arguments(assets, tmp_path, "int8-x86"), "--per-tensor", "--no-search")

    assert result.exit_code == 1
    assert "the gate refuses this build: agreement F1 with the float model is 0." in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_that_changed_the_model_is_refused(assets: dict[str, Path]) -> None:
    core = Normalise()(read_model(assets["model"]))
    images = load_images(f"{assets['video']}#t=0,1", Sampling(1), rule="stretch", input_size=(300, 300))
    check = CheckConversion(assets["model"], images.pictures, DEFAULTS["ssd"])
    altered = graph.copy(core.model)
    next(node for node in altered.graph.node if node.op_type == "Clip").input.pop()

    with pytest.raises(ConversionError, match="differs by"):
        check(Artifact(altered, core.lineage))
