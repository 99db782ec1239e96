"""Open a source, or run a tiny model on one runtime, and say how it went: `python -m agent.probe KIND NAME`.

A process of its own, because OpenCV and the runtimes are large, and one that crashes must not take anybody along.
Prints one JSON line: error (class, or null), reason, hint.
"""

import base64
import importlib.metadata
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np

from agent.loop.sources import open_source, parse_source
from ommatid.errors import BackendError, BadInputError, OmmatidError, SourceError
from ommatid.runtime.backend import Format, load_backend

DOUBLE_ONNX: Final = (
    "CAgSADo9Cg4KAXgKAXgSAXkiA0FkZBIBZ1oTCgF4Eg4KDAgBEggKAggBCgIIBGITCgF5Eg4KDAgBEggKAggBCgIIBEIECgAQDQ=="
)
DOUBLE_TFLITE: Final = (
    "GAAAAFRGTDMAAA4AGAAUABAADAAIAAQADgAAABQAAAAcAAAAIAAAAPAAAAADAAAAAQAAAAQAAAAY////AAAAAAAAAAABAAAAEAAAAAwAFAAQAAwA"
    "CAAEAAwAAAAQAAAAUAAAAFQAAABYAAAAAQAAABQAAAAAAA4AFAAAABAADAALAAQADgAAABAAAAAAAAALDAAAABAAAAB4////AQAAAAEAAAACAAAA"
    "AAAAAAAAAAABAAAAAQAAAAEAAAAAAAAAAgAAADQAAAAEAAAA4P///wgAAAAMAAAAAQAAAHkAAAACAAAAAQAAAAQAAAAMAAwACAAAAAAABAAMAAAA"
    "CAAAAAwAAAABAAAAeAAAAAIAAAABAAAABAAAAAEAAAAIAAAABAAEAAQAAAA="
)
"""Both models add their input `x`, float32 (1, 4), to itself. They are bytes here because a device has nothing that
could make one; a test makes sure that they run."""

RUNTIMES: Final[dict[str, tuple[Format, str, tuple[str, ...]]]] = {
    "onnx": ("onnx", DOUBLE_ONNX, ("onnxruntime",)),
    "tflite": ("tflite", DOUBLE_TFLITE, ("ai-edge-litert", "tflite-runtime")),
}


def probe_source(text: str) -> str:
    """Take one picture from a source; return its size as text.

    Raises:
        SourceError: It gives none.
        BadInputError: It is not named as one.
    """
    source = open_source(parse_source(text))
    try:
        picture = source.read()
    finally:
        source.close()
    if picture is None:
        raise SourceError(f"{text}: there is no picture in it", hint="is the part after `#t=` within the video?")
    return f"{picture.shape[1]}x{picture.shape[0]} at {source.fps:g} fps"


def probe_runtime(name: str) -> str:
    """Run the tiny model of a format; return the runtime's name and version.

    Raises:
        BackendError: It does not run here, or gives a wrong result.
    """
    if name not in RUNTIMES:
        raise BadInputError(f"{name}: no such runtime", hint=f"known are {', '.join(RUNTIMES)}")
    model_format, content, packages = RUNTIMES[name]
    values = np.array([[1, 2, 3, 4]], np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"double.{name}"
        path.write_bytes(base64.b64decode(content))
        backend = load_backend(model_format, path)
        outputs = backend.run({"x": values})
        backend.close()
    if not np.array_equal(outputs["y"], 2 * values):
        raise BackendError(f"{name}: 2 x {values.tolist()} is {outputs['y'].tolist()} here")
    return _version(packages)


def _version(packages: tuple[str, ...]) -> str:
    for package in packages:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "version unknown"


def main() -> int:
    """Do one probe."""
    kind, name = sys.argv[1:]
    answer: dict[str, str | None]
    try:
        answer = {"error": None, "reason": probe_source(name) if kind == "source" else probe_runtime(name)}
    except OmmatidError as error:
        answer = {"error": type(error).__name__, "reason": str(error), "hint": error.hint}
    sys.stdout.write(json.dumps({"hint": None, **answer}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
