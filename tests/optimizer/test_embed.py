from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from ommatid.errors import BadInputError
from optimizer import graph
from optimizer.artifact import Artifact
from optimizer.passes.embed import Embed
from optimizer.passes.normalise import Normalise
from optimizer.preprocessing import Preprocessing
from optimizer.session import Session
from tests.support.nets import make_classifier, make_model

IMAGENET = Preprocessing((123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375))
SSD = Preprocessing((127.5,) * 3, (1 / 127.5,) * 3)
INTEGER = Preprocessing((128.0,) * 3, (1 / 64,) * 3)


def normalised(model: onnx.ModelProto) -> Artifact:
    return Normalise()(Artifact.source(model, "0" * 64))


def largest_difference(source: Artifact, preprocessing: Preprocessing) -> float:
    """Compare folded and stated preprocessing on noise, as a share of the outputs' range."""
    pictures = np.random.default_rng(3).integers(0, 256, (8, 1, 16, 16, 3), dtype=np.uint8)
    folded, stated = Embed(preprocessing)(source), Embed(preprocessing, fold=False)(source)
    with Session(folded.model) as one, Session(stated.model) as other:
        got = np.array([one.run(picture)["scores"] for picture in pictures])
        wanted = np.array([other.run(picture)["scores"] for picture in pictures])
    return float(np.abs(got - wanted).max() / np.ptp(wanted))


@pytest.mark.parametrize("preprocessing", [IMAGENET, SSD, INTEGER])
@pytest.mark.parametrize("channels_last", [False, True])
def test_folding_without_padding_changes_nothing(preprocessing: Preprocessing, *, channels_last: bool) -> None:
    source = normalised(make_classifier(channels_last=channels_last))

    difference = largest_difference(source, preprocessing)

    assert difference < 1e-4


def test_padding_with_an_integer_mean_is_exact() -> None:
    source = normalised(make_classifier(pads=(1, 1, 1, 1)))

    difference = largest_difference(source, INTEGER)

    assert difference < 1e-4


@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 0, 1, 1), (2, 0, 0, 1)])
def test_padding_with_means_of_its_own_a_channel_gets_a_border_of_mean_pixels(pads: Sequence[int]) -> None:
    source = normalised(make_classifier(pads=pads))

    folded = Embed(IMAGENET)(source)

    assert "border" in folded.lineage[-1].facts[0]
    # The rest is the rounding of the border's pixels to whole levels: half a level at most.
    assert largest_difference(source, IMAGENET) < 5e-3


def test_the_picture_itself_is_the_quantized_input() -> None:
    source = normalised(make_classifier())

    model = Embed(SSD)(source).model

    value = graph.image_input(model)
    assert (value.name, graph.shape_of(value)) == ("image", (1, 16, 16, 3))
    assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [node.op_type for node in model.graph.node[:3]] == ["Transpose", "DequantizeLinear", "Conv"]


def test_a_graph_that_does_not_begin_with_one_convolution_gets_arithmetic() -> None:
    source = normalised(two_readers())

    embedded = Embed(SSD)(source)

    kinds = [node.op_type for node in embedded.model.graph.node]
    assert kinds[:4] == ["Cast", "Sub", "Mul", "Transpose"]
    assert largest_difference(source, SSD) == 0


def test_a_colour_model_is_not_fed_gray_pictures() -> None:
    source = normalised(make_classifier())

    with pytest.raises(BadInputError, match="3 channel"):
        Embed(Preprocessing((0.0,), (1.0,), color="gray"))(source)


def test_the_source_of_an_embedding_is_left_as_it_was() -> None:
    source = normalised(make_classifier())
    before = source.content

    Embed(SSD)(source)

    assert source.content == before


def two_readers() -> onnx.ModelProto:
    kernel: NDArray[np.float32] = np.ones((3, 3, 1, 1), np.float32)
    nodes = [
        helper.make_node("Conv", ["picture", "kernel"], ["map"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["map", "picture"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["scores"]),
    ]
    return make_model(nodes, {"kernel": kernel}, {"picture": (1, 3, 16, 16)}, {"scores": (1, 3)})
