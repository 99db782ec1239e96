"""Try recipes from the cheapest on the device to the dearest, until one passes.

The order is the order of speed (int8 throughout, then more and more layers in float), so the first that passes is
the fastest that passes, and no stop-watch decides what goes into a bundle: the same input gives the same bytes.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ommatid.errors import OmmatidError
from ommatid.vision.agreement import Agreement
from optimizer.artifact import Artifact
from optimizer.calibrate import Calibration
from optimizer.passes.quantize import Quantize, Ranges, layers
from optimizer.progress import Steps
from optimizer.request import Effort
from optimizer.session import Session

Clock = Callable[[], float]
_FLOOR: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a try is worth. `passed` counts labels where there are some, else the agreement with the float model."""

    agreement: Agreement
    accuracy: float | None
    passed: bool


@dataclass(frozen=True, slots=True)
class Try:
    """One recipe that was built and judged."""

    name: str
    artifact: Artifact
    judgement: Judgement
    float_layers: tuple[str, ...] = ()

    @property
    def rank(self) -> float:
        """Return what the best of several failures is chosen by."""
        accuracy = self.judgement.accuracy
        return self.judgement.agreement.value if accuracy is None else accuracy


def search(
    source: Artifact,
    calibration: Calibration,
    probes: list[NDArray[np.uint8]],
    judge: Callable[[Artifact], Judgement],
    effort: Effort,
    steps: Steps,
    clock: Clock = time.monotonic,
) -> tuple[Try, ...]:
    """Return every try in order; the last is the choice if it passed, else none did.

    Args:
        source: The float model with its preprocessing inside.
        calibration: The ranges seen; no try measures them again.
        probes: A few input tensors, to find out which layers suffer most.
        judge: Measures a candidate.
        effort: How far to go.
        steps: Told of what takes long.
        clock: Seconds, for the time budget.

    Raises:
        ConversionError: The model cannot be quantized at all.
    """
    deadline = clock() + effort.time_budget_s
    tries: list[Try] = []
    for name, recipe in _recipes(source, calibration, probes, effort, steps, lambda: clock() > deadline, tries):
        artifact = recipe(source)
        tries.append(Try(name, artifact, judge(artifact), recipe.float_layers))
        if tries[-1].judgement.passed or not effort.search or clock() > deadline:
            break
    return tuple(tries)


def best(tries: tuple[Try, ...]) -> Try:
    """Return the try that passed, or the one that came closest; of equals the fastest."""
    return next((item for item in tries if item.judgement.passed), max(tries, key=lambda item: item.rank))


def _recipes(
    source: Artifact,
    calibration: Calibration,
    probes: list[NDArray[np.uint8]],
    effort: Effort,
    steps: Steps,
    late: Callable[[], bool],
    tries: list[Try],
) -> Iterator[tuple[str, Quantize]]:
    """Yield recipes from fast to slow; `tries` holds what became of those before."""
    scheme = "per channel" if effort.per_channel else "per tensor"
    yield f"int8 {scheme}, full ranges", Quantize(calibration.extremes(), effort.per_channel)
    yield f"int8 {scheme}, typical ranges", Quantize(calibration.typical(), effort.per_channel)
    ranges = calibration.extremes() if tries[0].rank >= tries[1].rank else calibration.typical()
    order = sensitivity(source, ranges, effort.per_channel, probes, steps, late)
    count = 1
    while order and count <= min(effort.max_float_layers, len(order) - 1):
        yield (
            f"int8 {scheme}, {count} layer{'s' if count > 1 else ''} float",
            Quantize(ranges, effort.per_channel, tuple(sorted(order[:count], key=layers(source.model).index))),
        )
        count *= 2


def sensitivity(
    source: Artifact,
    ranges: Ranges,
    per_channel: bool,  # noqa: FBT001 - as in Quantize
    probes: list[NDArray[np.uint8]],
    steps: Steps,
    late: Callable[[], bool] = lambda: False,
) -> tuple[str, ...]:
    """Return the layers, the one whose quantization alone disturbs the outputs most first; empty when time ran out."""
    names = layers(source.model)
    with Session(source.model) as session:
        wanted = [session.run(probe) for probe in probes]
    noise: dict[str, float] = {}
    with steps.step("sensitivity of each layer", len(names)) as tick:
        for name in names:
            if late():
                return ()
            noise[name] = _noise(source, Quantize(ranges, per_channel, only=(name,)), probes, wanted)
            tick()
    return tuple(sorted(names, key=lambda name: -noise[name]))


def _noise(
    source: Artifact, recipe: Quantize, probes: list[NDArray[np.uint8]], wanted: list[dict[str, NDArray[np.float32]]]
) -> float:
    """Return the outputs' squared error as a share of their power, summed over the outputs."""
    try:
        with Session(recipe(source).model) as session:
            got = [session.run(probe) for probe in probes]
    except OmmatidError:
        return np.inf  # a layer that cannot be quantized alone is the first to stay float
    total = 0.0
    for name in wanted[0]:
        error = sum(float(((one[name] - other[name]) ** 2).sum()) for one, other in zip(got, wanted, strict=True))
        power = sum(float((other[name] ** 2).sum()) for other in wanted)
        total += error / max(power, _FLOOR)
    return total
