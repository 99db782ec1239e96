"""What every backend does alike, the fake one included."""

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ommatid.errors import BackendError
from ommatid.runtime.backend import Backend, TensorInfo, load_backend
from tests.support.backends import FakeBackend
from tests.support.models import write_classifier_onnx, write_classifier_tflite


@pytest.fixture(params=["onnx", "tflite", "fake"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Load a model that gives the mean of each channel, in each runtime."""
    if request.param == "onnx":
        return load_backend("onnx", write_classifier_onnx(tmp_path / "model.onnx", gain=1.0))
    if request.param == "tflite":
        return load_backend("tflite", write_classifier_tflite(tmp_path / "model.tflite"))
    return FakeBackend()


def picture(backend: Backend, levels: tuple[float, float, float]) -> NDArray[np.float32]:
    """Return a one-colour input in the layout that this backend takes."""
    nhwc = np.broadcast_to(np.array(levels, np.float32), (1, 8, 8, 3))
    shape = backend.inputs[0].shape
    return np.ascontiguousarray(nhwc if shape == (1, 8, 8, 3) else nhwc.transpose(0, 3, 1, 2))


def test_a_backend_describes_its_tensors(backend: Backend) -> None:
    (source,) = backend.inputs

    assert source.name == "image"
    assert source.dtype == "float32"
    assert sorted(size for size in source.shape if size) == [1, 3, 8, 8]
    assert backend.outputs == (TensorInfo("scores", (1, 3), "float32"),)


def test_a_backend_gives_every_output_by_name(backend: Backend) -> None:
    outputs = backend.run({"image": picture(backend, (10, 20, 30))})

    assert outputs.keys() == {"scores"}
    np.testing.assert_allclose(outputs["scores"], [[10, 20, 30]], rtol=1e-6)


def test_an_answer_outlives_the_next_run(backend: Backend) -> None:
    first = backend.run({"image": picture(backend, (10, 20, 30))})["scores"]

    backend.run({"image": picture(backend, (1, 2, 3))})

    np.testing.assert_allclose(first, [[10, 20, 30]], rtol=1e-6)


def test_an_input_may_be_reused_and_changed_between_runs(backend: Backend) -> None:
    tensor = picture(backend, (10, 20, 30))
    backend.run({"image": tensor})

    tensor[:] = 7

    np.testing.assert_allclose(backend.run({"image": tensor})["scores"], [[7, 7, 7]], rtol=1e-6)


@pytest.mark.parametrize("fault", ["name", "shape", "dtype", "missing"])
def test_an_input_that_does_not_fit_is_refused(backend: Backend, fault: str) -> None:
    good = picture(backend, (1, 2, 3))
    inputs = {
        "name": {"picture": good},
        "shape": {"image": good[:, :2]},
        "dtype": {"image": good.astype(np.uint8)},
        "missing": {},
    }[fault]

    with pytest.raises(BackendError):
        backend.run(inputs)

    np.testing.assert_allclose(backend.run({"image": good})["scores"], [[1, 2, 3]], rtol=1e-6)


def test_a_closed_backend_refuses_to_run(backend: Backend) -> None:
    backend.close()
    backend.close()

    with pytest.raises(BackendError, match="closed"):
        backend.run({"image": picture(backend, (1, 2, 3))})


@pytest.mark.parametrize("model_format", ["onnx", "tflite"])
@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x00" * 4096])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, model_format: str, content: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)

    with pytest.raises(BackendError, match="cannot load") as caught:
        load_backend(model_format, path)  # type: ignore[arg-type]

    assert str(path) in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("model_format", ["onnx", "tflite"])
def test_a_truncated_model_is_refused(tmp_path: Path, model_format: str) -> None:
    whole = (write_classifier_onnx if model_format == "onnx" else write_classifier_tflite)(tmp_path / "whole")
    path = tmp_path / "cut"
    path.write_bytes(whole.read_bytes()[:-40])

    with pytest.raises(BackendError):
        load_backend(model_format, path)  # type: ignore[arg-type]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no such model file"):
        load_backend("onnx", tmp_path / "none.onnx")


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    path = write_classifier_onnx(tmp_path / "model.onnx")

    with pytest.raises(BackendError, match="no runtime"):
        load_backend("poem", path)  # type: ignore[arg-type]


def test_a_runtime_that_is_not_installed_is_named_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_classifier_tflite(tmp_path / "model.tflite")
    monkeypatch.delitem(sys.modules, "ommatid.runtime.tflite", raising=False)
    for package in ("ai_edge_litert", "tflite_runtime"):
        monkeypatch.setitem(sys.modules, f"{package}.interpreter", None)

    with pytest.raises(BackendError, match="cannot be imported") as caught:
        load_backend("tflite", path)

    assert caught.value.hint == "install ai-edge-litert"
