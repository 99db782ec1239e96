"""Where the concrete parts of a supervisor are chosen and joined."""

import importlib.metadata
import logging
import os
import platform
import threading
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import httpx

from agent.clock import Clock, SystemClock
from agent.identity import Identity, now_utc
from agent.loop.config import LoopConfig, SourceConfig
from agent.renew import renew_if_due
from agent.settings import Settings
from agent.spool import Spool
from agent.supervisor.metrics import Gauges, Metrics
from agent.supervisor.results import ResultSink
from agent.supervisor.supervisor import Member, Parts, Supervisor
from agent.supervisor.updates import Reports, Updates
from agent.supervisor.uplink import Uplink
from agent.supervisor.view import LoopView
from agent.trial.runner import TrialLimits, run_trial
from agent.trial.verdict import TrialVerdict
from agent.update.download import Download
from agent.update.engine import Engine
from agent.update.release import Release
from agent.update.rules import Policy
from agent.update.slots import SlotLinks
from agent.update.store import Store
from ommatid import __version__
from ommatid.contract.messages import State, encode
from ommatid.contract.topics import Channel
from ommatid.contract.trust.fetch import HttpxFetcher
from ommatid.contract.trust.policy import Assignment
from ommatid.contract.trust.store import TrustStore
from ommatid.disk import Disk, RealDisk
from ommatid.errors import BadInputError, OmmatidError
from ommatid.mqtt import Session, Will

RUNTIMES: Final = ("onnxruntime", "ai-edge-litert", "tflite-runtime")
MB: Final = 1_000_000

logger = logging.getLogger(__name__)


def loop_config(settings: Settings) -> LoopConfig:
    """Return what the loop is told.

    Raises:
        BadInputError: No source is set.
    """
    if settings.source is None:
        raise BadInputError(
            "no source is set", hint="name a video or a folder of images with --source, or in agent.toml"
        )
    return LoopConfig(
        sources=(SourceConfig(settings.source_name, settings.source),),
        socket=settings.state_dir / "loop.sock",
        models=settings.state_dir / "models",
        threads=settings.threads,
        quality=settings.quality,
        as_fast_as_possible=settings.as_fast_as_possible,
    )


def build_supervisor(settings: Settings, *, serverless: bool, ends_with_sources: bool) -> Supervisor:
    """Join the parts of a supervisor.

    Args:
        settings: All settings.
        serverless: Run the model in the slots, and talk to no server.
        ends_with_sources: End when every source has ended.

    Raises:
        BadInputError: This device is not enrolled, or the port of the HTTP server is in use.
        StorageError: The state directory or the results cannot be written.
    """
    clock, disk = SystemClock(), RealDisk()
    disk.mkdir(settings.state_dir)
    identity = None if serverless else enrolled(settings.state_dir)
    view, changed = LoopView(clock), threading.Event()
    spool = Spool(settings.state_dir / "spool.db", clock, most_bytes=settings.spool_mb * MB) if identity else None
    metrics = Metrics()
    reports = Reports(spool, metrics, clock, changed) if spool is not None else None
    parts = Parts(
        settings=settings,
        clock=clock,
        disk=disk,
        spool=spool,
        store=Store(settings.state_dir, disk),
        running=lambda: SlotLinks(settings.state_dir, disk).running,
        view=view,
        metrics=metrics,
        results=ResultSink(settings.results) if settings.results is not None else None,
        reports=reports,
        changed=changed,
    )
    supervisor = Supervisor(parts, ends_with_sources=ends_with_sources)
    if identity is not None and reports is not None:
        supervisor.join(_member(identity, parts, reports, supervisor))
    metrics.ask(
        Gauges(
            spool_reports=lambda: len(spool) if spool is not None else 0,
            mqtt_connected=lambda: float(supervisor.connected),
            loop_linked=lambda: float(supervisor.loop.linked),
            last_frame_age_s=lambda: view.last_frame_age_s,
        )
    )
    return supervisor


def enrolled(state_dir: Path) -> Identity:
    """Return this device's identity.

    Raises:
        BadInputError: It has none, or a damaged one.
    """
    identity = Identity.load(state_dir)
    if identity is None:
        raise BadInputError(
            f"{state_dir}: this device is not enrolled",
            hint="make a token with `fleet token`, then `edge-agent enroll --token-file FILE`; "
            "or run a model without a server: `edge-agent run --bundle FILE --source VIDEO`",
        )
    return identity


def hello_facts(identity: Identity, engine: Engine) -> dict[str, Any]:
    """Return the facts that rollouts select on."""
    running = engine.slots.running
    models = [engine.store.release(running).ref.model_dump()] if running is not None else []
    return {
        "agent": __version__,
        "arch": platform.machine(),
        "runtimes": runtime_versions(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "tags": identity.enrolment.tags,
        "models": models,
        "desired_rev": engine.record.desired_rev,
    }


def runtime_versions() -> dict[str, str]:
    """Return the runtimes that are installed, with their versions, without loading any."""
    found = {}
    for name in RUNTIMES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class DeviceTrust:
    """The trust rules, told who this device is."""

    def __init__(self, identity: Identity, state_dir: Path, disk: Disk, client: httpx.Client, clock: Clock) -> None:
        files, url = identity.files, identity.enrolment.url
        self._identity = identity
        self._clock = clock
        self._store = TrustStore(
            state_dir / "trust",
            disk,
            release_root=files.release_root.read_bytes(),
            director_root=files.director_root.read_bytes(),
            release_url=urljoin(url, "/v1/tuf/release/"),
            director_url=urljoin(url, "/v1/tuf/director/"),
            fetcher=HttpxFetcher(client),
        )

    def check(self, document: bytes, /) -> Assignment | None:
        """Verify a director document against the release side."""
        enrolment = self._identity.enrolment
        return self._store.check(
            document,
            device=enrolment.device,
            tenant=enrolment.tenant,
            hardware=platform.machine(),
            now=now_utc(self._clock.wall_s()),
        )

    def raise_counter_floor(self, model: str, counter: int, /) -> None:
        """Refuse releases of `model` below `counter` from now on."""
        self._store.raise_counter_floor(model, counter)

    def time_floor(self) -> datetime:
        """Return the moment that is certainly past."""
        return self._store.floors().time


def hold_trial(settings: Settings, candidate: Path, current: Path | None) -> TrialVerdict:
    """Judge a model in a process of its own, within the limits of the settings.

    Raises:
        StorageError: No process can be started.
    """
    limits = TrialLimits(memory_bytes=settings.trial_memory_mb * MB, threads=settings.threads)
    return run_trial(candidate, current, limits, settings.trial_timeout_s)


def _member(identity: Identity, parts: Parts, reports: Reports, supervisor: Supervisor) -> Member:
    settings, clock, disk = parts.settings, parts.clock, parts.disk
    enrolment = identity.enrolment
    client = identity.http_client()
    engine = Engine(
        settings.state_dir,
        disk,
        trust=DeviceTrust(identity, settings.state_dir, disk, client, clock),
        fetch=Download(
            client,
            lambda release: _bundle_url(enrolment.url, release),
            identity.bearer,
            disk,
            clock,
        ),
        trial=lambda candidate, current: hold_trial(settings, candidate, current),
        loop=supervisor.loop,
        reporter=reports,
        clock=clock,
        policy=Policy(probation_s=settings.probation_s, probation_frames=settings.probation_frames),
    )
    updates = Updates(engine, parts.changed)
    uplink = Uplink(
        identity.topics,
        _spool(parts),
        clock,
        state=supervisor.state,
        hello=lambda: hello_facts(identity, engine),
        desired=updates.offer,
        status_interval_s=settings.status_interval_s,
    )
    session = Session(
        identity.broker,
        enrolment.device,
        will=Will(identity.topics.of(Channel.STATE), encode(State(online=False))),
        on_connected=uplink.connected_now,
        keepalive_s=settings.keepalive_s,
    )
    return Member(
        device=enrolment.device,
        tenant=enrolment.tenant,
        server=enrolment.url,
        uplink=uplink,
        connect=lambda: uplink.attach(session),
        renew=lambda: _renew(identity, disk, clock, session),
        updates=updates,
    )


def _spool(parts: Parts) -> Spool:
    if parts.spool is None:
        raise ValueError("an enrolled device has a spool")
    return parts.spool


def _bundle_url(server: str, release: Release) -> str:
    return urljoin(server, f"/v1/bundles/{release.sha256}")


def _renew(identity: Identity, disk: Disk, clock: Clock, session: Session) -> None:
    current = Identity.load(identity.files.path.parent) or identity
    try:
        if renew_if_due(current, disk, clock) is not None:
            session.reconnect()
    except OmmatidError as error:
        logger.warning("%s: certificate not renewed: %s", identity.enrolment.device, error)
