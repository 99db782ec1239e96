"""The inference thread: take a frame, judge it, run the model on it, say what came of it; swap between two frames."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from agent.loop.inbox import Inbox
from agent.loop.protocol import FoundObject, FramePush, Push, SourceFigures, SourcePush, SwappedPush
from agent.loop.slots import LoadedModel, Slots, Turned
from agent.loop.statistics import SourceStatistics, Timing, frames_per_second, percentile
from agent.loop.swap_account import History, SwapAccount
from ommatid.errors import OmmatidError
from ommatid.runtime.model import Model
from ommatid.vision.baseline import CameraBaseline
from ommatid.vision.frame import Frame
from ommatid.vision.quality import QualityChecks, QualityReport
from ommatid.vision.results import Detections, Result, label_of

TAKE_TIMEOUT_S: Final = 0.25

logger = logging.getLogger(__name__)


class Pipeline:
    """Everything that happens to a frame. `run` is the inference thread; the rest may be asked from any thread."""

    def __init__(
        self, sources: Sequence[str], inbox: Inbox, slots: Slots, push: Callable[[Push], None], *, quality: bool
    ) -> None:
        """Join what frames come from, what looks at them, and where results go; `push` never blocks."""
        self._inbox = inbox
        self._slots = slots
        self._push = push
        self._quality = quality
        self._baselines = {source: CameraBaseline() for source in sources}
        self._checks: dict[str, QualityChecks] = {}
        self._statistics = {source: SourceStatistics() for source in sources}
        self._history = History()
        self._accounts: list[SwapAccount] = []
        self._failing = False
        self._stopped = threading.Event()
        self.last_swap: SwappedPush | None = None
        self.last_frame_s: float | None = None

    @property
    def frames(self) -> int:
        """Return the frames dealt with since the start."""
        return sum(each.frames for each in self._statistics.values())

    @property
    def errors(self) -> int:
        """Return the frames on which the model failed."""
        return sum(each.errors for each in self._statistics.values())

    def run(self) -> None:
        """Deal with frames until `stop`."""
        while not self._stopped.is_set():
            self._turn()
            frame = self._inbox.take(TAKE_TIMEOUT_S)
            if frame is not None:
                self.process(frame)
            self._keep_accounts(time.monotonic())

    def stop(self) -> None:
        """Let `run` return after the frame it is at."""
        self._stopped.set()
        self._inbox.wake()

    def begin_account(self, *, back: bool = False) -> SwapAccount:
        """Start to count what a swap costs; call it when loading begins."""
        counts = self._inbox.totals()
        account = SwapAccount(counts, self._history.steady_rate(counts), back=back)
        self._accounts.append(account)
        return account

    def drop_accounts(self) -> None:
        """Forget what was counted for a swap that will not be."""
        self._accounts = [account for account in self._accounts if account.ends_at_s is not None]

    def figures(self, states: Iterable[SourcePush]) -> tuple[SourceFigures, ...]:
        """Return each source as it is now."""
        return tuple(self._figures_of(state) for state in states)

    def _turn(self) -> None:
        while (turned := self._slots.turn()) is not None:
            self._checks.clear()
            self._failing = False
            self._take_down(turned)

    def _take_down(self, turned: Turned) -> None:
        begun = [account for account in self._accounts if account.ends_at_s is None]
        account = begun[-1] if begun and not turned.back else self.begin_account(back=turned.back)
        account.swapped(time.monotonic(), turned.digest, turned.previous)

    def process(self, frame: Frame) -> None:
        """Judge one frame, run the model on it, count it and say what came of it."""
        taken_s = time.monotonic()
        held = self._slots.active
        report = self._inspect(frame, held) if self._quality else None
        objects, error = _seen(held, frame) if held is not None else ((), None)
        done_s = time.monotonic()
        timing = Timing(done_s, (done_s - taken_s) * 1000, done_s * 1000 - frame.captured_ns / 1e6)
        self._count(frame, timing, error)
        self._push(self._result(frame, timing, held, report, objects, error))

    def _inspect(self, frame: Frame, held: LoadedModel | None) -> QualityReport:
        checks = self._checks.get(frame.source)
        if checks is None:
            size = None if held is None else (held.model.spec.input.width, held.model.spec.input.height)
            checks = QualityChecks(
                None if held is None else held.reference, baseline=self._baselines[frame.source], input_size=size
            )
            self._checks[frame.source] = checks
        return checks.inspect(frame)

    def _count(self, frame: Frame, timing: Timing, error: str | None) -> None:
        self._statistics[frame.source].add(timing, failed=error is not None)
        for account in self._accounts:
            account.add(timing.latency_ms)
        if error is None:
            self.last_frame_s = timing.at_s
        if (error is not None) != self._failing:  # one line a change, not one a frame
            self._failing = error is not None
            logger.log(
                logging.WARNING if error else logging.INFO, "%s: %s", frame.source, error or "the model runs again"
            )

    def _result(
        self,
        frame: Frame,
        timing: Timing,
        held: LoadedModel | None,
        report: QualityReport | None,
        objects: tuple[FoundObject, ...],
        error: str | None,
    ) -> FramePush:
        return FramePush(
            source=frame.source,
            index=frame.index,
            captured_at_ms=round(frame.captured_at * 1000),
            latency_ms=timing.latency_ms,
            age_ms=timing.age_ms,
            frames=self._statistics[frame.source].frames,
            dropped=self._inbox.counts(frame.source).dropped,
            digest=None if held is None else held.digest,
            width=frame.width,
            height=frame.height,
            quality_state=None if report is None else str(report.state),
            quality={} if report is None else _finite(report),
            flags=() if report is None else report.reasons,
            objects=objects,
            error=error,
        )

    def _keep_accounts(self, now_s: float) -> None:
        self._history.note(now_s, self._inbox.totals())
        for account in [account for account in self._accounts if account.over(now_s)]:
            self._accounts.remove(account)
            self.last_swap = account.close(self._inbox.totals())
            self._push(self.last_swap)

    def _figures_of(self, state: SourcePush) -> SourceFigures:
        statistics = self._statistics[state.name]
        timings = statistics.timings()
        latencies = [timing.latency_ms for timing in timings]
        return SourceFigures(
            name=state.name,
            state=state.state,
            reason=state.reason,
            frames=statistics.frames,
            dropped=self._inbox.counts(state.name).dropped,
            errors=statistics.errors,
            fps=frames_per_second([timing.at_s for timing in timings], time.monotonic()),
            p50_ms=percentile(latencies, 0.5),
            p99_ms=percentile(latencies, 0.99),
            age_p50_ms=percentile([timing.age_ms for timing in timings], 0.5),
        )


def _seen(held: LoadedModel, frame: Frame) -> tuple[tuple[FoundObject, ...], str | None]:
    """Return what the model found, or why it failed."""
    try:
        return found_objects(held.model, held.model.infer(frame.bgr).result), None
    except OmmatidError as error:
        return (), f"{type(error).__name__}: {error}"
    except Exception as error:  # whatever one frame does to a model, the camera goes on
        logger.exception(
            "%s: frame %d: the model failed in a way that no error of ours covers", frame.source, frame.index
        )
        return (), f"{type(error).__name__}: {error}"


def found_objects(model: Model, result: Result) -> tuple[FoundObject, ...]:
    """Return a result with its labels, coordinates in tenths of a pixel."""
    labels = [label_of(model.spec.labels, class_id) for class_id in result.class_id.tolist()]
    confidences = [round(confidence, 4) for confidence in result.confidence.tolist()]
    if not isinstance(result, Detections):
        return tuple(FoundObject(label, confidence) for label, confidence in zip(labels, confidences, strict=True))
    return tuple(
        FoundObject(label, confidence, (round(left, 1), round(top, 1), round(right, 1), round(bottom, 1)))
        for label, confidence, (left, top, right, bottom) in zip(labels, confidences, result.xyxy.tolist(), strict=True)
    )


def _finite(report: QualityReport) -> dict[str, float]:
    """Return the signals that JSON can say."""
    return {name: round(value, 5) for name, value in report.signals.items() if math.isfinite(value)}
