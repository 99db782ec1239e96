"""Judge a build with the device's own code: decode, agreement, accuracy, and latency side by side."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ommatid.errors import BadInputError
from ommatid.runtime.model import Model
from ommatid.runtime.spec import InputSpec, ModelSpec, TaskSpec
from ommatid.vision.agreement import Agreement, agree
from ommatid.vision.results import Classification, Result
from optimizer.artifact import Artifact
from optimizer.images import ImageSet, Picture
from optimizer.passes.embed import IMAGE
from optimizer.preprocessing import Preprocessing, Size
from optimizer.progress import Tick

LATENCY_ROUNDS: Final = 30
WARM_UP: Final = 3


@dataclass(frozen=True, slots=True)
class Bench:
    """What all artifacts of one build have in common, and where their files are laid to be loaded."""

    folder: Path
    name: str
    size: Size
    preprocessing: Preprocessing
    task: TaskSpec
    labels: tuple[str, ...]

    def spec(self, artifact: Artifact) -> ModelSpec:
        """Write the artifact's file, once, and return how a device would run it."""
        path = self.folder / f"{artifact.sha256}.onnx"
        if not path.exists():
            path.write_bytes(artifact.content)
        source = self.preprocessing
        return ModelSpec(
            name=self.name,
            format="onnx",
            model=path,
            input=InputSpec(
                name=IMAGE,
                shape=(1, self.size.height, self.size.width, source.channels),
                dtype="uint8",
                layout="NHWC",
                color=source.color,
                resize=source.resize,
                pad_value=source.pad_value,
            ),
            task=self.task,
            labels=self.labels,
        )

    def results(self, artifact: Artifact, pictures: Sequence[Picture], tick: Tick = lambda: None) -> list[Result]:
        """Return what the artifact finds in each picture.

        Raises:
            BackendError: The runtime cannot load or run it.
        """
        found = []
        with Model.from_spec(self.spec(artifact)) as model:
            for picture in pictures:
                found.append(model.infer(picture).result)
                tick()
        return found

    def latencies_ms(self, artifacts: Sequence[Artifact], pictures: Sequence[Picture]) -> tuple[float, ...]:
        """Return each artifact's median time from picture to result, one thread, measured in turns."""
        models = [Model.from_spec(self.spec(artifact)) for artifact in artifacts]
        times: list[list[float]] = [[] for _ in models]
        for model in models:
            model.warm_up(WARM_UP)
        for turn in range(LATENCY_ROUNDS):
            for model, taken in zip(models, times, strict=True):
                taken.append(model.infer(pictures[turn % len(pictures)]).total_ms)
        for model in models:
            model.close()
        return tuple(statistics.median(taken) for taken in times)


def agreement(candidate: Sequence[Result], reference: Sequence[Result]) -> Agreement:
    """Return how far two models agree over the same pictures."""
    return sum((agree(one, other) for one, other in zip(candidate, reference, strict=True)), Agreement())


def accuracy(results: Sequence[Result], images: ImageSet, labels: Sequence[str]) -> float:
    """Return the share of pictures whose likeliest class is the name of their folder.

    Raises:
        BadInputError: A folder is not named like any label.
    """
    if unknown := sorted({str(label) for label in images.labels} - set(labels)):
        raise BadInputError(
            f"--validate: folder {unknown[0]} is no label of the model", hint="name class folders as in --labels"
        )
    right = [
        isinstance(result, Classification) and labels[int(result.class_id[0])] == label
        for result, label in zip(results, images.labels, strict=True)
    ]
    return float(np.mean(right))
