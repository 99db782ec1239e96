"""Prometheus figures of the server: a fixed number of series, whatever the size of the fleet."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ommatid.contract.messages import REPORTS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reports = Counter("ommatid_fleet_reports_total", "Reports stored", ["kind"], registry=self.registry)
        for kind in REPORTS:
            self.reports.labels(kind)
        self.repeated = Counter(
            "ommatid_fleet_reports_repeated_total", "Reports that were stored already", registry=self.registry
        )
        self.refused = Counter(
            "ommatid_fleet_messages_refused_total", "Messages of devices that were refused", registry=self.registry
        )
        self.batch_seconds = Histogram(
            "ommatid_fleet_ingest_batch_seconds", "Time to store one batch of messages", registry=self.registry
        )

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a figure that is read whenever it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self.registry)
