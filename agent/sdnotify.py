"""Tell systemd that we are ready, and that we still turn. Does nothing where there is no systemd.

Source: sd_notify(3): one datagram of KEY=VALUE lines to the socket in NOTIFY_SOCKET; `@` begins an abstract name.
"""

import os
import socket


def notify(message: str) -> None:
    """Send one message, such as `READY=1`, `WATCHDOG=1` or `STOPPING=1`; a deaf systemd is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        try:
            datagrams.sendto(message.encode(), address)
        except OSError:
            return
