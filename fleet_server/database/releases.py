"""Signed releases, and the rollouts that carry them to devices."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from fleet_server.database.base import ROW_ID, Base, Document


class Release(Base):
    """One bundle that the release keys name; `path` is its name in the signed targets."""

    __tablename__ = "release"
    __table_args__ = (
        UniqueConstraint("tenant", "path"),
        Index(None, "tenant", "model", "version"),
    )

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True, autoincrement=True)
    tenant: Mapped[str]
    model: Mapped[str]
    version: Mapped[str]
    target: Mapped[str]
    path: Mapped[str]
    digest: Mapped[str] = mapped_column(index=True)
    length: Mapped[int]
    hardware: Mapped[list[str]]
    minimum_agent: Mapped[str]
    release_counter: Mapped[int]
    manifest: Mapped[Document]
    evidence: Mapped[Document]
    pushed_at: Mapped[datetime]
    pushed_by: Mapped[str]


class Rollout(Base):
    """One release on its way to the fleet, stage by stage."""

    __tablename__ = "rollout"
    __table_args__ = (Index(None, "tenant", "state"),)

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True, autoincrement=True)
    tenant: Mapped[str]
    model: Mapped[str]
    version: Mapped[str]
    target: Mapped[str | None]
    """One build target, or None: each device gets the release that suits its hardware."""
    selector: Mapped[list[str]] = mapped_column(default=list)
    """Tags that a device must have, all of them."""
    stages: Mapped[list[str]]
    """Cumulative: `10%` of the fleet or `3` devices; the last is usually `100%`."""
    soak_s: Mapped[float]
    thresholds: Mapped[Document]
    salt: Mapped[str]
    state: Mapped[str]
    stage: Mapped[int] = mapped_column(default=0)
    """Index into `stages`."""
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    stage_started_at: Mapped[datetime | None]
    """When this stage began, or was resumed: silent devices are waited for from then on."""
    finished_at: Mapped[datetime | None]
    reason: Mapped[str | None]
    """Why it paused, aborted or failed, for the operator."""

    devices: Mapped[list["RolloutDevice"]] = relationship(back_populates="rollout")


class RolloutDevice(Base):
    """One device's part in one rollout."""

    __tablename__ = "rollout_device"

    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollout.id"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("device.id"), primary_key=True, index=True)
    release_id: Mapped[int | None] = mapped_column(ForeignKey("release.id"))
    previous_release_id: Mapped[int | None] = mapped_column(ForeignKey("release.id"))
    """What was desired before the offer: where an abort sends the device back to."""
    offered_rev: Mapped[int | None]
    """The director document that made the offer, named by update reports; None once the offer is taken back."""
    stage: Mapped[int]
    state: Mapped[str]
    error: Mapped[str | None]
    reason: Mapped[str | None]
    offered_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    rollout: Mapped[Rollout] = relationship(back_populates="devices")
