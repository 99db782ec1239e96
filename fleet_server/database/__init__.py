"""The truth of the fleet: tables, sessions and migrations. What the broker holds can be lost at any time."""
