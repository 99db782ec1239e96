"""Decide on a trial's figures. Pure: the figures come from elsewhere."""

from dataclasses import dataclass
from typing import Final

from agent.trial.errors import GoldenAgreementError, GoldenMismatchError, LatencyError, TrialError

MAX_RATIO: Final = 3.0
"""How much slower than the running model a new one may be. A trial runs beside a busy loop at the lowest priority,
where the ratio of two models measured in turns still scatters; a regression worth a refusal is larger than that."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; `tolerance` and `minimum_agreement` are what the bundle itself demands."""

    worst_difference: float
    tolerance: float
    agreement: float
    minimum_agreement: float
    latency_ms: float | None = None
    current_latency_ms: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return how many times slower than the running model; None where there is none."""
        if self.latency_ms is None or not self.current_latency_ms:
            return None
        return self.latency_ms / self.current_latency_ms


def judge(figures: Figures, max_ratio: float = MAX_RATIO) -> TrialError | None:
    """Return why the model is refused, the gravest first, or None when it passes."""
    if not figures.worst_difference <= figures.tolerance:  # NaN is no small difference
        return GoldenMismatchError(
            f"golden outputs differ by {figures.worst_difference:.3g} of their range; "
            f"at most {figures.tolerance:.3g} is allowed"
        )
    if not figures.agreement >= figures.minimum_agreement:
        return GoldenAgreementError(
            f"agreement with the float model is {figures.agreement:.3f}; "
            f"at least {figures.minimum_agreement:.3f} is needed"
        )
    if figures.ratio is not None and figures.ratio > max_ratio:
        return LatencyError(
            f"{figures.latency_ms:.1f} ms a frame is {figures.ratio:.1f} times the {figures.current_latency_ms:.1f} ms "
            f"of the running model; at most {max_ratio:g} times is allowed"
        )
    return None
