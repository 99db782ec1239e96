"""Telemetry windows, added up per device: exact integers, so the order of windows does not matter."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from math import exp, isfinite, log, sqrt
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.database.models import StoredReport
from ommatid.contract.messages import Histogram, Window, validate
from ommatid.errors import MessageError

BINS: Final = 256
Q16: Final = 1 << 16
LATENCY: Final = "latency_ms"


class SignalView(BaseModel):
    """One signal over all windows."""

    model_config = ConfigDict(frozen=True)

    n: int
    mean: float
    deviation: float
    min: float | None
    max: float | None
    p50: float | None
    p99: float | None


class TelemetryView(BaseModel):
    """What one device measured."""

    model_config = ConfigDict(frozen=True)

    id: str
    windows: int
    seconds: float
    frames: int
    dropped: int
    flagged: int
    fps: float = Field(description="frames a second of one source")
    p50_ms: float | None = Field(description="inference with pre- and post-processing, from the histogram")
    p99_ms: float | None
    signals: dict[str, SignalView]
    classes: dict[str, int] = Field(description="label -> detections")


def summarize(session: Session, tenant: str, since: datetime) -> list[TelemetryView]:
    """Return each device's windows received since a moment, added up; devices without any are left out."""
    rows = session.execute(
        select(StoredReport.device_id, StoredReport.body)
        .where(StoredReport.tenant == tenant, StoredReport.kind == "window", StoredReport.received_at >= since)
        .order_by(StoredReport.device_id)
        .execution_options(yield_per=500)
    )
    windows: dict[str, list[Window]] = {}
    for device, body in rows:
        try:
            windows.setdefault(device, []).append(validate(body, Window))
        except MessageError:
            continue  # of another release; it stays in the database
    return [_add_up(device, its) for device, its in windows.items() if its]


def add(histograms: Iterable[Histogram]) -> Histogram | None:
    """Add histograms of one signal; those of other bins than the newest are left out, they cannot be added."""
    every = list(histograms)
    same = [one for one in every if one.bins == every[-1].bins]
    if not same:
        return None
    counts: dict[int, int] = {}
    for one in same:
        for index, count in one.counts.items():
            counts[index] = counts.get(index, 0) + count
    # Not validated: what is bounded for one window may well be larger in the sum.
    return Histogram.model_construct(
        bins=same[-1].bins,
        counts=dict(sorted(counts.items())),
        n=sum(one.n for one in same),
        sum_q16=sum(one.sum_q16 for one in same),
        sum_squares_q16=sum(one.sum_squares_q16 for one in same),
        min=min((one.min for one in same if one.min is not None), default=None),
        max=max((one.max for one in same if one.max is not None), default=None),
    )


def quantile(histogram: Histogram, share: float) -> float | None:
    """Return the upper edge of the bin that holds a quantile, at most the largest value seen.

    The id of a specification says all: `lin:LOW:HIGH` or `log:LOW:HIGH`, 256 equal steps (agent.telemetry.bins).
    """
    try:
        scale, low_text, high_text = histogram.bins.split(":")
        low, high = float(low_text), float(high_text)
    except ValueError:
        return None
    if scale not in {"lin", "log"} or not low < high or (scale == "log" and low <= 0):
        return None
    if not isfinite(high - low if scale == "lin" else high / low):
        return None
    wanted = share * sum(histogram.counts.values())
    passed = 0
    for index, count in sorted(histogram.counts.items()):
        passed += count
        if passed >= wanted:
            part = (index + 1) / BINS
            edge = low + part * (high - low) if scale == "lin" else low * exp(part * log(high / low))
            return edge if histogram.max is None else min(edge, histogram.max)
    return None


def _add_up(device: str, windows: list[Window]) -> TelemetryView:
    names = sorted({name for window in windows for name in window.signals})
    added = {name: add(window.signals[name] for window in windows if name in window.signals) for name in names}
    signals = {name: _signal(one) for name, one in added.items() if one is not None and one.n}
    seconds = sum(window.duration_s for window in windows)
    frames = sum(window.frames for window in windows)
    latency = signals.get(LATENCY)
    return TelemetryView(
        id=device,
        windows=len(windows),
        seconds=round(seconds, 3),
        frames=frames,
        dropped=sum(window.dropped for window in windows),
        flagged=sum(window.flagged for window in windows),
        fps=round(frames / seconds, 3),
        p50_ms=latency.p50 if latency else None,
        p99_ms=latency.p99 if latency else None,
        signals=signals,
        classes=_classes(window.classes for window in windows),
    )


def _signal(histogram: Histogram) -> SignalView:
    mean = histogram.sum_q16 / Q16 / histogram.n
    variance = histogram.sum_squares_q16 / Q16 / histogram.n - mean * mean
    return SignalView(
        n=histogram.n,
        mean=mean,
        deviation=sqrt(max(0.0, variance)),
        min=histogram.min,
        max=histogram.max,
        p50=quantile(histogram, 0.50),
        p99=quantile(histogram, 0.99),
    )


def _classes(windows: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for window in windows:
        for label, count in window.items():
            total[label] = total.get(label, 0) + count
    return dict(sorted(total.items(), key=lambda one: (-one[1], one[0])))
