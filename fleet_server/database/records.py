"""What happened: reports of devices, how far they are stored, who did what, and numbers that only grow."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.database.base import ROW_ID, Base, Document


class StoredReport(Base):
    """One report of a device, stored once; `id` grows, so a reader keeps a cursor."""

    __tablename__ = "report"
    __table_args__ = (
        UniqueConstraint("device_id", "boot", "seq"),
        Index(None, "device_id", "kind", "id"),
        Index(None, "tenant", "kind", "received_at"),
    )

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True, autoincrement=True)
    tenant: Mapped[str]
    device_id: Mapped[str] = mapped_column(ForeignKey("device.id"))
    boot: Mapped[str]
    seq: Mapped[int]
    kind: Mapped[str]
    """`hello`, `update`, `refusal`, `event` or `window`: see ommatid.contract.messages.REPORTS."""
    received_at: Mapped[datetime]
    body: Mapped[Document]


class Watermark(Base):
    """All reports of (device, boot) up to and with `seq` are stored."""

    __tablename__ = "watermark"

    device_id: Mapped[str] = mapped_column(ForeignKey("device.id"), primary_key=True)
    boot: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int]


class Audit(Base):
    """Who did what, and when."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "tenant", "at"),)

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True, autoincrement=True)
    tenant: Mapped[str]
    at: Mapped[datetime]
    who: Mapped[str]
    what: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[Document] = mapped_column(default=dict)


class Counter(Base):
    """A number that only grows, such as the revision of director documents."""

    __tablename__ = "counter"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int]
