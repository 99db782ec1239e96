"""What a device's messages change in its row."""

import json
from datetime import datetime
from typing import Any

from fleet_server.database.models import Device
from ommatid.contract.messages import Hello, Message, Report, State


def document(message: Message) -> dict[str, Any]:
    """Return a message as the database keeps it."""
    body: dict[str, Any] = json.loads(message.model_dump_json(exclude_none=True))
    return body


def apply_hello(device: Device, hello: Hello) -> None:
    """Take over the facts that rollouts select on."""
    device.agent = hello.agent
    device.arch = hello.arch
    device.runtimes = dict(hello.runtimes)
    device.memory_bytes = hello.memory_bytes
    device.reported_tags = list(hello.tags)


def apply_report(device: Device, report: Report, now: datetime) -> None:
    """Note that a device was heard, and what it said of itself."""
    device.last_seen = now
    if isinstance(report, Hello):
        apply_hello(device, report)


def apply_state(device: Device, state: State, body: dict[str, Any], now: datetime) -> None:
    """Take over what the device does now; a last will says only that it is gone."""
    device.online = state.online
    if not state.online:
        device.state = {**(device.state or {}), "online": False}
        return
    device.last_seen = now
    device.state = body
    model = state.model
    device.running_model = model.name if model else None
    device.running_version = model.version if model else None
    device.running_target = model.target if model else None
    device.running_digest = model.digest if model else None
