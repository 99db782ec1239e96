"""Run ONNX models with ONNX Runtime on the CPU.

Each setting below was measured: spinning threads burn most of a core between two frames; loading from bytes holds
the interpreter lock while the file is parsed, and keeps a second copy; a kept NodeArg keeps the whole session alive.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from ommatid.errors import BackendError
from ommatid.runtime.backend import TensorInfo

# Before the import: the library writes a device id and counters into the home folder as it loads.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

_FATAL: Final = 4
_CPU_FACTS: Final = Path("/proc/cpuinfo")
DISABLED_OPTIMIZERS: Final = ("WeightBiasQuantization",)
"""It would make int8, with one scale for all channels, the very layers that the optimizer left in float."""
_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxBackend:
    """One ONNX Runtime session."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load a model.

        Raises:
            BackendError: ONNX Runtime refuses the file.
        """
        self._path = path
        # ONNX Runtime's exceptions share no base class, and std::bad_alloc comes as a RuntimeError.
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path),
                sess_options=session_options(threads),
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(DISABLED_OPTIMIZERS),
            )
        except Exception as error:
            raise BackendError(f"{path}: ONNX Runtime cannot load the model: {error}") from error
        self.inputs = tuple(_describe(node) for node in self._session.get_inputs())
        self.outputs = tuple(_describe(node) for node in self._session.get_outputs())
        self._names = [output.name for output in self.outputs]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return every output by name.

        Raises:
            BackendError: The inputs do not fit, the run failed, or the backend is closed.
        """
        if self._session is None:
            raise BackendError(f"{self._path}: the model is closed")
        try:
            values = self._session.run(self._names, dict(inputs))
        except Exception as error:
            raise BackendError(f"{self._path}: ONNX Runtime failed: {error}") from error
        return dict(zip(self._names, values, strict=True))

    def close(self) -> None:
        """Give the session's memory back."""
        self._session = None


def session_options(threads: int) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Return the settings under which every model of ours runs, in the optimizer and on the device."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if platform.machine() == "x86_64" and sums_overflow(_cpu_facts()):
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def sums_overflow(cpu_facts: str) -> bool:
    """Tell whether this x86 CPU, as /proc/cpuinfo describes it, needs the slower exact kernels for int8 models.

    Without VNNI, ONNX Runtime adds products of uint8 and int8 in 16 bits, which overflow: on an emulated Haswell the
    demo's detector fell from an agreement of 0.99 with the float model to 0.87. The exact kernels gave the same bits
    as VNNI; where there is VNNI they would only halve the speed.

    Source: kOrtSessionOptionsAvx2PrecisionMode in onnxruntime_session_options_config_keys.h.
    """
    flags = next((line for line in cpu_facts.splitlines() if line.startswith("flags")), "").split()
    return not {"avx512_vnni", "avx_vnni"}.intersection(flags)


def _cpu_facts() -> str:
    try:
        return _CPU_FACTS.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _describe(node: Any) -> TensorInfo:  # noqa: ANN401 - onnxruntime has no types
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
    return TensorInfo(str(node.name), shape, _DTYPES.get(node.type, str(node.type)))
