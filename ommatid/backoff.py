"""How long to wait before trying again, so that a whole fleet does not come back at one moment."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: each wait is uniform between 0 and a ceiling that doubles.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter".
    """

    first_s: float = 0.5
    most_s: float = 30.0

    def wait_s(self, attempt: int, share: float) -> float:
        """Return the seconds to wait before `attempt` (0, 1, …), with `share` uniform in 0..1."""
        return share * self.ceiling_s(attempt)

    def ceiling_s(self, attempt: int) -> float:
        """Return the longest wait before `attempt` (0, 1, …)."""
        return min(self.most_s, self.first_s * 2.0 ** min(attempt, 30))
