"""Time as a parameter: the wall clock may be wrong on a device, the monotonic one never goes back."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What time it is, and how much has passed."""

    def wall_s(self) -> float:
        """Return seconds since 1970, as far as this device knows."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The clocks of this machine."""

    def wall_s(self) -> float:  # noqa: D102
        return time.time()

    def monotonic_s(self) -> float:  # noqa: D102
        return time.monotonic()


def rfc3339(wall_s: float) -> str:
    """Return a moment as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
