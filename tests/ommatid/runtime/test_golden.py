"""Golden samples catch a device that computes otherwise, and a build that is no longer the model."""

import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ommatid.errors import BackendError, BundleError
from ommatid.runtime.golden import (
    check_golden,
    read_image,
    read_outputs,
    read_reference,
    worst_difference,
    write_image,
    write_outputs,
    write_reference,
)
from ommatid.runtime.model import Model
from ommatid.vision.results import Detections
from tests.support.bundles import Fault, make_bundle, unpack
from tests.support.models import classifier_spec, write_classifier_onnx
from tests.support.pictures import scene


def load(tmp_path: Path, fault: Fault | None = None) -> Model:
    return Model.load(unpack(make_bundle(tmp_path, fault=fault, samples=3), tmp_path / "store"))


def test_a_sound_bundle_passes(tmp_path: Path) -> None:
    with load(tmp_path) as model:
        verdict = check_golden(model)

    assert verdict.passed
    assert verdict.worst_difference == 0
    assert verdict.agreement.value == 1
    assert verdict.agreement.seen > 0
    assert verdict.agreement.images == len(verdict.samples) == 3


def test_a_device_that_computes_otherwise_fails(tmp_path: Path) -> None:
    with load(tmp_path, "golden") as model:
        verdict = check_golden(model)

    assert not verdict.passed
    assert not verdict.reproduced
    assert verdict.agreed
    assert "difference" in verdict.describe()


def test_a_build_that_is_no_longer_the_model_fails_though_it_reproduces_itself(tmp_path: Path) -> None:
    with load(tmp_path, "agreement") as model:
        verdict = check_golden(model)

    assert not verdict.passed
    assert verdict.reproduced
    assert not verdict.agreed


def test_a_model_that_gives_no_numbers_is_an_error(tmp_path: Path) -> None:
    with load(tmp_path, "nan") as model, pytest.raises(BackendError, match="finite"):
        check_golden(model)


def test_a_model_without_golden_samples_cannot_be_checked(tmp_path: Path) -> None:
    with (
        Model.from_spec(classifier_spec(write_classifier_onnx(tmp_path / "model.onnx"))) as model,
        pytest.raises(BundleError, match="no golden samples"),
    ):
        check_golden(model)


@pytest.mark.parametrize(
    ("actual", "expected", "difference"),
    [
        ([0, 1, 4], [0, 1, 4], 0),
        ([0, 1, 5], [0, 1, 4], 0.25),
        ([7.5, 7.5], [7, 7], 0.5),
        ([0, math.nan], [0, 1], math.inf),
        ([0, math.inf], [0, 1], math.inf),
        ([0, 1], [0, math.nan], math.inf),
        ([0], [0, 1], math.inf),
        ([], [], math.inf),
    ],
)
def test_difference_is_a_share_of_the_stored_range(
    actual: list[float], expected: list[float], difference: float
) -> None:
    found = worst_difference({"a": np.array(actual, np.float32)}, {"a": np.array(expected, np.float32)})

    assert found == pytest.approx(difference)


def test_a_missing_output_differs_endlessly() -> None:
    assert worst_difference({}, {"a": np.zeros(2)}) == math.inf
    assert worst_difference({"a": np.zeros(2)}, {}) == math.inf


def test_integers_do_not_wrap_when_they_are_compared() -> None:
    actual, expected = np.array([127, 0], np.int8), np.array([-128, 0], np.int8)

    assert worst_difference({"a": actual}, {"a": expected}) == pytest.approx(255 / 128)


@given(
    values=hnp.arrays(
        st.sampled_from([np.float32, np.int8, np.int64]), hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)
    ),
    name=st.sampled_from(["scores", "StatefulPartitionedCall:0", "a/b", "/lead", "ü"]),
)
def test_outputs_survive_their_file(tmp_path_factory: pytest.TempPathFactory, values: NDArray[Any], name: str) -> None:
    path = tmp_path_factory.mktemp("golden") / "outputs.npz"

    write_outputs(path, {name: values, "other": np.zeros(1)})
    back = read_outputs(path)

    assert back.keys() == {name, "other"}
    np.testing.assert_array_equal(back[name], values)
    assert back[name].dtype == values.dtype


def test_outputs_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6.0).reshape(2, 3), "a": np.arange(4)}

    write_outputs(tmp_path / "one.npz", arrays)
    write_outputs(tmp_path / "two.npz", {"a": arrays["a"], "b": np.asfortranarray(arrays["b"])})

    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_other_tools_can_read_the_outputs(tmp_path: Path) -> None:
    write_outputs(tmp_path / "outputs.npz", {"scores": np.arange(3)})

    with np.load(tmp_path / "outputs.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["scores"], [0, 1, 2])


class Exploit:
    """Something whose unpickling would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code was run",))


def npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


HOSTILE = {
    "pickled objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + pickle.dumps(Exploit()),
    "a claim of 8 TB": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}") + bytes(64),
    "a negative size": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -8)}") + bytes(64),
    "code for a header": npy("__import__('os').system('true')"),
    "cut short": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9,)}") + bytes(8),
    "no array": b"hello",
    "nothing": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_outputs_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outputs.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scores.npy", content)

    with pytest.raises(BundleError, match="golden outputs"):
        read_outputs(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("flags", 1), ("method", zipfile.ZIP_BZIP2), ("method", zipfile.ZIP_LZMA), ("method", 99), ("content", 0)],
    ids=["encrypted", "bzip2", "lzma", "an unknown method", "damaged lzma"],
)
def test_an_archive_that_cannot_be_unpacked_is_refused(tmp_path: Path, field: str, value: int) -> None:
    path = tmp_path / "outputs.npz"
    if field == "content":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("scores.npy", bytes(range(256)) * 8)
        changed = bytearray(path.read_bytes())
        changed[60:200] = b"\xff" * 140
    else:
        write_outputs(path, {"scores": np.arange(100)})
        changed = bytearray(path.read_bytes())
        for header, offset in ((changed.index(b"PK\x03\x04"), 6), (changed.index(b"PK\x01\x02"), 8)):
            place = header + offset + (2 if field == "method" else 0)
            changed[place : place + 2] = value.to_bytes(2, "little")
    path.write_bytes(changed)

    with pytest.raises(BundleError, match="golden outputs"):
        read_outputs(path)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "outputs.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scores.npy", bytes(65 * 1024 * 1024))

    with pytest.raises(BundleError, match="more than"):
        read_outputs(path)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "outputs.npz"
    path.write_bytes(io.BytesIO(b"PK\x03\x04 but not really").getvalue())

    with pytest.raises(BundleError, match="golden outputs"):
        read_outputs(path)
    with pytest.raises(BundleError, match="golden outputs"):
        read_outputs(tmp_path / "missing.npz")


def test_a_picture_survives_its_file_pixel_by_pixel(tmp_path: Path) -> None:
    picture = scene(120, 90)

    write_image(tmp_path / "picture.png", picture)

    np.testing.assert_array_equal(read_image(tmp_path / "picture.png"), picture)


def test_a_picture_that_claims_to_be_huge_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    write_image(path, scene(32, 32))
    content = bytearray(path.read_bytes())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    path.write_bytes(content)

    with pytest.raises(BundleError, match="pixels"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(8) + b"\0\0\0\1\0\0\0\1"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)

    with pytest.raises(BundleError, match="PNG"):
        read_image(path)


def test_a_reference_survives_its_file(tmp_path: Path) -> None:
    result = Detections(np.array([[1, 2, 3, 4]], np.float32), np.array([0.5], np.float32), np.array([1], np.int32))

    write_reference(tmp_path / "reference.json", result, ("nothing", "person"))
    back = read_reference(tmp_path / "reference.json")

    assert isinstance(back, Detections)
    np.testing.assert_array_equal(back.xyxy, result.xyxy)
    assert '"label":"person"' in (tmp_path / "reference.json").read_text()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_reference_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reference.json"
    path.write_bytes(content)

    with pytest.raises(BundleError, match="reference"):
        read_reference(path)
