"""One path from a picture to a result, for optimizer, trial and loop."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ommatid.errors import BackendError
from ommatid.runtime.model import Model
from ommatid.vision.results import Classification, Detections
from tests.support.backends import FakeBackend
from tests.support.models import (
    classifier_spec,
    detector_spec,
    write_classifier_onnx,
    write_classifier_tflite,
    write_constant_onnx,
    write_detector_onnx,
)

LOOP = """
import sys
from pathlib import Path
import ommatid.runtime.golden, ommatid.runtime.model, ommatid.runtime.onnx, ommatid.runtime.spec
import ommatid.runtime.tflite, ommatid.vision.quality
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def coloured(bgr: tuple[int, int, int], width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    return np.full((height, width, 3), bgr, np.uint8)


@pytest.mark.parametrize("model_format", ["onnx", "tflite"])
def test_both_formats_give_one_answer(tmp_path: Path, model_format: str) -> None:
    write = write_classifier_onnx if model_format == "onnx" else write_classifier_tflite
    spec = classifier_spec(write(tmp_path / f"model.{model_format}"))

    with Model.from_spec(spec) as model:
        found = model.infer(coloured((10, 20, 200)))

    assert isinstance(found.result, Classification)
    assert spec.labels[found.result.class_id[0]] == "red"
    assert found.outputs["scores"].shape == (1, 3)
    assert found.total_ms > 0


def test_boxes_come_back_in_pixels_of_the_frame(tmp_path: Path) -> None:
    spec = detector_spec(write_detector_onnx(tmp_path / "model.onnx"))
    frame = coloured((0, 0, 0), 640, 480)
    frame[:240, 320:] = 255

    with Model.from_spec(spec) as model:
        found = model.infer(frame).result

    assert isinstance(found, Detections)
    assert set(found.class_id.tolist()) == {1}
    centres = (found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2
    np.testing.assert_allclose(centres, np.broadcast_to([480, 120], centres.shape), atol=0.5)


def test_a_letterbox_shifts_no_box(tmp_path: Path) -> None:
    # The picture fills the upper half of a square; below it, the letterbox of 32x32 holds 8 grey rows on each side.
    spec = detector_spec(write_detector_onnx(tmp_path / "model.onnx"), "letterbox")
    frame = coloured((255, 255, 255), 640, 320)

    with Model.from_spec(spec) as model:
        found = model.infer(frame).result

    assert isinstance(found, Detections)
    assert len(found) > 0
    assert (found.xyxy[:, 3] <= 320).all()
    assert (found.xyxy[:, 2] <= 640).all()


def test_outputs_stay_as_they_are_when_the_next_frame_comes(tmp_path: Path) -> None:
    with Model.from_spec(classifier_spec(write_classifier_onnx(tmp_path / "model.onnx"))) as model:
        first = model.infer(coloured((200, 0, 0)))
        kept = first.outputs["scores"].copy()
        model.infer(coloured((0, 200, 0)))

    np.testing.assert_array_equal(first.outputs["scores"], kept)


def test_stored_outputs_decode_as_the_run_did(tmp_path: Path) -> None:
    frame = coloured((255, 255, 255), 100, 70)
    with Model.from_spec(detector_spec(write_detector_onnx(tmp_path / "model.onnx"), "letterbox")) as model:
        inference = model.infer(frame)
        again = model.decode(inference.outputs, (100, 70))

    assert isinstance(again, Detections)
    assert isinstance(inference.result, Detections)
    np.testing.assert_array_equal(again.xyxy, inference.result.xyxy)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_no_number_is_an_error(tmp_path: Path, value: float) -> None:
    scores = np.array([[0.1, value, 0.2]], np.float32)
    model = Model.from_spec(classifier_spec(write_constant_onnx(tmp_path / "model.onnx", scores)))

    with pytest.raises(BackendError, match="mean nothing"):
        model.infer(coloured((1, 2, 3)))


def test_an_output_of_another_shape_is_an_error(tmp_path: Path) -> None:
    spec = classifier_spec(tmp_path / "model.tflite")
    model = Model(spec, FakeBackend(answer=lambda _: np.zeros((2, 3), np.float32)))

    with pytest.raises(BackendError, match="mean nothing"):
        model.infer(coloured((1, 2, 3)))


@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"shape": (1, 3, 16, 16)}, {"dtype": "uint8"}, {"shape": (1, 8, 8, 3)}]
)
def test_a_file_that_is_not_what_the_spec_says_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    spec = classifier_spec(write_classifier_onnx(tmp_path / "model.onnx"))

    with pytest.raises(BackendError, match="spec says"):
        Model.from_spec(replace(spec, input=replace(spec.input, **change)))


def test_a_file_without_the_output_to_decode_is_refused(tmp_path: Path) -> None:
    path = write_constant_onnx(tmp_path / "model.onnx", np.zeros((1, 3), np.float32), name="other")

    with pytest.raises(BackendError, match="scores"):
        Model.from_spec(classifier_spec(path))


def test_warm_up_runs_the_model() -> None:
    runs: list[float] = []
    spec = classifier_spec(Path("model.tflite"))

    def answer(image: NDArray[Any]) -> NDArray[Any]:
        runs.append(float(image.mean()))
        return np.zeros((1, 3), np.float32)

    Model(spec, FakeBackend(answer=answer)).warm_up(4)

    assert runs == [128.0] * 4


def test_opencv_starts_no_threads_beside_the_loop() -> None:
    Model(classifier_spec(Path("model.tflite")), FakeBackend())

    assert cv2.getNumThreads() == 1


def test_the_loop_loads_no_package_of_the_supervisor() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}

    loaded = subprocess.run(
        [sys.executable, "-c", LOOP], env=environment, capture_output=True, text=True, timeout=120, check=True
    ).stdout.split()

    assert {"numpy", "cv2", "onnxruntime"} <= set(loaded)
    assert set(loaded).isdisjoint({"pydantic", "pydantic_settings", "tuf", "paho", "httpx", "click", "onnx", "torch"})
