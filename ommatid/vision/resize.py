"""Bring a frame to the size a model takes, and its boxes back.

A `Resizer` is made once a model and a frame size: its buffers are reused, so that no frame allocates memory.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Rule = Literal["stretch", "letterbox"]


@dataclass(frozen=True, slots=True)
class Transform:
    """How a point of the original frame maps into the model's input: x * scale_x + left, y * scale_y + top."""

    frame_width: int
    frame_height: int
    scale_x: float
    scale_y: float
    left: int
    top: int

    def boxes_to_frame(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes of the input, in input pixels, as pixels of the original frame, cut at its border."""
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        border = np.array([self.frame_width, self.frame_height] * 2, np.float32)
        return np.asarray(np.clip((xyxy - offset) / scale, np.float32(0), border), np.float32)


def plan(rule: Rule, frame_size: tuple[int, int], input_size: tuple[int, int]) -> tuple[Transform, tuple[int, int]]:
    """Decide where a frame goes; return the transform and the (width, height) the frame shrinks or grows to.

    Args:
        rule: `stretch` fills the input; `letterbox` keeps the aspect ratio and centres the picture.
        frame_size: (width, height) of the frame.
        input_size: (width, height) of the model's input.

    Source: the letterbox is that of Ultralytics YOLO, without its rounding of the border to a stride.
    """
    frame_width, frame_height = frame_size
    width, height = input_size
    inner_width, inner_height = width, height
    if rule == "letterbox":
        ratio = min(width / frame_width, height / frame_height)
        inner_width = min(width, max(1, round(frame_width * ratio)))
        inner_height = min(height, max(1, round(frame_height * ratio)))
    transform = Transform(
        frame_width=frame_width,
        frame_height=frame_height,
        scale_x=inner_width / frame_width,
        scale_y=inner_height / frame_height,
        left=(width - inner_width) // 2,
        top=(height - inner_height) // 2,
    )
    return transform, (inner_width, inner_height)


class Resizer:
    """Resize BGR frames into one buffer of a fixed size. One thread at a time."""

    def __init__(self, rule: Rule, width: int, height: int, pad_value: int = 114) -> None:
        """Allocate the buffer; `pad_value` fills a letterbox's border in every channel."""
        self._rule: Rule = rule
        self._size = (width, height)
        self._pad_value = pad_value
        self._bgr = np.full((height, width, 3), pad_value, np.uint8)
        self._frame_size: tuple[int, int] | None = None
        self._transform, self._inner_size = plan(rule, self._size, self._size)
        self._inner = self._bgr

    def resize(self, bgr: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Transform]:
        """Return the frame in the model's size, valid until the next call, and the way back.

        Raises:
            ValueError: `bgr` is not a picture of shape (height, width, 3) and type uint8.
        """
        if bgr.ndim != 3 or bgr.shape[2] != 3 or bgr.dtype != np.uint8 or bgr.size == 0:  # noqa: PLR2004 - h, w, bgr
            raise ValueError(f"not a BGR picture: shape {bgr.shape}, {bgr.dtype}")
        frame_size = (int(bgr.shape[1]), int(bgr.shape[0]))
        if frame_size != self._frame_size:
            self._fit(frame_size)
        if frame_size == self._inner_size:
            np.copyto(self._inner, bgr)
        else:
            cv2.resize(bgr, self._inner_size, dst=self._inner, interpolation=cv2.INTER_LINEAR)
        return self._bgr, self._transform

    def transform_of(self, frame_size: tuple[int, int]) -> Transform:
        """Return the way back for a frame of (width, height) pixels."""
        return plan(self._rule, frame_size, self._size)[0]

    def _fit(self, frame_size: tuple[int, int]) -> None:
        self._transform, self._inner_size = plan(self._rule, frame_size, self._size)
        left, top = self._transform.left, self._transform.top
        self._bgr[:] = self._pad_value
        self._inner = self._bgr[top : top + self._inner_size[1], left : left + self._inner_size[0]]
        self._frame_size = frame_size


class InputPacker:
    """Write a resized BGR picture into one input tensor: channel order, layout and type. One thread at a time.

    A float32 tensor gets the pixel values 0-255 as they are: the graph itself normalises.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        dtype: Literal["uint8", "float32"],
        layout: Literal["NHWC", "NCHW"],
        color: Literal["rgb", "bgr", "gray"],
    ) -> None:
        """Allocate the tensor.

        Raises:
            ValueError: `shape` is not one picture of as many channels as `color` has.
        """
        height, width, channels = shape[1:] if layout == "NHWC" else (shape[2], shape[3], shape[1])
        if shape[0] != 1 or channels != (1 if color == "gray" else 3):
            raise ValueError(f"input shape {shape} is not one {color} picture in {layout}")
        self._color = color
        self._layout = layout
        self._tensor = np.zeros(shape, dtype)
        self._bytes = np.zeros(shape, np.uint8) if dtype == "float32" else self._tensor.view(np.uint8)
        self.width, self.height = width, height

    def pack(self, bgr: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Return the tensor of one picture of the input's size; it is valid until the next call."""
        target = self._bytes[0]
        if self._color == "gray":
            plane = target[:, :, 0] if self._layout == "NHWC" else target[0]
            cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY, dst=plane)
        elif self._layout == "NCHW":
            planes = [target[0], target[1], target[2]]
            cv2.split(bgr, planes[::-1] if self._color == "rgb" else planes)
        elif self._color == "rgb":
            cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=target)
        else:
            np.copyto(target, bgr)
        if self._tensor.dtype != np.uint8:
            np.copyto(self._tensor, self._bytes)
        return self._tensor
