"""A model ready to look at frames: resize, run, decode. The one path of optimizer, trial and loop."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from ommatid.errors import BackendError
from ommatid.runtime.backend import Backend, TensorInfo, load_backend
from ommatid.runtime.spec import InputSpec, ModelSpec, load_spec
from ommatid.vision.classify import ClassificationDecode, classify
from ommatid.vision.resize import InputPacker, Resizer, Transform
from ommatid.vision.results import Result
from ommatid.vision.ssd import SsdDecoder


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """What one frame gave. `outputs` are the raw tensors by name."""

    result: Result
    outputs: Mapping[str, NDArray[Any]]
    preprocess_ms: float
    run_ms: float
    postprocess_ms: float

    @property
    def total_ms(self) -> float:
        """Return the time from picture to result."""
        return self.preprocess_ms + self.run_ms + self.postprocess_ms


class Model:
    """One loaded model with its buffers. One thread at a time calls it."""

    def __init__(self, spec: ModelSpec, backend: Backend) -> None:
        """Join a spec with the backend that runs it, and allocate every buffer.

        Raises:
            BackendError: The model file does not have the input or the outputs that the spec names.
        """
        # The loop has its own threads and the board few cores: OpenCV shall not start a pool as well.
        cv2.setNumThreads(1)
        self.spec = spec
        self.backend = backend
        _check_tensors(spec, backend)
        source = spec.input
        self._resizer = Resizer(source.resize, source.width, source.height, source.pad_value)
        self._packer = InputPacker(source.shape, source.dtype, source.layout, source.color)
        self._decoder = _ssd_decoder(spec)

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Self:
        """Load the model of an unpacked bundle.

        Raises:
            BundleError: The folder holds no installed bundle.
            BackendError: The runtime cannot load the model.
        """
        return cls.from_spec(load_spec(folder), threads)

    @classmethod
    def from_spec(cls, spec: ModelSpec, threads: int = 1) -> Self:
        """Load the model file that a spec names.

        Raises:
            BackendError: The runtime cannot load it, or it is not what the spec says.
        """
        backend = load_backend(spec.format, spec.model, threads)
        try:
            return cls(spec, backend)
        except BaseException:
            backend.close()
            raise

    def infer(self, bgr: NDArray[np.uint8]) -> Inference:
        """Look at one picture of shape (height, width, 3), blue first.

        Raises:
            BackendError: The runtime failed, or gave outputs that mean nothing (wrong shape, not finite).
        """
        start = time.perf_counter_ns()
        resized, transform = self._resizer.resize(bgr)
        tensor = self._packer.pack(resized)
        packed = time.perf_counter_ns()
        outputs = self.backend.run({self.spec.input.name: tensor})
        ran = time.perf_counter_ns()
        result = self._decode(outputs, transform)
        done = time.perf_counter_ns()
        return Inference(result, outputs, (packed - start) / 1e6, (ran - packed) / 1e6, (done - ran) / 1e6)

    def decode(self, outputs: Mapping[str, NDArray[Any]], frame_size: tuple[int, int]) -> Result:
        """Decode raw outputs of a frame of (width, height) pixels, as `infer` would.

        Raises:
            BackendError: The outputs mean nothing.
        """
        return self._decode(outputs, self._resizer.transform_of(frame_size))

    def warm_up(self, runs: int = 3) -> None:
        """Run on a grey picture, so that the first real frame finds memory and caches ready."""
        picture = np.full((self.spec.input.height, self.spec.input.width, 3), 128, np.uint8)
        for _ in range(runs):
            self.infer(picture)

    def close(self) -> None:
        """Give the model's memory back."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decode(self, outputs: Mapping[str, NDArray[Any]], transform: Transform) -> Result:
        decode = self.spec.task.decode
        try:
            if isinstance(decode, ClassificationDecode):
                return classify(outputs[decode.scores], decode.activation, decode.top_k)
            if self._decoder is None:
                raise ValueError("the task has no decoder")
            return self._decoder.decode(outputs[decode.boxes], outputs[decode.scores], transform)
        except (ValueError, KeyError) as error:
            raise BackendError(f"{self.spec.name}: the model's outputs mean nothing: {error}") from error


def _ssd_decoder(spec: ModelSpec) -> SsdDecoder | None:
    task = spec.task
    if isinstance(task.decode, ClassificationDecode):
        return None
    return SsdDecoder(
        task.decode,
        width=spec.input.width,
        height=spec.input.height,
        score_threshold=task.score_threshold,
        iou_threshold=task.iou_threshold,
        max_detections=task.max_detections,
    )


def _check_tensors(spec: ModelSpec, backend: Backend) -> None:
    if len(backend.inputs) != 1 or not _fits(spec.input, backend.inputs[0]):
        raise BackendError(
            f"{spec.name}: the model takes {_names(backend.inputs)}, but its spec says "
            f"{spec.input.name} {spec.input.shape} {spec.input.dtype}"
        )
    decode = spec.task.decode
    named = {decode.scores} if isinstance(decode, ClassificationDecode) else {decode.boxes, decode.scores}
    if missing := named - {output.name for output in backend.outputs}:
        raise BackendError(f"{spec.name}: the model gives {_names(backend.outputs)}, but not {sorted(missing)}")


def _fits(source: InputSpec, tensor: TensorInfo) -> bool:
    sizes = zip(tensor.shape, source.shape, strict=False)
    return (
        tensor.name == source.name
        and tensor.dtype == source.dtype
        and len(tensor.shape) == len(source.shape)
        and all(size is None or size == wanted for size, wanted in sizes)
    )


def _names(tensors: tuple[TensorInfo, ...]) -> str:
    return ", ".join(f"{tensor.name} {tensor.shape} {tensor.dtype}" for tensor in tensors)
