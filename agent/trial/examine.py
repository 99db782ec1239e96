"""Run a model against its golden samples, and measure it in turns with the one that runs now."""

import logging
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.trial.errors import MemoryLimitError
from agent.trial.judge import Figures, judge
from agent.trial.verdict import TrialVerdict, refused
from ommatid.errors import BackendError, OmmatidError
from ommatid.runtime.golden import check_golden, read_image
from ommatid.runtime.model import Model

ROUNDS: Final = 24
LEAST_ROUNDS: Final = 5
BUDGET_S: Final = 10.0
ALLOCATION_FAILURES: Final = ("bad_alloc", "allocate memory", "alloc failed", "out of memory")
"""What the runtimes say when memory runs out; they have no class of error for it."""

logger = logging.getLogger(__name__)


def examine(
    candidate: Path, current: Path | None, *, threads: int, max_ratio: float, lift_limit: Callable[[], None]
) -> TrialVerdict:
    """Return the verdict on the model in `candidate`; no expected error leaves this function.

    `lift_limit` is called after the golden samples: the memory limit is the candidate's alone.
    """
    try:
        with Model.load(candidate, threads) as model:
            model.warm_up()
            golden = check_golden(model)
            peak = peak_memory_bytes()
            lift_limit()
            images = [read_image(sample.image) for sample in model.spec.golden.samples] if model.spec.golden else []
            latency_ms, current_ms = _latencies(model, current, images, threads)
    except (OmmatidError, MemoryError) as error:
        return refused(_named(error), peak_memory_bytes=peak_memory_bytes())
    figures = Figures(
        worst_difference=golden.worst_difference,
        tolerance=golden.tolerance,
        agreement=golden.agreement.value,
        minimum_agreement=golden.minimum_agreement,
        latency_ms=latency_ms,
        current_latency_ms=current_ms,
    )
    reason = judge(figures, max_ratio)
    return TrialVerdict(
        passed=reason is None,
        error=None if reason is None else type(reason).__name__,
        reason=None if reason is None else str(reason),
        agreement=figures.agreement,
        worst_difference=figures.worst_difference,
        latency_ms=latency_ms,
        current_latency_ms=current_ms,
        ratio=figures.ratio,
        peak_memory_bytes=peak,
    )


def peak_memory_bytes() -> int:
    """Return the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_in_turns(models: Sequence[Model], images: Sequence[NDArray[np.uint8]]) -> list[float]:
    """Return each model's median latency in ms; models take turns, so that what else runs slows all alike."""
    times_ms: list[list[float]] = [[] for _ in models]
    ends_s = time.monotonic() + BUDGET_S
    for done in range(ROUNDS):
        if done >= LEAST_ROUNDS and time.monotonic() > ends_s:
            break
        for model, taken in zip(models, times_ms, strict=True):
            taken.append(model.infer(images[done % len(images)]).total_ms)
    return [statistics.median(taken) for taken in times_ms]


def _latencies(
    model: Model, current: Path | None, images: Sequence[NDArray[np.uint8]], threads: int
) -> tuple[float, float | None]:
    """Return the medians of the candidate and of the running model, which may itself be broken."""
    if current is None:
        return measure_in_turns([model], images)[0], None
    try:
        with Model.load(current, threads) as running:
            running.warm_up()
            candidate_ms, current_ms = measure_in_turns([model, running], images)
            return candidate_ms, current_ms
    except OmmatidError as error:
        logger.warning("the running model cannot be compared with: %s", error)
        return measure_in_turns([model], images)[0], None


def _named(error: Exception) -> Exception:
    """Return the error, as one of memory where it is one of memory."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or (
        isinstance(error, BackendError) and any(words in text for words in ALLOCATION_FAILURES)
    ):
        return MemoryLimitError(f"the model needs more memory than it may have: {error}")
    return error
