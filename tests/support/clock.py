"""A clock that moves when a test says so."""

from dataclasses import dataclass


@dataclass
class HandClock:
    """Both clocks of the agent, moved by hand; the wall clock begins in 1970, as on a device without a battery."""

    wall: float = 10.0
    monotonic: float = 1000.0

    def wall_s(self) -> float:
        return self.wall

    def monotonic_s(self) -> float:
        return self.monotonic

    def pass_s(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds
