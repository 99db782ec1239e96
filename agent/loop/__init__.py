"""The loop process: capture, quality, inference, results. It runs by itself, with or without a supervisor."""
