"""What Prometheus can read at /metrics: base units, a bounded number of series, no model digest as a label."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from agent.loop.protocol import FramePush, SwappedPush
from ommatid import __version__
from ommatid.contract.messages import ModelRef, UpdateState

_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is asked for at each scrape."""

    spool_reports: Callable[[], float]
    mqtt_connected: Callable[[], float]
    loop_linked: Callable[[], float]
    last_frame_age_s: Callable[[], float]


class Metrics:
    """The counters of one supervisor."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        source = ("source",)
        self._inference = Histogram(
            "ommatid_inference_seconds",
            "From taking a frame to its result.",
            source,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._frames = Counter("ommatid_frames", "Frames inferred.", source, registry=self._registry)
        self._dropped = Counter("ommatid_frames_dropped", "Frames nobody read.", source, registry=self._registry)
        self._flagged = Counter(
            "ommatid_frames_flagged", "Frames that failed a quality check.", source, registry=self._registry
        )
        self._errors = Counter(
            "ommatid_inference_errors", "Frames the model failed on.", source, registry=self._registry
        )
        self._objects = Counter("ommatid_objects", "Objects found.", source, registry=self._registry)
        self._swaps = Counter("ommatid_model_swaps", "Swaps of the model.", registry=self._registry)
        self._swap_dropped = Counter(
            "ommatid_swap_frames_dropped", "Frames that swaps cost beyond the steady rate.", registry=self._registry
        )
        self._model = Info("ommatid_model", "The model that runs.", registry=self._registry)
        self._update = Gauge(
            "ommatid_update_state", "1 for the state of the update.", ("state",), registry=self._registry
        )
        self._refusals = Counter("ommatid_refusals", "Desired documents refused.", ("error",), registry=self._registry)
        Info("ommatid_agent", "This program.", registry=self._registry).info({"version": __version__})
        self._last_dropped: dict[str, int] = {}

    def ask(self, gauges: Gauges) -> None:
        """Show what is asked for at each scrape; to be called once."""
        for name, help_text, read in (
            ("ommatid_spool_reports", "Reports that the server has not confirmed.", gauges.spool_reports),
            ("ommatid_mqtt_connected", "1 while connected to the broker.", gauges.mqtt_connected),
            ("ommatid_loop_linked", "1 while the loop answers.", gauges.loop_linked),
            ("ommatid_last_frame_age_seconds", "Since a frame was last inferred.", gauges.last_frame_age_s),
        ):
            Gauge(name, help_text, registry=self._registry).set_function(read)

    def frame(self, frame: FramePush) -> None:
        """Count one frame."""
        self._dropped.labels(frame.source).inc(self._newly_dropped(frame))
        if frame.flags:
            self._flagged.labels(frame.source).inc()
        if frame.error is not None:
            self._errors.labels(frame.source).inc()
        elif frame.digest is not None:
            self._frames.labels(frame.source).inc()
            self._inference.labels(frame.source).observe(frame.latency_ms / 1000)
            self._objects.labels(frame.source).inc(len(frame.objects))

    def swapped(self, swap: SwappedPush) -> None:
        """Count one swap."""
        self._swaps.inc()
        self._swap_dropped.inc(swap.dropped_by_swap)

    def model(self, model: ModelRef | None) -> None:
        """Name the model that runs."""
        self._model.info({"name": model.name, "version": model.version} if model else {})

    def update(self, state: UpdateState) -> None:
        """Show the state of the update."""
        for each in UpdateState:
            self._update.labels(each).set(each is state)

    def refusal(self, error: str) -> None:
        """Count one refused document."""
        self._refusals.labels(error).inc()

    def page(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self._registry)

    def _newly_dropped(self, frame: FramePush) -> int:
        last = self._last_dropped.get(frame.source, 0)
        self._last_dropped[frame.source] = frame.dropped
        return frame.dropped - last if frame.dropped >= last else frame.dropped
