"""What a trial found: one JSON line from the trial's process to whoever started it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from agent.trial.errors import TrialOutputError

MAX_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """Whether a model may meet the camera, and the figures behind it; what was not measured is None.

    error, reason: the class of what was wrong, and one sentence for the operator.
    agreement: with the float model over the golden samples, 0-1.
    worst_difference: from the stored outputs, as a share of their range.
    latency_ms, current_latency_ms: medians, measured in turns; ratio is the first over the second.
    peak_memory_bytes: of the whole process after the golden samples.
    """

    passed: bool
    error: str | None = None
    reason: str | None = None
    agreement: float | None = None
    worst_difference: float | None = None
    latency_ms: float | None = None
    current_latency_ms: float | None = None
    ratio: float | None = None
    peak_memory_bytes: int | None = None

    @property
    def figures(self) -> dict[str, float]:
        """Return what was measured, units in the names."""
        numbers = {field.name: getattr(self, field.name) for field in fields(self)}
        del numbers["passed"], numbers["error"], numbers["reason"]
        return {name: float(value) for name, value in numbers.items() if value is not None}

    def encode(self) -> str:
        """Return the JSON line; what is not finite counts as not measured."""
        document = {name: value if _plain(value) else None for name, value in asdict(self).items()}
        return json.dumps(document, separators=(",", ":"))


def refused(error: Exception, **figures: Any) -> TrialVerdict:  # noqa: ANN401 - the verdict's own fields
    """Return the verdict that names an error, with what was measured before it."""
    return TrialVerdict(passed=False, error=type(error).__name__, reason=str(error)[:MAX_REASON], **figures)


def decode_verdict(line: str) -> TrialVerdict:
    """Read the JSON line.

    Raises:
        TrialOutputError: It is not a verdict.
    """
    try:
        document = json.loads(line)
        verdict = TrialVerdict(**document)
    except (ValueError, TypeError, RecursionError) as error:
        raise TrialOutputError(f"the trial said {line[:100]!r}, which is no verdict") from error
    if not _whole(document):
        raise TrialOutputError(f"the trial said {line[:100]!r}, which is no whole verdict")
    return verdict


def _whole(document: Mapping[str, Any]) -> bool:
    texts = {"error", "reason"}
    return isinstance(document.get("passed"), bool) and all(
        value is None or (isinstance(value, str) if name in texts else isinstance(value, int | float))
        for name, value in document.items()
    )


def _plain(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
