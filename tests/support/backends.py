"""A backend without a runtime: it answers what it is told to."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ommatid.errors import BackendError
from ommatid.runtime.backend import TensorInfo

Answer = Callable[[NDArray[Any]], NDArray[Any]]


def channel_means(image: NDArray[Any]) -> NDArray[Any]:
    """Return the mean of each channel of an NHWC picture: what the tiny classifiers compute."""
    return np.asarray(image.mean(axis=(1, 2)), np.float32)


class FakeBackend:
    """One NHWC float32 `image` in, one `scores` out."""

    def __init__(self, answer: Answer = channel_means, shape: tuple[int, ...] = (1, 8, 8, 3), classes: int = 3) -> None:
        self.inputs = (TensorInfo("image", shape, "float32"),)
        self.outputs = (TensorInfo("scores", (1, classes), "float32"),)
        self.closed = False
        self._answer = answer

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Answer."""
        if self.closed:
            raise BackendError("the model is closed")
        if inputs.keys() != {"image"}:
            raise BackendError(f"got inputs {sorted(inputs)}")
        image = inputs["image"]
        if image.shape != self.inputs[0].shape or image.dtype != np.float32:
            raise BackendError(f"got {image.shape} {image.dtype}")
        return {"scores": self._answer(image)}

    def close(self) -> None:
        """Refuse to answer from now on."""
        self.closed = True
