"""The supervisor, put together: what the loop pushes becomes statistics, windows, results, metrics and reports."""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.clock import Clock, rfc3339
from agent.loop.protocol import FramePush, Push, SourcePush, Status, SwappedPush
from agent.loop_client import LoopClient
from agent.sdnotify import notify
from agent.settings import Settings
from agent.spool import Spool
from agent.status import RUN_FILE, Address, AgentStatus, LoopStatus, as_document, model_ref, update_status
from agent.supervisor.metrics import Metrics
from agent.supervisor.results import ResultSink
from agent.supervisor.updates import Reports, Updates
from agent.supervisor.uplink import Uplink
from agent.supervisor.view import LoopView
from agent.supervisor.web import Pages, WebServer
from agent.supervisor.windows import Windows
from agent.update.probation import Sight
from agent.update.store import Store
from ommatid import __version__
from ommatid.contract.messages import ModelRef, State, UpdateState
from ommatid.disk import Disk, replace_file
from ommatid.errors import LinkError, StorageError

TURN_S: Final = 1.0
STUCK_S: Final = 30.0
"""A main loop that did not turn for so long is not healthy."""
RENEWAL_CHECK_S: Final = 3600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """What only a device has that is enrolled."""

    device: str
    tenant: str
    server: str
    uplink: Uplink
    connect: Callable[[], None]
    renew: Callable[[], None]
    updates: Updates


@dataclass(frozen=True, slots=True)
class Parts:
    """What every supervisor has."""

    settings: Settings
    clock: Clock
    disk: Disk
    spool: Spool | None
    store: Store
    running: Callable[[], str | None]
    view: LoopView
    metrics: Metrics
    results: ResultSink | None
    reports: Reports | None
    changed: threading.Event


class Supervisor:
    """One supervisor process. `run` returns after `stop`, or when all sources ended and that was asked for."""

    def __init__(self, parts: Parts, *, ends_with_sources: bool) -> None:
        """Take the parts and bind the HTTP port.

        Raises:
            BadInputError: The port is in use.
        """
        self._parts = parts
        self.loop = LoopClient(parts.settings.state_dir / "loop.sock", self.on_push)
        self._member: Member | None = None
        self._ends_with_sources = ends_with_sources
        self._windows = Windows(parts.clock, parts.settings.window_s, parts.store, parts.spool)
        self._stopped = threading.Event()
        self._started_s = parts.clock.monotonic_s()
        self._turned_s = self._started_s
        self._renewal_checked_s = float("-inf")
        self._active: ModelRef | None = None
        self._frames_at_end: int | None = None
        self.final = AgentStatus()
        pages = Pages(parts.metrics.page, self._healthy, self._ready, lambda: as_document(self.status()))
        self._web = WebServer(parts.settings.http_host, parts.settings.http_port, pages)

    def join(self, member: Member) -> None:
        """Make this the supervisor of an enrolled device; to be called before `run`."""
        self._member = member

    @property
    def connected(self) -> bool:
        """Tell whether there is a connection to the broker."""
        return self._member is not None and self._member.uplink.connected

    def run(self) -> None:
        """Do everything until `stop`.

        Raises:
            StorageError: The state directory cannot be used.
            LinkError: This device's certificate cannot be read.
        """
        run_file = self._parts.settings.state_dir / RUN_FILE
        try:
            self._start(run_file)
            while not self._stopped.is_set():
                self._turn()
                if self._ends_with_sources and self._finished():
                    break
                self._parts.changed.wait(TURN_S if not self._ends_with_sources else TURN_S / 5)
                self._parts.changed.clear()
        finally:
            notify("STOPPING=1")
            self._end(run_file)

    def stop(self) -> None:
        """Let `run` return soon; may be called from a signal handler."""
        self._stopped.set()
        self._parts.changed.set()

    def on_push(self, push: Push) -> None:
        """Take what the loop says; called on the loop client's thread, for every frame."""
        if isinstance(push, FramePush):
            self._frame(push)
        elif isinstance(push, SwappedPush):
            self._parts.view.swapped(push)
            self._parts.metrics.swapped(push)
            self._parts.changed.set()
        elif self._parts.view.source(push):
            self._source_changed(push)

    def status(self) -> AgentStatus:
        """Return what this device is doing, with the loop's figures as they are now."""
        self._ask_loop(timeout_s=2.0)
        parts, member, view = self._parts, self._member, self._parts.view
        loop = view.status
        return AgentStatus(
            running=True,
            id=member.device if member else None,
            tenant=member.tenant if member else None,
            server=member.server if member else None,
            connected=self.connected,
            model=self._active,
            update=update_status(member.updates.engine.record) if member else AgentStatus().update,
            sources=view.sources(),
            last_swap=view.last_swap(),
            spool=len(parts.spool) if parts.spool is not None else 0,
            refusals=parts.reports.refusals if parts.reports is not None else (),
            loop=_loop_status(loop, linked=self.loop.linked),
            broken_messages=member.uplink.broken if member else {},
            uptime_s=round(self._uptime_s(), 3),
            http=Address(pid=os.getpid(), host=parts.settings.http_host, port=self._web.port),
        )

    def state(self, *, online: bool = True) -> State:
        """Return the state message."""
        parts = self._parts
        return State(
            online=online,
            sent_at=rfc3339(parts.clock.wall_s()),
            uptime_s=round(self._uptime_s(), 3),
            agent=__version__,
            model=self._active,
            update=self._member.updates.engine.record.state if self._member else UpdateState.IDLE,
            sources=parts.view.sources(),
            last_swap=parts.view.last_swap(),
            spool=len(parts.spool) if parts.spool is not None else 0,
        )

    def _start(self, run_file: Path) -> None:
        self._loop_start()
        self._web.start()
        address = Address(pid=os.getpid(), host=self._parts.settings.http_host, port=self._web.port)
        self._parts.disk.mkdir(run_file.parent)
        replace_file(self._parts.disk, run_file, address.model_dump_json().encode())
        if self._member is not None:
            self._member.updates.start()
            self._member.connect()
        notify("READY=1")
        logger.info("ready; status on http://%s:%d", address.host, address.port)

    def _loop_start(self) -> None:
        threading.Thread(target=_link, args=(self.loop, self._parts.settings.state_dir), daemon=True).start()

    def _turn(self) -> None:
        parts = self._parts
        self._turned_s = parts.clock.monotonic_s()
        notify("WATCHDOG=1")
        changed = self._ask_loop(timeout_s=2.0)
        self._windows.tick()
        if self._member is not None:
            parts.metrics.update(self._member.updates.engine.record.state)
            if changed or parts.changed.is_set():
                self._member.uplink.publish_state()
            self._member.uplink.tick()
            self._renew()

    def _ask_loop(self, timeout_s: float) -> bool:
        """Refresh what is known of the loop; return whether it runs another model than before."""
        try:
            status: Status | None = self.loop.status(timeout_s)
        except LinkError:
            status = None
        self._parts.view.answered(status)
        digest = status.active if status is not None else self._parts.running()
        if digest == (self._active.digest if self._active else None):
            return False
        self._active = model_ref(self._parts.store, digest)
        self._parts.metrics.model(self._active)
        return True

    def _renew(self) -> None:
        """Look once an hour whether the certificate is due, on a thread of its own."""
        now_s = self._parts.clock.monotonic_s()
        if self._member is not None and now_s - self._renewal_checked_s >= RENEWAL_CHECK_S:
            self._renewal_checked_s = now_s
            threading.Thread(target=self._member.renew, name="renew", daemon=True).start()

    def _frame(self, push: FramePush) -> None:
        parts = self._parts
        parts.view.frame(push)
        parts.metrics.frame(push)
        if self._member is not None:
            self._member.updates.engine.watch.observe(
                Sight(push.digest, push.latency_ms, len(push.objects), push.error)
            )
        if parts.results is not None:
            self._keep_result(parts.results, push)
        self._windows.add(push)

    def _keep_result(self, results: ResultSink, push: FramePush) -> None:
        was_unread = results.unread
        results.write(push)
        if results.unread and self._ends_with_sources:
            self.stop()
        elif results.unread and not was_unread:
            logger.warning("%s: nobody reads the results any more", self._parts.settings.results)

    def _source_changed(self, push: SourcePush) -> None:
        if self._parts.reports is not None and push.state in ("down", "running"):
            severity = "error" if push.state == "down" else "info"
            text = f"source {push.name} is {push.state}{f': {push.reason}' if push.reason else ''}"
            try:
                self._parts.reports.event(f"source_{push.state}", severity, text, source=push.name)
            except StorageError as error:
                logger.warning("%s: this event is lost: %s", push.name, error)
        self._parts.changed.set()

    def _finished(self) -> bool:
        """Tell whether every source has ended, and the loop has dealt with its last frame."""
        status = self._parts.view.status
        if status is None or not self._parts.view.all_ended:
            return False
        before, self._frames_at_end = self._frames_at_end, status.frames
        return before == status.frames

    def _end(self, run_file: Path) -> None:
        parts = self._parts
        self._windows.close()
        self.final = self.status()
        if self._member is not None:
            self._member.updates.stop()
            self._member.uplink.tick()
            self._member.uplink.stop(self.state(online=False))
        self.loop.close()
        self._web.stop()
        parts.disk.unlink(run_file)
        if parts.results is not None:
            parts.results.close()
        if parts.spool is not None:
            parts.spool.close()

    def _healthy(self) -> tuple[bool, str]:
        age_s = self._parts.clock.monotonic_s() - self._turned_s
        return age_s < STUCK_S, f"turned {age_s:.1f} s ago"

    def _ready(self) -> tuple[bool, str]:
        age_s = self._parts.view.last_frame_age_s
        text = f"last frame inferred {age_s:.1f} s ago" if age_s < float("inf") else "no frame inferred yet"
        return age_s <= self._parts.settings.ready_s, text

    def _uptime_s(self) -> float:
        return self._parts.clock.monotonic_s() - self._started_s


def _loop_status(status: Status | None, *, linked: bool) -> LoopStatus:
    if status is None:
        return LoopStatus(linked=linked)
    return LoopStatus(
        linked=linked,
        slot=status.slot,
        error=status.error,
        reason=status.reason,
        pushes_lost=status.pushes_lost,
    )


def _link(loop: LoopClient, state_dir: Path) -> None:
    """Link as soon as the loop's socket is there, so that the first frames of a short video are not missed."""
    waited = threading.Event()
    while not (state_dir / "loop.sock").exists() and not waited.wait(0.05):
        continue
    try:
        loop.connect(0.0)
    except LinkError:
        return
