"""What time it is, for a device whose clock may be wrong.

Expiry is judged against the later of the device's clock and a floor that never falls: a clock in 1970 then neither
stops updates nor brings expired metadata back to life. The floor starts at this release's date.
"""

from datetime import UTC, datetime
from typing import Final

BUILD_DATE: Final = datetime(2026, 10, 1, tzinfo=UTC)
"""No moment at which this code runs is earlier; moved forward with each release."""

_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


def reference_time(now: datetime, floor: datetime) -> datetime:
    """Return the time that expiry is judged against."""
    return max(now, floor)


def raised_floor(floor: datetime, issued: datetime, cap: datetime) -> datetime:
    """Return the floor after an accepted director document.

    Args:
        floor: The floor so far.
        issued: When the director says it signed; its key is online and may be stolen.
        cap: When the release side's targets expire; that key is offline, so a stolen director key can push the
            floor no further, and thereby expire nothing that was not to expire then anyway.
    """
    return max(floor, min(issued, cap))


def format_time(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC, to the second."""
    return moment.astimezone(UTC).strftime(_FORMAT)


def parse_time(text: str) -> datetime:
    """Read what `format_time` writes, and nothing else.

    Raises:
        ValueError: It is not such a time.
    """
    return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)
