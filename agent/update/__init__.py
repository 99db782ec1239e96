"""Bring a new model onto the device, so that at every moment the old one or the new one runs. See docs/updates.md."""
