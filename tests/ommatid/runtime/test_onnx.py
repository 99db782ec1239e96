"""ONNX Runtime starts as an edge device needs it: silent, thrifty, and without phoning home."""

import gc
import os
import resource
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np

from ommatid.runtime.onnx import OnnxBackend
from tests.support.models import write_classifier_onnx

RUN = """
import sys
from pathlib import Path
import numpy as np
from ommatid.runtime.backend import load_backend
backend = load_backend("onnx", Path(sys.argv[1]))
backend.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
print(*sorted(name for name in sys.modules if "." not in name))
"""


def run_in_fresh_home(tmp_path: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_a_session_writes_nothing_into_the_home_folder(tmp_path: Path) -> None:
    model = write_classifier_onnx(tmp_path / "model.onnx")

    result = run_in_fresh_home(tmp_path, RUN, str(model))

    assert list((tmp_path / "home").rglob("*")) == []
    assert result.stderr == ""


def test_only_the_chosen_runtime_is_imported(tmp_path: Path) -> None:
    model = write_classifier_onnx(tmp_path / "model.onnx")

    modules = set(run_in_fresh_home(tmp_path, RUN, str(model)).stdout.split())

    assert "onnxruntime" in modules
    assert modules.isdisjoint({"ai_edge_litert", "tflite_runtime", "onnx", "torch", "tensorflow"})


def test_an_idle_session_burns_no_cpu(tmp_path: Path) -> None:
    backend = OnnxBackend(write_classifier_onnx(tmp_path / "model.onnx"), threads=4)
    image = np.zeros((1, 3, 8, 8), np.float32)

    backend.run({"image": image})
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.monotonic()
    # A pause, not a wait: spinning threads would burn it whole.
    time.sleep(0.3)
    elapsed = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_SELF)

    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < elapsed / 2


def test_a_closed_session_is_freed(tmp_path: Path) -> None:
    backend = OnnxBackend(write_classifier_onnx(tmp_path / "model.onnx"))
    session = weakref.ref(backend._session)

    backend.close()
    gc.collect()

    assert session() is None
    assert backend.inputs[0].name == "image"
