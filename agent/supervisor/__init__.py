"""The second process: talks to the fleet, brings updates, counts, reports; the camera loop runs without it."""
