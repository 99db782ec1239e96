"""Where each message lies on the broker: om/v1/{tenant}/{shard}/{device}/{channel}.

The shard is the first byte of sha256(device id), so that consumers split the fleet by plain subscriptions.
"""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from ommatid.errors import MessageError

PREFIX = "om/v1"
IDENTIFIER = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")
"""Device ids and tenants: a DNS label, so that they fit a topic, a certificate and a path alike."""


class Channel(StrEnum):
    """The last level of a topic; who may write it is in docs/mqtt-api.md."""

    STATE = "state"
    DESIRED = "desired"
    REPORTED = "reported"
    WINDOW = "window"
    EVENT = "event"
    CMD = "cmd"
    REPLY = "reply"
    ACK = "ack"


_CHANNELS = frozenset(Channel)


@dataclass(frozen=True, slots=True)
class DeviceTopics:
    """The topics of one device."""

    tenant: str
    device: str

    def __post_init__(self) -> None:
        """Refuse names that would escape their topic level."""
        for name in (self.tenant, self.device):
            if not IDENTIFIER.fullmatch(name):
                raise MessageError(f"{name!r} is not an identifier (a-z, 0-9 and '-', at most 63)")

    @property
    def shard(self) -> str:
        """Return the first byte of sha256(device) as two hexadecimal digits."""
        return hashlib.sha256(self.device.encode()).hexdigest()[:2]

    def of(self, channel: Channel) -> str:
        """Return the full topic of one channel."""
        return f"{PREFIX}/{self.tenant}/{self.shard}/{self.device}/{channel}"


def every_device(channel: Channel) -> str:
    """Return the subscription that matches one channel of all devices."""
    return f"{PREFIX}/+/+/+/{channel}"


def parse(topic: str) -> tuple[DeviceTopics, Channel]:
    """Split a received topic.

    Raises:
        MessageError: The topic is not one of ours, or its shard is not that of its device.
    """
    match topic.split("/"):
        case ["om", "v1", tenant, shard, device, channel] if channel in _CHANNELS:
            topics = DeviceTopics(tenant, device)
            if topics.shard != shard:
                raise MessageError(f"topic {topic!r}: device {device} belongs to shard {topics.shard}")
            return topics, Channel(channel)
        case _:
            raise MessageError(f"topic {topic!r} is not om/v1/TENANT/SHARD/DEVICE/CHANNEL")
