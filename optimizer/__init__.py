"""Turn a float model into a bundle that a device can trust: smaller, faster, and proven on real images."""

import os

# ONNX Runtime reports usage unless this is set before its import; nothing of ours phones home.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
