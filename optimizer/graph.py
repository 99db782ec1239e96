"""Small questions to, and safe changes of, an ONNX graph."""

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ommatid.errors import BadInputError


def image_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """Return the one input that is not a weight.

    Raises:
        BadInputError: There is none, or more than one.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise BadInputError(
            f"the model has {len(inputs)} inputs ({names}); one image is expected",
            hint="export the model with its image as the only input",
        )
    return inputs[0]


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Return a tensor's shape; 0 stands for a size that is not fixed."""
    return tuple(int(dim.dim_value) for dim in value.type.tensor_type.shape.dim)


def output_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of each output by name."""
    return {value.name: shape_of(value) for value in model.graph.output}


def consumers(model: onnx.ModelProto, tensor: str) -> list[onnx.NodeProto]:
    """Return the nodes that read `tensor`."""
    return [node for node in model.graph.node if tensor in node.input]


def weight(model: onnx.ModelProto, name: str) -> NDArray[np.float32] | None:
    """Return a constant of the graph, or None when `name` is computed."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return np.asarray(numpy_helper.to_array(tensor))
    return None


def set_weight(model: onnx.ModelProto, name: str, value: NDArray[np.generic]) -> None:
    """Add a constant, or replace the one of that name."""
    tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
    for index, known in enumerate(model.graph.initializer):
        if known.name == name:
            model.graph.initializer[index].CopyFrom(tensor)
            return
    model.graph.initializer.append(tensor)


def set_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make `nodes`, some of which may be the graph's own, all its nodes."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def attribute(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    """Return a list-of-integers attribute."""
    return next((list(item.ints) for item in node.attribute if item.name == name), default)


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    """Set an attribute, replacing an older one."""
    drop_attribute(node, name)
    node.attribute.append(onnx.helper.make_attribute(name, value))


def drop_attribute(node: onnx.NodeProto, name: str) -> None:
    """Remove an attribute if it is there."""
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that can be changed without touching this one."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin
