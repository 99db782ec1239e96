import numpy as np
import onnx
import pytest
from onnx import helper

from ommatid.errors import BadInputError
from optimizer import graph
from optimizer.artifact import Artifact
from optimizer.errors import ConversionError
from optimizer.passes.normalise import Normalise
from optimizer.preprocessing import Size
from optimizer.session import Session
from tests.support.nets import make_classifier, make_model


def source(model: onnx.ModelProto) -> Artifact:
    return Artifact.source(model, "0" * 64)


def same_outputs(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    picture = np.random.default_rng(5).random((1, 3, 16, 16), np.float32)
    with Session(one) as first, Session(other) as second:
        return bool(np.allclose(first.run(picture)["scores"], second.run(picture)["scores"], atol=1e-4))


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_an_old_operator_set_becomes_one_that_knows_scales_a_channel(opset: int) -> None:
    model = make_classifier(opset=opset)

    normal = Normalise()(source(model)).model

    assert normal.opset_import[0].version == 17
    assert same_outputs(normal, make_classifier())


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_the_picture_is_called_global_pooling(keepdims: int) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["picture"], ["mean"], axes=[-1, -2], keepdims=keepdims),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Relu", ["flat"], ["scores"]),
    ]
    model = make_model(nodes, {}, {"picture": (1, 3, 16, 16)}, {"scores": (1, 3)})

    normal = Normalise()(source(model)).model

    kinds = [node.op_type for node in normal.graph.node]
    assert "GlobalAveragePool" in kinds
    assert "ReduceMean" not in kinds
    assert same_outputs(normal, model)


@pytest.mark.parametrize("rule", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_padding_is_written_as_numbers(rule: str, stride: int) -> None:
    kernel = np.random.default_rng(1).random((3, 3, 4, 4), np.float32)
    nodes = [
        helper.make_node(
            "Conv", ["picture", "kernel"], ["map"], kernel_shape=[4, 4], strides=[stride, stride], auto_pad=rule
        ),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["scores"]),
    ]
    model = make_model(nodes, {"kernel": kernel}, {"picture": (1, 3, 16, 16)}, {"scores": (1, 3)})

    normal = Normalise()(source(model)).model

    assert not any(item.name == "auto_pad" for node in normal.graph.node for item in node.attribute)
    assert same_outputs(normal, model)


def test_an_open_batch_becomes_one_picture() -> None:
    normal = Normalise()(source(make_classifier(batch="N"))).model

    assert graph.shape_of(graph.image_input(normal)) == (1, 3, 16, 16)
    assert graph.output_shapes(normal) == {"scores": (1, 3)}


def test_an_open_size_must_be_said() -> None:
    model = make_classifier(open_size=True)

    with pytest.raises(BadInputError, match="no fixed size"):
        Normalise()(source(model))

    normal = Normalise(Size(16, 24))(source(model)).model
    assert graph.shape_of(graph.image_input(normal)) == (1, 3, 16, 24)


def test_a_fixed_size_cannot_be_another_one() -> None:
    with pytest.raises(BadInputError, match="fixed at 16x16"):
        Normalise(Size(32, 32))(source(make_classifier()))


def test_a_foreign_operator_is_named() -> None:
    nodes = [helper.make_node("NonMaximum", ["picture"], ["scores"], domain="org.example")]
    model = make_model(nodes, {}, {"picture": (1, 3, 16, 16)}, {"scores": (1, 3, 16, 16)}, domains=["org.example"])

    with pytest.raises(ConversionError, match=r"org\.example\.NonMaximum"):
        Normalise()(source(model))


def test_an_unknown_operator_is_named() -> None:
    nodes = [helper.make_node("Cnov", ["picture"], ["scores"])]
    model = make_model(nodes, {}, {"picture": (1, 3, 16, 16)}, {"scores": (1, 3, 16, 16)})

    with pytest.raises(ConversionError, match="Cnov"):
        Normalise()(source(model))


def test_a_quantized_model_is_refused() -> None:
    nodes = [helper.make_node("QuantizeLinear", ["picture", "scale"], ["scores"])]
    model = make_model(nodes, {"scale": np.array(1, np.float32)}, {"picture": (1, 3, 16, 16)}, {"scores": (1, 3)})

    with pytest.raises(ConversionError, match="quantized already"):
        Normalise()(source(model))


@pytest.mark.parametrize("inputs", [{"picture": (1, 7)}, {"picture": (1, 5, 16, 16)}, {"a": (1, 3, 8, 8), "b": (1,)}])
def test_what_is_no_single_picture_is_refused(inputs: dict[str, tuple[int | str, ...]]) -> None:
    first = next(iter(inputs))
    model = make_model([helper.make_node("Relu", [first], ["scores"])], {}, inputs, {"scores": (1, 3)})

    with pytest.raises(BadInputError):
        Normalise()(source(model))


def test_names_are_short_and_the_bytes_repeat() -> None:
    model = make_classifier()
    long = "exporter/scope/" * 20
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = long

    first, second = Normalise()(source(model)), Normalise()(source(model))

    assert first.content == second.content
    assert long.encode() not in first.content
