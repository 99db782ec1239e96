"""Bring a release to the fleet in stages, and take it back when devices say that it is bad."""
