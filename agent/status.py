"""What a device says of itself, at /status and on disk: the JSON of `edge-agent status`."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import BaseModel, ConfigDict, NonNegativeInt

from agent.identity import Identity
from agent.update.record import Record, RecordFile
from agent.update.slots import SlotLinks
from agent.update.store import Store
from ommatid import __version__
from ommatid.contract.messages import ModelRef, SourceStatus, SwapFigures, UpdateState
from ommatid.disk import Disk
from ommatid.errors import BundleError
from ommatid.text import printable

RUN_FILE: Final = Path("run") / "supervisor.json"
KEPT_REFUSALS: Final = 5


class Frozen(BaseModel):
    """A part of the status; a newer agent may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Address(Frozen):
    """Where the running supervisor answers: `run/supervisor.json`."""

    pid: int
    host: str
    port: int


class UpdateStatus(Frozen):
    """The update under way, or how the last one ended; figures are measurements with the unit in the name."""

    state: UpdateState = UpdateState.IDLE
    model: ModelRef | None = None
    desired_rev: NonNegativeInt = 0
    error: str | None = None
    reason: str | None = None
    figures: dict[str, float] = {}


class RefusedDocument(Frozen):
    """A desired document that was refused."""

    error: str
    reason: str
    at: str


class LoopStatus(Frozen):
    """The camera loop."""

    linked: bool = False
    slot: str | None = None
    error: str | None = None
    reason: str | None = None
    pushes_lost: int = 0


class AgentStatus(Frozen):
    """Everything. `running` tells whether the supervisor answered itself; else this is what lies on disk."""

    running: bool = False
    id: str | None = None
    tenant: str | None = None
    server: str | None = None
    agent: str = __version__
    connected: bool = False
    model: ModelRef | None = None
    update: UpdateStatus = UpdateStatus()
    sources: tuple[SourceStatus, ...] = ()
    last_swap: SwapFigures | None = None
    spool: NonNegativeInt = 0
    refusals: tuple[RefusedDocument, ...] = ()
    loop: LoopStatus = LoopStatus()
    broken_messages: dict[str, int] = {}
    uptime_s: float = 0.0
    http: Address | None = None


def update_status(record: Record) -> UpdateStatus:
    """Return what the engine's record says."""
    return UpdateStatus(
        state=record.state,
        model=record.release.ref if record.release is not None else None,
        desired_rev=record.desired_rev,
        error=record.error,
        reason=record.reason,
        figures=record.figures,
    )


def read_status(state_dir: Path, disk: Disk) -> AgentStatus:
    """Ask the running supervisor; if it does not answer, read what lies on disk.

    Raises:
        BadInputError: The identity is damaged.
        StorageError: The state directory may not be read.
    """
    address = running_address(state_dir)
    if address is not None:
        try:
            answer = httpx.get(f"http://{address.host}:{address.port}/status", timeout=5.0, trust_env=False)
            return AgentStatus.model_validate_json(answer.raise_for_status().content)
        except (httpx.HTTPError, ValueError):
            pass
    return _status_on_disk(state_dir, disk)


def running_address(state_dir: Path) -> Address | None:
    """Return where the supervisor of a state directory answers, if it lives."""
    try:
        address = Address.model_validate_json((state_dir / RUN_FILE).read_bytes())
        os.kill(address.pid, 0)
    except PermissionError:
        return address
    except (OSError, ValueError):
        return None
    return address


def model_ref(store: Store, digest: str | None) -> ModelRef | None:
    """Return what an installed bundle is, if it is known."""
    if digest is None:
        return None
    try:
        return store.release(digest).ref
    except BundleError:
        return None


def table(status: AgentStatus) -> str:
    """Return the status for people."""
    model, update = status.model, status.update
    rows = [
        ("device", status.id or "not enrolled"),
        (
            "server",
            f"{status.server} ({'connected' if status.connected else 'not connected'})" if status.server else "-",
        ),
        ("agent", f"{status.agent}, {'running' if status.running else 'not running'}"),
        ("model", f"{model.name} {model.version} ({model.target})" if model else "none"),
        ("update", f"{update.state}{f': {update.error}: {update.reason}' if update.error else ''}"),
        ("reports", f"{status.spool} not yet confirmed"),
    ]
    rows += [(f"source {source.name}", _source_line(source)) for source in status.sources]
    if status.last_swap is not None:
        swap = status.last_swap
        rows.append(("last swap", f"{swap.dropped_by_swap} frames dropped by it, p99 {swap.p99_ms:.1f} ms"))
    rows += [("refused", f"{refusal.at} {refusal.error}: {refusal.reason}") for refusal in status.refusals]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {printable(text)}" for name, text in rows)


def _source_line(source: SourceStatus) -> str:
    latency = f", p50 {source.p50_ms:.1f} ms, p99 {source.p99_ms:.1f} ms" if source.p50_ms and source.p99_ms else ""
    quality = f"{source.quality}{' (' + ', '.join(source.quality_reasons) + ')' if source.quality_reasons else ''}"
    return f"{source.state}, {source.fps:.1f} fps, {source.frames} frames, {source.dropped} dropped{latency}, {quality}"


def _status_on_disk(state_dir: Path, disk: Disk) -> AgentStatus:
    identity = Identity.load(state_dir)
    record, _damage = RecordFile(state_dir / "update.json", disk).load()
    running = SlotLinks(state_dir, disk).running
    enrolment = identity.enrolment if identity is not None else None
    return AgentStatus(
        id=enrolment.device if enrolment else None,
        tenant=enrolment.tenant if enrolment else None,
        server=enrolment.url if enrolment else None,
        model=model_ref(Store(state_dir, disk), running),
        update=update_status(record),
        spool=_spooled(state_dir / "spool.db"),
    )


def _spooled(path: Path) -> int:
    if not path.is_file():
        return 0
    try:
        base = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)
    except sqlite3.Error:
        return 0
    try:
        return int(base.execute("SELECT count(*) FROM report").fetchone()[0])
    except sqlite3.Error:
        return 0
    finally:
        base.close()


def as_document(status: AgentStatus) -> dict[str, Any]:
    """Return the status as plain JSON values."""
    document: dict[str, Any] = json.loads(status.model_dump_json())
    return document
