"""A fleet server's database with devices that do what a test says; only the broker is left out."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner

from fleet_server.changes import Changes
from fleet_server.database.engine import Database
from fleet_server.database.models import Device, Release, RolloutDevice, StoredReport
from fleet_server.director import Director
from fleet_server.rollouts.desk import RolloutDesk
from fleet_server.rollouts.runner import RolloutRunner
from fleet_server.rollouts.views import RolloutRequest, RolloutView
from ommatid.contract.messages import (
    Histogram,
    ModelRef,
    Refusal,
    Report,
    SourceStatus,
    State,
    UpdateReport,
    UpdateState,
    Window,
)

TENANT = "default"
BOOT = "0" * 32


@dataclass
class MovingTime:
    """The server's clock, moved by hand."""

    at: datetime = datetime(2027, 5, 4, 10, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def pass_s(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class RecordingDownlink:
    """Remembers what would have gone to the broker."""

    sent: list[tuple[str, str]] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        self.sent.append((topic, payload.decode()))
        return True


class SmallFleet:
    """One tenant."""

    def __init__(self, folder: Path, *, real_time: bool = False) -> None:
        self.database = Database.at(folder / "fleet.db")
        self.database.migrate()
        self.time = MovingTime()
        self.now = (lambda: datetime.now(UTC)) if real_time else self.time
        self.downlink = RecordingDownlink()
        self.director = Director(self.database, CryptoSigner.generate_ed25519(), self.downlink, self.now)
        self.changes = Changes()
        self.desk = RolloutDesk(self.database, self.director, self.changes, self.now, TENANT, "anna")
        self.runner = self.new_runner()
        self._seq = 0

    def new_runner(self) -> RolloutRunner:
        """Return a runner that knows nothing but the database, as after a restart."""
        return RolloutRunner(self.database, self.director, self.changes, self.now)

    def enrol(
        self, *names: str, arch: str | None = "aarch64", agent: str | None = "0.1.0", online: bool = True
    ) -> None:
        with self.database.write() as session:
            for name in names:
                session.add(
                    Device(
                        id=name,
                        tenant=TENANT,
                        enrolled_at=self.now(),
                        http_token_hash=name,
                        certificate_serial=name,
                        tags=["demo"],
                        arch=arch,
                        agent=agent,
                        online=online,
                        last_seen=self.now() if online else None,
                    )
                )
        self.changes.notify()

    def push(self, version: str, target: str = "int8-arm", hardware: tuple[str, ...] = ("aarch64",)) -> ModelRef:
        model = reference(version, target)
        with self.database.write() as session:
            session.add(
                Release(
                    tenant=TENANT,
                    model=model.name,
                    version=version,
                    target=target,
                    path=f"{model.name}/{model.name}-{version}-{target}.bundle",
                    digest=model.digest,
                    length=6_300_000,
                    hardware=list(hardware),
                    minimum_agent="0.1.0",
                    release_counter=model.release_counter,
                    manifest={},
                    evidence={"value": 0.986},
                    pushed_at=self.now(),
                    pushed_by="anna",
                )
            )
        return model

    def start(self, version: str, **options: object) -> RolloutView:
        request = {"stages": "1,100%", "soak_s": 5, "max_failures": "1", **options}
        return self.desk.start(RolloutRequest(model="detector", version=version, **request))

    def show(self, name: str, **changes: object) -> None:
        """Let a device say what it does now."""
        source = {"name": "gate", "state": "running", "fps": 14.98, "frames": 1200, "dropped": 3}
        source |= {"p50_ms": 9.1, "p99_ms": 14.2, "quality": "ok"}
        fields = {"online": True, "agent": "0.1.0", **changes}
        state = State(**{"sources": (SourceStatus(**source),), **fields})
        with self.database.write() as session:
            device = session.get_one(Device, name)
            device.online, device.last_seen = state.online, self.now()
            device.state = state.model_dump(mode="json")
            if state.model:
                device.running_model, device.running_version = state.model.name, state.model.version
                device.running_target, device.running_digest = state.model.target, state.model.digest
        self.changes.notify()

    def update(self, name: str, version: str, *states: UpdateState, error: str = "", reason: str = "") -> None:
        """Let a device report the states of its update, one after the other."""
        with self.database.read() as session:
            rev = session.get_one(Device, name).desired_rev
        for state in states:
            bad = {"error": error, "reason": reason} if error else {}
            fields = {"desired_rev": rev, "model": reference(version), "state": state, **bad}
            self.store(name, UpdateReport(**self._report(), **fields))

    def refuse(self, name: str, error: str, reason: str) -> None:
        self.store(name, Refusal(**self._report(), error=error, reason=reason))

    def window(self, name: str, **fields: object) -> None:
        self.store(name, Window(**self._report(), **fields))

    def commit(self, name: str, version: str) -> None:
        """Let a device go through a whole update."""
        self.update(name, version, UpdateState.DOWNLOADING, UpdateState.PROBATION, UpdateState.COMMITTED)
        self.show(name, model=reference(version), update="committed")

    def store(self, name: str, report: Report) -> None:
        body = report.model_dump(mode="json")
        row = {"tenant": TENANT, "device_id": name, "boot": report.boot, "seq": report.seq, "kind": body["kind"]}
        with self.database.write() as session:
            session.add(StoredReport(**row, received_at=self.now(), body=body))
        self.changes.notify()

    def parts(self, rollout: str) -> dict[str, str]:
        """Return device -> state of a rollout."""
        return {device.id: device.state for device in self.desk.status(rollout).devices}

    def desired(self) -> dict[str, str | None]:
        """Return device -> version that it shall run."""
        with self.database.read() as session:
            devices = session.query(Device).all()
            releases = {release.id: release.version for release in session.query(Release)}
            return {device.id: releases.get(device.desired_release_id or 0) for device in devices}

    def offers(self, name: str) -> int:
        with self.database.read() as session:
            return session.query(RolloutDevice).where(RolloutDevice.device_id == name).count()

    def _report(self) -> dict[str, Any]:
        self._seq += 1
        return {"boot": BOOT, "seq": self._seq, "uptime_s": 1.0, "sent_at": self.now().isoformat()}


def reference(version: str, target: str = "int8-arm") -> ModelRef:
    """Return a release of the one model of this fleet."""
    digest = f"{int(version):02x}" * 32
    return ModelRef(name="detector", version=version, target=target, digest=digest, release_counter=int(version))


def histogram(bins: str, counts: dict[int, int], mean: float) -> Histogram:
    """Return a histogram of frames that all had about one value."""
    n = sum(counts.values())
    return Histogram(
        bins=bins,
        counts=counts,
        n=n,
        sum_q16=round(mean * n * 65536),
        sum_squares_q16=round(mean * mean * n * 65536),
        min=mean,
        max=mean,
    )
