"""Devices, what proves who they are, and what each shall run."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.database.base import ROW_ID, Base, Document


class Device(Base):
    """One enrolled device; its id is unique over all tenants."""

    __tablename__ = "device"
    __table_args__ = (Index(None, "tenant", "online"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    enrolled_at: Mapped[datetime]
    http_token_hash: Mapped[str] = mapped_column(unique=True)
    certificate_serial: Mapped[str]
    """The newest certificate's serial number, hexadecimal."""
    revoked_at: Mapped[datetime | None]
    enrolled_with: Mapped[str | None]
    """Hash of the enrolment token and of the device's key: the same request again gets the same answer."""
    tags: Mapped[list[str]]
    """Given at enrolment."""

    # What the device said of itself in its last hello.
    reported_tags: Mapped[list[str]] = mapped_column(default=list)
    agent: Mapped[str | None]
    arch: Mapped[str | None]
    runtimes: Mapped[Document] = mapped_column(default=dict)
    memory_bytes: Mapped[int] = mapped_column(default=0)
    """The newest director document that the device accepted."""

    # What it does now, from its last state message.
    online: Mapped[bool] = mapped_column(default=False)
    last_seen: Mapped[datetime | None]
    state: Mapped[Document | None]
    """The last `ommatid.contract.messages.State`, as JSON."""
    running_model: Mapped[str | None]
    running_version: Mapped[str | None]
    running_target: Mapped[str | None]
    running_digest: Mapped[str | None]

    # What it shall run.
    desired_rev: Mapped[int] = mapped_column(default=0)
    desired_release_id: Mapped[int | None] = mapped_column(ForeignKey("release.id"))
    desired_document: Mapped[str | None]
    """The signed director document, byte for byte what is published."""
    desired_expires_at: Mapped[datetime | None]

    @property
    def all_tags(self) -> frozenset[str]:
        """Return the tags given at enrolment and those the device reports."""
        return frozenset(self.tags) | frozenset(self.reported_tags)


class Certificate(Base):
    """One certificate ever issued to a device: a revocation must name them all."""

    __tablename__ = "certificate"

    serial: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("device.id"), index=True)
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class EnrolmentToken(Base):
    """A secret that lets a device join; only its hash is kept."""

    __tablename__ = "enrolment_token"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True, autoincrement=True)
    tenant: Mapped[str]
    secret_hash: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    uses_left: Mapped[int]
    tags: Mapped[list[str]]


class OperatorToken(Base):
    """A secret that lets a person or a program use the HTTP API; only its hash is kept."""

    __tablename__ = "operator_token"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True, autoincrement=True)
    tenant: Mapped[str]
    name: Mapped[str]
    role: Mapped[str]
    """`admin`, `operator` or `viewer`; see fleet_server.roles."""
    secret_hash: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
