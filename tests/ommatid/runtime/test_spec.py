"""The plain view of a model says what its manifest says."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from ommatid.contract import manifest as contract
from ommatid.errors import BundleError
from ommatid.runtime.spec import load_spec
from ommatid.vision.classify import ClassificationDecode
from ommatid.vision.reference import ReferenceProfile
from ommatid.vision.ssd import SsdAnchors, SsdDecode
from tests.support.bundles import make_bundle, unpack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return unpack(make_bundle(tmp_path, "detector", "3", samples=2), tmp_path / "store")


def rewrite(folder: Path, **changes: Any) -> None:  # noqa: ANN401 - any JSON
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    for place, value in changes.items():
        *parents, name = place.split("__")
        target = document
        for parent in parents:
            target = target[parent]
        target[name] = value
    path.write_text(json.dumps(document))


def test_an_installed_bundle_is_read(folder: Path) -> None:
    spec = load_spec(folder)

    assert (spec.name, spec.version, spec.target, spec.format) == ("detector", "3", "fp32", "onnx")
    assert spec.model == folder / "model.onnx"
    assert (spec.input.width, spec.input.height) == (32, 32)
    assert spec.labels == ("background", "bright", "dark")
    assert isinstance(spec.task.decode, SsdDecode)
    assert spec.task.decode.anchors == SsdAnchors(strides=(8,))
    assert spec.golden is not None
    assert len(spec.golden.samples) == 2
    assert spec.golden.samples[0].image.is_file()
    assert spec.golden.tolerance == {"onnx": 1e-3}


def test_the_profile_of_an_installed_bundle_is_read(folder: Path) -> None:
    reference = load_spec(folder).reference

    assert reference is not None
    assert ReferenceProfile.decode(reference.read_bytes()).signals["brightness"].images > 0


@pytest.mark.parametrize(
    ("plain", "signed"),
    [
        (SsdAnchors, contract.SsdAnchors),
        (SsdDecode, contract.SsdDecode),
        (ClassificationDecode, contract.ClassificationDecode),
    ],
)
def test_the_plain_dataclasses_have_the_fields_and_defaults_of_the_manifest(
    plain: type[Any], signed: type[BaseModel]
) -> None:
    fields = {field.name for field in dataclasses.fields(plain)}
    required = {name for name, field in signed.model_fields.items() if field.is_required()}
    values = dict.fromkeys(required, "output")

    assert fields == set(signed.model_fields) - {"family"}
    assert dataclasses.asdict(plain(**values)) == signed(**values).model_dump(exclude={"family"})


def test_a_classifier_is_read(folder: Path) -> None:
    decode = {"family": "classification", "scores": "scores", "activation": "none", "top_k": 2}
    rewrite(folder, task__kind="classification", task__decode=decode)

    assert load_spec(folder).task.decode == ClassificationDecode("scores", "none", 2)


def test_a_label_may_hold_any_letter(folder: Path) -> None:
    (folder / "labels.txt").write_text("nichts\nFußgänger\n自転車\n", encoding="utf-8")

    assert load_spec(folder).labels == ("nichts", "Fußgänger", "自転車")


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"task__decode__family": "poem"},
        {"input__shape": [1, 2]},
        {"input__shape": "large"},
        {"task__labels": "none.txt"},
        {"golden": None},
    ],
)
def test_what_this_release_does_not_know_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    rewrite(folder, **changes)

    with pytest.raises(BundleError, match="manifest"):
        load_spec(folder)


@pytest.mark.parametrize("content", ["", "[]", "null", "{"])
def test_what_is_no_manifest_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)

    with pytest.raises(BundleError, match="manifest"):
        load_spec(folder)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="manifest"):
        load_spec(tmp_path)
