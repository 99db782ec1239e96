"""Put a device out: its certificates are void, and the session it has open ends now.

Mosquitto reads a new revocation list but lets open sessions live, so we take the device's client id over: the broker
then ends the older session.
"""

import logging
import tempfile
from pathlib import Path
from typing import Final

from fleet_server.services import Services
from ommatid.mqtt import Broker, Session

logger = logging.getLogger(__name__)

TAKE_OVER_S: Final = 10.0


def revoke_device(parts: Services, device_id: str, who: str) -> None:
    """Revoke a device, tell the broker, and cut the session.

    Raises:
        NotFoundError: There is no such device.
    """
    parts.enrolment.revoke(device_id, who)
    parts.broker.reload(parts.enrolment.revocation_list())
    parts.changes.notify()
    if parts.session.connected and not _take_over(parts, device_id):
        logger.error("%s: revoked, but its open session could not be cut; restart the broker", device_id)


def _take_over(parts: Services, device_id: str) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts.authority.issue_own(folder, "cut", device_id, (), parts.now())
        address = parts.session.broker
        broker = Broker(address.host, address.port, address.ca, folder / "cut.crt", folder / "cut.key")
        session = Session(broker, device_id)
        session.start()
        try:
            return session.wait_connected(TAKE_OVER_S)
        finally:
            session.stop()
