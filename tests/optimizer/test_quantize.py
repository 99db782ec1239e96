import numpy as np
import onnx
import pytest
from onnx import helper

from optimizer import graph
from optimizer.artifact import Artifact
from optimizer.calibrate import Calibration, calibrate
from optimizer.errors import ConversionError
from optimizer.passes.embed import Embed
from optimizer.passes.normalise import Normalise
from optimizer.passes.quantize import Quantize, layers
from optimizer.preprocessing import Preprocessing
from optimizer.session import Session
from tests.support.nets import make_classifier, make_model

PREPROCESSING = Preprocessing((127.5,) * 3, (1 / 127.5,) * 3)
PICTURES = np.random.default_rng(9).integers(0, 256, (6, 1, 16, 16, 3), dtype=np.uint8)
PLAIN = [np.full((1, 16, 16, 3), color, np.uint8) for color in ([220, 20, 30], [40, 250, 30], [30, 10, 200])]


def embedded(model: onnx.ModelProto | None = None) -> Artifact:
    return Embed(PREPROCESSING)(Normalise()(Artifact.source(model or make_classifier(), "0" * 64)))


def winners(model: onnx.ModelProto) -> list[int]:
    with Session(model) as session:
        return [int(session.run(picture)["scores"].argmax()) for picture in PLAIN]


def test_the_pictures_bytes_go_into_the_first_convolution_without_a_conversion() -> None:
    source = embedded()
    seen = calibrate(source.model, PICTURES)

    model = Quantize(seen.extremes())(source).model

    first = next(node for node in model.graph.node if node.op_type == "Conv")
    maker = next(node for node in model.graph.node if first.input[0] in node.output)
    assert maker.op_type == "DequantizeLinear"
    assert maker.input[0] == "pre:planes"
    assert graph.weight(model, maker.input[1]) == 1
    assert graph.weight(model, maker.input[2]) == 128


def test_weights_are_signed_with_a_scale_a_channel_and_activations_unsigned() -> None:
    source = embedded()
    seen = calibrate(source.model, PICTURES)

    model = Quantize(seen.extremes())(source).model

    scales = [tensor for tensor in model.graph.initializer if tensor.name == "pre:folded_weight_scale"]
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert list(scales[0].dims) == [4]
    assert kinds["pre:folded_weight_quantized"] == onnx.TensorProto.INT8
    assert {kind for name, kind in kinds.items() if "Relu" in name and "zero_point" in name} == {onnx.TensorProto.UINT8}


def test_one_scale_a_tensor_loses_what_one_a_channel_keeps() -> None:
    source = embedded()
    seen = calibrate(source.model, PLAIN)

    fine, coarse = Quantize(seen.extremes())(source), Quantize(seen.extremes(), per_channel=False)(source)

    assert winners(fine.model) == winners(source.model) == [0, 1, 2]
    assert winners(coarse.model) != [0, 1, 2]


def test_a_layer_left_in_float_is_run_in_float() -> None:
    source = embedded()
    seen = calibrate(source.model, PLAIN)
    worst = layers(source.model)[0]

    model = Quantize(seen.extremes(), per_channel=False, float_layers=(worst,))(source).model

    assert winners(model) == [0, 1, 2]


def test_quantizing_twice_gives_the_same_bytes() -> None:
    source = embedded()
    seen = calibrate(source.model, PICTURES)

    assert Quantize(seen.extremes())(source).content == Quantize(seen.extremes())(source).content


def test_a_model_without_layers_of_weights_is_refused_by_name() -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["picture"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["scores"]),
    ]
    source = embedded(make_model(nodes, {}, {"picture": (1, 3, 16, 16)}, {"scores": (1, 3)}))

    with pytest.raises(ConversionError, match="GlobalAveragePool"):
        Quantize({})(source)


def test_every_tensor_of_the_graph_is_seen() -> None:
    source = embedded()

    seen = calibrate(source.model, PLAIN)

    with Session(source.model) as session:
        scores = np.array([session.run(picture)["scores"] for picture in PLAIN])
    assert seen.extremes()["scores"] == (float(scores.min()), float(scores.max()))


def test_typical_ranges_leave_out_what_one_image_in_many_reaches() -> None:
    low, high = np.zeros((20, 1), np.float32), np.ones((20, 1), np.float32)
    high[7] = 100

    seen = Calibration(("tensor",), low, high)

    assert seen.extremes() == {"tensor": (0, 100)}
    assert seen.typical() == {"tensor": (0, 1)}
