"""The throw-away process in which each new model runs first: what crashes here never meets the camera."""
