"""A frame goes into the model's input, and boxes find their way back."""

from typing import Literal

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ommatid.vision.resize import InputPacker, Resizer, Rule, plan
from tests.support.boxes import boxes_to_input
from tests.support.pictures import scene

sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


@given(rule=st.sampled_from(["stretch", "letterbox"]), frame_size=sizes, input_size=sizes, data=st.data())
def test_a_box_survives_the_way_in_and_back(
    rule: Rule, frame_size: tuple[int, int], input_size: tuple[int, int], data: st.DataObject
) -> None:
    width, height = frame_size
    x1, x2 = sorted(data.draw(st.tuples(st.floats(0, width), st.floats(0, width))))
    y1, y2 = sorted(data.draw(st.tuples(st.floats(0, height), st.floats(0, height))))
    box = np.array([[x1, y1, x2, y2]], np.float32)
    transform, _ = plan(rule, frame_size, input_size)

    inside = boxes_to_input(transform, box)
    back = transform.boxes_to_frame(inside)

    limit = np.array([*input_size, *input_size], np.float32)
    assert (inside >= -0.01).all()
    assert (inside <= limit + 0.01).all()
    # float32 keeps 24 bits of an input pixel; a shrunk frame shares them among more pixels of its own.
    np.testing.assert_allclose(back, box, atol=0.01 + 4000 * 2**-22 / min(transform.scale_x, transform.scale_y))


@given(frame_size=sizes, input_size=sizes)
def test_a_letterbox_fills_one_side_and_stays_inside(frame_size: tuple[int, int], input_size: tuple[int, int]) -> None:
    transform, (width, height) = plan("letterbox", frame_size, input_size)

    assert width == input_size[0] or height == input_size[1]
    assert 1 <= width <= input_size[0]
    assert 1 <= height <= input_size[1]
    assert 0 <= transform.left <= input_size[0] - width
    assert 0 <= transform.top <= input_size[1] - height


def test_boxes_are_cut_at_the_frame() -> None:
    transform, _ = plan("letterbox", (200, 100), (100, 100))

    boxes = transform.boxes_to_frame(np.array([[-10, -10, 200, 200]], np.float32))

    np.testing.assert_array_equal(boxes, [[0, 0, 200, 100]])


def test_a_letterbox_keeps_its_border_when_the_frame_size_changes() -> None:
    resizer = Resizer("letterbox", 32, 32, pad_value=7)

    resizer.resize(np.full((20, 40, 3), 200, np.uint8))
    tall, _ = resizer.resize(np.full((40, 20, 3), 100, np.uint8))

    assert (tall[:, :8] == 7).all()
    assert (tall[:, 24:] == 7).all()
    assert (tall[:, 8:24] == 100).all()


def test_frames_are_resized_into_one_buffer() -> None:
    resizer = Resizer("stretch", 32, 24)
    picture = scene(64, 48)

    first, _ = resizer.resize(picture)
    second, _ = resizer.resize(scene(64, 48, seed=1))
    third, _ = resizer.resize(picture)

    assert first is second is third
    np.testing.assert_array_equal(third, cv2.resize(picture, (32, 24)))


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (0, 4, 3), (4, 4, 4)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="BGR"):
        Resizer("stretch", 8, 8).resize(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_a_picture_is_packed_as_the_model_wants_it(
    dtype: Literal["uint8", "float32"], layout: Literal["NHWC", "NCHW"], color: Literal["rgb", "bgr", "gray"]
) -> None:
    picture = scene(16, 12)
    channels = 1 if color == "gray" else 3
    shape = (1, 12, 16, channels) if layout == "NHWC" else (1, channels, 12, 16)
    packer = InputPacker(shape, dtype, layout, color)

    packer.pack(scene(16, 12, seed=1))
    tensor = packer.pack(picture)

    expected = {
        "bgr": picture,
        "rgb": picture[:, :, ::-1],
        "gray": cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[:, :, None],
    }[color]
    assert tensor.dtype == np.dtype(dtype)
    assert tensor.shape == shape
    np.testing.assert_array_equal(tensor[0] if layout == "NHWC" else tensor[0].transpose(1, 2, 0), expected)


def test_a_shape_that_is_no_single_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        InputPacker((2, 8, 8, 3), "uint8", "NHWC", "rgb")
    with pytest.raises(ValueError, match="shape"):
        InputPacker((1, 8, 8, 3), "uint8", "NHWC", "gray")
