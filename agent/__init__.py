"""The device program: camera, quality, inference, and a new model over the air between two frames."""
