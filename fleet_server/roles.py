"""Who may do what over the HTTP API: three roles, each may do what the one before may."""

from enum import StrEnum


class Role(StrEnum):
    """What a token allows."""

    VIEWER = "viewer"
    """See devices, releases, rollouts and telemetry."""
    OPERATOR = "operator"
    """And push releases and steer rollouts."""
    ADMIN = "admin"
    """And make tokens and revoke devices."""

    def allows(self, needed: "Role") -> bool:
        """Tell whether this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)
