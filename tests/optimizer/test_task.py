from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from ommatid.contract.manifest import ClassificationDecode, SsdDecode
from ommatid.errors import BadInputError
from optimizer.preprocessing import DEFAULTS, Size, resolve
from optimizer.task import ResolvedTask, read_decode, resolve_task
from tests.support.nets import make_model

SIZE = Size(32, 32)
SMALL_ANCHORS = 'family = "ssd"\n[anchors]\nstrides = [16, 32]\n'


def with_outputs(outputs: dict[str, tuple[int | str, ...]], last: str = "Identity") -> onnx.ModelProto:
    nodes = [helper.make_node(last, ["picture"], [name]) for name in outputs]
    return make_model(nodes, {}, {"picture": (1, 3, 32, 32)}, outputs)


def resolved(decode: str, model: onnx.ModelProto, labels: Path | None = None) -> ResolvedTask:
    return resolve_task(read_decode(decode), model, SIZE, labels, {})


@pytest.fixture
def small_anchors(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL_ANCHORS)
    return str(path)


def test_heads_are_found_by_their_shapes(small_anchors: str) -> None:
    model = with_outputs({"b": (1, 18, 4), "other": (1, 7), "s": (1, 18, 3)})

    result = resolved(small_anchors, model)

    assert isinstance(result.task.decode, SsdDecode)
    assert (result.task.decode.boxes, result.task.decode.scores) == ("b", "s")
    assert result.labels == ("class 0", "class 1", "class 2")
    assert any("outputs are boxes = b, scores = s" in text for text in result.assumptions)


def test_four_classes_are_told_from_boxes_by_name(small_anchors: str) -> None:
    result = resolved(small_anchors, with_outputs({"classes": (1, 18, 4), "box_encodings": (1, 18, 4)}))

    assert isinstance(result.task.decode, SsdDecode)
    assert result.task.decode.boxes == "box_encodings"


def test_a_graph_that_ends_in_softmax_gets_no_second_one() -> None:
    result = resolved("classification", with_outputs({"p": (1, 5)}, "Softmax"))

    assert isinstance(result.task.decode, ClassificationDecode)
    assert result.task.decode.activation == "none"


@pytest.mark.parametrize(
    ("decode", "outputs"),
    [
        ("ssd", {"only": (1, 18, 4)}),
        ("ssd", {"boxes": (1, 18, 4), "scores": (1, 17, 3)}),
        ("ssd", {"boxes": (1, 18, 4), "scores": (1, 18, 3)}),
        ("classification", {"a": (1, 5), "b": (1, 6)}),
        ("classification", {"map": (1, 5, 8, 8)}),
    ],
)
def test_outputs_that_do_not_fit_are_listed(decode: str, outputs: dict[str, tuple[int | str, ...]]) -> None:
    with pytest.raises(BadInputError) as refused:
        resolved(decode, with_outputs(outputs))

    text = f"{refused.value} {refused.value.hint}"
    assert all(name in text for name in outputs)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("family = ", "not a TOML file"),
        ('family = "yolo"', "family is 'yolo'"),
        ('family = "ssd"\nboxes = "x"', "no output x"),
        ('family = "ssd"\nbox_sclae = [1, 1, 1, 1]', "box_sclae"),
        ('family = "ssd"\n[input]\ncolour = "rgb"', r"\[input\] colour"),
        ('family = "ssd"\n[input]\nmean = []', r"\[input\] mean"),
        ('family = "ssd"\n[task]\nscore_threshold = 2', "score_threshold"),
    ],
)
def test_a_decode_file_that_says_nonsense_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "decode.toml"
    path.write_text(content)

    with pytest.raises(BadInputError, match=words):
        resolved(str(path), with_outputs({"boxes": (1, 18, 4), "scores": (1, 18, 3)}))


def test_a_family_that_is_none_is_refused() -> None:
    with pytest.raises(BadInputError, match="no such family or file"):
        read_decode("yolo")


@pytest.mark.parametrize(("content", "words"), [(b"a\nb\n", "2 labels, but the model has 5"), (b"\xff\xfe", "UTF-8")])
def test_labels_must_fit_the_classes(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "labels.txt").write_bytes(content)

    with pytest.raises(BadInputError, match=words):
        resolved("classification", with_outputs({"scores": (1, 5)}), tmp_path / "labels.txt")


def test_a_missing_labels_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"none\.txt"):
        resolved("classification", with_outputs({"scores": (1, 5)}), tmp_path / "none.txt")


def test_what_is_not_said_of_pixels_is_assumed_and_told() -> None:
    preprocessing, assumed = resolve("ssd", color="bgr", mean=(0,))

    assert preprocessing.mean == (0, 0, 0)
    assert preprocessing.scale == DEFAULTS["ssd"].scale
    assert len(assumed) == 2
    assert any("--scale" in text for text in assumed)


@pytest.mark.parametrize("wrong", [{"mean": (1, 2)}, {"scale": (0,)}, {"scale": (1, 2, 3, 4)}])
def test_numbers_must_fit_the_channels(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(BadInputError):
        resolve("ssd", mean=wrong.get("mean"), scale=wrong.get("scale"))


def test_gray_models_take_one_channel() -> None:
    preprocessing, _ = resolve("classification", color="gray")

    assert preprocessing.channels == 1
    assert preprocessing.mean == (pytest.approx(np.mean(DEFAULTS["classification"].mean)),)
