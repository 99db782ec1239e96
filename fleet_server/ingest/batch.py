"""Store one batch of messages in one transaction, and say what to answer once it is committed."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.database.engine import insert_once
from fleet_server.database.models import Device, StoredReport, Watermark
from fleet_server.ingest.facts import apply_report, apply_state, document
from fleet_server.ingest.watermark import fold
from ommatid.contract.messages import Hello, Report, State
from ommatid.contract.topics import DeviceTopics


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message and who sent it: the broker guarantees the device, we check the rest."""

    topics: DeviceTopics
    message: Report | State


@dataclass(frozen=True, slots=True)
class AckDue:
    """All reports of this boot up to `seq` are stored."""

    topics: DeviceTopics
    boot: str
    seq: int


@dataclass(slots=True)
class Outcome:
    """What a batch did."""

    stored: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    repeated: int = 0
    refused: list[tuple[DeviceTopics, str]] = field(default_factory=list)
    acks: list[AckDue] = field(default_factory=list)
    greeted: list[Device] = field(default_factory=list)
    changed: bool = False


def store(session: Session, arrivals: Sequence[Arrival], now: datetime) -> Outcome:
    """Store what is new; the caller commits, and only then sends `acks` and greets devices."""
    outcome = Outcome()
    devices = _devices(session, arrivals, outcome)
    reports: dict[tuple[str, str], dict[int, Report]] = defaultdict(dict)
    for arrival in arrivals:
        device = devices.get(arrival.topics)
        if device is None:
            continue
        if isinstance(arrival.message, State):
            apply_state(device, arrival.message, document(arrival.message), now)
            outcome.changed = True
        else:
            reports[device.id, arrival.message.boot].setdefault(arrival.message.seq, arrival.message)
    by_id = {device.id: device for device in devices.values()}
    for (device_id, boot), arrived in reports.items():
        _store_boot(session, by_id[device_id], boot, arrived, now, outcome)
    return outcome


def _devices(session: Session, arrivals: Sequence[Arrival], outcome: Outcome) -> dict[DeviceTopics, Device]:
    """Return the rows of the senders that are who their topic says."""
    ids = {arrival.topics.device for arrival in arrivals}
    rows = {row.id: row for row in session.scalars(select(Device).where(Device.id.in_(ids)))}
    known: dict[DeviceTopics, Device] = {}
    for topics in {arrival.topics for arrival in arrivals}:
        row = rows.get(topics.device)
        if row is None:
            outcome.refused.append((topics, "not enrolled"))
        elif row.revoked_at is not None:
            outcome.refused.append((topics, "revoked"))
        elif row.tenant != topics.tenant:
            outcome.refused.append((topics, "of another tenant"))
        else:
            known[topics] = row
    return known


def _store_boot(
    session: Session, device: Device, boot: str, arrived: dict[int, Report], now: datetime, outcome: Outcome
) -> None:
    watermark = session.get(Watermark, (device.id, boot))
    if watermark is None:
        watermark = Watermark(device_id=device.id, boot=boot, seq=0)
        session.add(watermark)
    beyond = select(StoredReport.seq).where(
        StoredReport.device_id == device.id, StoredReport.boot == boot, StoredReport.seq > watermark.seq
    )
    folded = fold(watermark.seq, session.scalars(beyond), arrived)
    rows = [
        {
            "tenant": device.tenant,
            "device_id": device.id,
            "boot": boot,
            "seq": seq,
            "kind": report.model_dump(include={"kind"})["kind"],
            "received_at": now,
            "body": document(report),
        }
        for seq, report in ((seq, arrived[seq]) for seq in folded.fresh)
    ]
    insert_once(session, StoredReport, rows)
    watermark.seq = folded.mark
    for row in rows:
        outcome.stored[str(row["kind"])] += 1
    outcome.repeated += len(arrived) - len(rows)
    topics = DeviceTopics(device.tenant, device.id)
    if folded.mark:
        outcome.acks.append(AckDue(topics, boot, folded.mark))
    for seq in folded.fresh:
        apply_report(device, arrived[seq], now)
        outcome.changed = True
    if any(isinstance(report, Hello) for report in arrived.values()):
        outcome.greeted.append(device)
