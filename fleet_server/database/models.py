"""All tables in one place, for queries and for migrations."""

from fleet_server.database.base import Base, Document
from fleet_server.database.devices import Certificate, Device, EnrolmentToken, OperatorToken
from fleet_server.database.records import Audit, Counter, StoredReport, Watermark
from fleet_server.database.releases import Release, Rollout, RolloutDevice

__all__ = [
    "Audit",
    "Base",
    "Certificate",
    "Counter",
    "Device",
    "Document",
    "EnrolmentToken",
    "OperatorToken",
    "Release",
    "Rollout",
    "RolloutDevice",
    "StoredReport",
    "Watermark",
]
