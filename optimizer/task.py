"""What a model's outputs mean: stated in a file, or found by their shapes."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import onnx
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ommatid.contract.manifest import ClassificationDecode, SsdDecode, Task
from ommatid.errors import BadInputError
from ommatid.runtime.spec import TaskSpec
from ommatid.vision import classify, ssd
from ommatid.vision.ssd import make_anchors
from optimizer import graph
from optimizer.preprocessing import Color, Resize, Size

FAMILIES: Final = ("ssd", "classification")
LABELS_PATH: Final = "labels.txt"
Shapes = Mapping[str, tuple[int, ...]]


class InputTable(BaseModel):
    """The table [input]: what happens to a pixel; an option of the command line goes before it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: tuple[float, ...] | None = Field(None, min_length=1)
    scale: tuple[float, ...] | None = Field(None, min_length=1)
    color: Color | None = None
    resize: Resize | None = None


@dataclass(frozen=True, slots=True)
class DecodeFile:
    """A --decode FILE.toml: the family's fields, and optionally the tables [task] and [input]."""

    family: str
    decode: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    input: InputTable = field(default_factory=InputTable)


@dataclass(frozen=True, slots=True)
class ResolvedTask:
    """The task, the labels, and what was assumed on the way."""

    task: Task
    labels: tuple[str, ...]
    assumptions: tuple[str, ...]


def read_decode(text: str) -> DecodeFile:
    """Return what `--decode` names: a family, or a file.

    Raises:
        BadInputError: Neither.
    """
    if text in FAMILIES:
        return DecodeFile(text)
    path = Path(text)
    hint = f"use {', '.join(FAMILIES)}, or a TOML file; docs/optimizer.md has an example"
    if not path.is_file():
        raise BadInputError(f"--decode {text}: no such family or file", hint=hint)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: not a TOML file: {error}", hint=hint) from error
    family, task = document.pop("family", None), document.pop("task", {})
    if family not in FAMILIES or not isinstance(task, dict):
        raise BadInputError(f"{path}: family is {family!r}, [task] {task!r}", hint=hint)
    try:
        picture = InputTable.model_validate(document.pop("input", {}))
    except ValidationError as error:
        raise BadInputError(f"{path}: [input] {_first(error)}", hint=hint) from error
    return DecodeFile(family, document, task, picture)


def resolve_task(
    stated: DecodeFile, model: onnx.ModelProto, size: Size, labels: Path | None, overrides: Mapping[str, float | None]
) -> ResolvedTask:
    """Fill in what the model's outputs tell by their shapes, and check that all of it fits.

    Raises:
        BadInputError: The outputs cannot be told apart or do not fit; they are listed.
    """
    shapes, assumptions = graph.output_shapes(model), []
    fields = dict(stated.decode)
    wanted = ("boxes", "scores") if stated.family == "ssd" else ("scores",)
    if missing := [name for name in wanted if name not in fields]:
        found = _ssd_heads(shapes) if stated.family == "ssd" else _scores(shapes)
        fields |= {name: found[name] for name in missing}
        assumptions.append(f"outputs are {', '.join(f'{name} = {fields[name]}' for name in wanted)} (--decode FILE)")
    if unknown := sorted({str(fields[name]) for name in wanted} - set(shapes)):
        raise BadInputError(f"--decode: the model has no output {unknown[0]}", hint=f"its outputs: {_listed(shapes)}")
    if "activation" not in fields and (done := _activation_in_graph(model, fields["scores"])):
        fields["activation"] = "none"
        assumptions.append(f"scores are probabilities already: the graph ends in {done}")
    thresholds = {name: value for name, value in overrides.items() if value is not None}
    task = _validated(stated, fields, thresholds)
    classes = _check_shapes(task, shapes, size)
    names = _read_labels(labels, classes) if labels else tuple(f"class {index}" for index in range(classes))
    if labels is None:
        assumptions.append(f"labels are class 0 to class {classes - 1} (--labels)")
    return ResolvedTask(task, names, tuple(assumptions))


def task_spec(task: Task) -> TaskSpec:
    """Return the task as the runtime takes it."""
    fields = task.decode.model_dump(exclude={"family"})
    if isinstance(task.decode, SsdDecode):
        anchors = ssd.SsdAnchors(**fields.pop("anchors"))
        return TaskSpec(
            "detection",
            ssd.SsdDecode(**fields, anchors=anchors),
            task.score_threshold,
            task.iou_threshold,
            task.max_detections,
        )
    return TaskSpec("classification", classify.ClassificationDecode(**fields))


def _validated(stated: DecodeFile, fields: dict[str, Any], thresholds: dict[str, float]) -> Task:
    kind = "detection" if stated.family == "ssd" else "classification"
    document = {"kind": kind, "decode": {**fields, "family": stated.family}, "labels": LABELS_PATH}
    try:
        return TypeAdapter(Task).validate_python({**document, **stated.task, **thresholds})
    except ValidationError as error:
        raise BadInputError(f"--decode: {_first(error)}", hint="docs/optimizer.md lists the fields") from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _ssd_heads(shapes: Shapes) -> dict[str, str]:
    """Return the two outputs (1, n, 4) and (1, n, classes) of one n."""
    heads = {name: shape for name, shape in shapes.items() if len(shape) == 3 and shape[0] == 1}  # noqa: PLR2004
    boxes = [name for name, shape in heads.items() if shape[2] == 4]  # noqa: PLR2004 - four edges
    if len(boxes) > 1:
        boxes = [name for name in boxes if "box" in name.lower() or "loc" in name.lower()]
    scores = [name for name in heads if boxes and name != boxes[0] and heads[name][1] == heads[boxes[0]][1]]
    if len(boxes) != 1 or len(scores) != 1:
        raise BadInputError(
            f"--decode ssd: no pair of outputs (1, n, 4) and (1, n, classes) among {_listed(shapes)}",
            hint='name them in a file: family = "ssd", boxes = "…", scores = "…"; export without NMS',
        )
    return {"boxes": boxes[0], "scores": scores[0]}


def _scores(shapes: Shapes) -> dict[str, str]:
    vectors = [name for name, shape in shapes.items() if len(shape) == 2 and shape[0] == 1]  # noqa: PLR2004
    if len(vectors) != 1:
        raise BadInputError(
            f"--decode classification: not one output (1, classes) among {_listed(shapes)}",
            hint='name it in a file: family = "classification", scores = "…"',
        )
    return {"scores": vectors[0]}


def _activation_in_graph(model: onnx.ModelProto, scores: str) -> str | None:
    maker = next((node for node in model.graph.node if scores in node.output), None)
    return maker.op_type if maker is not None and maker.op_type in {"Softmax", "Sigmoid"} else None


def _check_shapes(task: Task, shapes: Shapes, size: Size) -> int:
    """Return how many classes the scores have, once they fit the decoder."""
    decode = task.decode
    scores = shapes[decode.scores]
    if isinstance(decode, ClassificationDecode):
        if len(scores) != 2 or scores[0] != 1 or scores[1] < 1:  # noqa: PLR2004 - one row of classes
            raise BadInputError(
                f"output {decode.scores} has shape {scores}, not (1, classes)", hint=f"the outputs: {_listed(shapes)}"
            )
        return scores[1]
    anchors = len(make_anchors(task_spec(task).decode.anchors, size.width, size.height))  # type: ignore[union-attr]
    boxes = shapes[decode.boxes]
    if boxes != (1, anchors, 4) or len(scores) != 3 or scores[:2] != (1, anchors):  # noqa: PLR2004 - batch, n, classes
        raise BadInputError(
            f"outputs {decode.boxes} {boxes} and {decode.scores} {scores} do not fit the rule's {anchors} anchors",
            hint=f"state the anchors in --decode FILE.toml; the model's outputs: {_listed(shapes)}",
        )
    return scores[2]


def _read_labels(path: Path, classes: int) -> tuple[str, ...]:
    if not path.is_file():
        raise BadInputError(f"{path}: no such file", hint="--labels names a text file, one label a line")
    try:
        names = tuple(path.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: not UTF-8 text", hint="one label a line") from error
    if len(names) != classes:
        raise BadInputError(
            f"{path}: {len(names)} labels, but the model has {classes} classes",
            hint="one label a line, in the order of the scores; the background counts as a class",
        )
    return names


def _listed(shapes: Shapes) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
