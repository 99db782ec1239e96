"""What the benchmarks share: their models and frames, the machine in words, a table or JSON."""

import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ommatid.contract.bundle import unpack_bundle

ROOT = Path(__file__).parents[1]
FRAMES = str(ROOT / ".cache" / "assets" / "vtest.avi#loop")
LIBRARIES = ("onnxruntime", "ai-edge-litert", "numpy", "opencv-python-headless")


class Table:
    """Which columns a person wants to see."""

    def __init__(self, *columns: str) -> None:
        self.columns = columns

    def render(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return the rows as aligned text."""
        lines = [list(self.columns), *[[_cell(row[column]) for column in self.columns] for row in rows]]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
        return "\n".join("  ".join(line).rstrip() for line in padded)


def say(document: Mapping[str, Any], table: Table, *, as_json: bool) -> None:
    """Print JSON, or the table under one line that says what it was measured with."""
    if as_json:
        print(json.dumps(document, indent=2))
        return
    print(f"{document['benchmark']}: {document['machine']} {document['settings']}")
    print(table.render(document["rows"]))


def describe_machine() -> dict[str, Any]:
    """Return the processor, the interpreter and the libraries."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "arch": platform.machine(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def bundles(given: Sequence[Path] | None) -> list[Path]:
    """Return the bundles to measure: those given, else the float v1 and the int8 v2 that `make demo` built."""
    found = list(given) if given else sorted((ROOT / "demo" / "run" / "bundles").glob("*.bundle"))[:2]
    if not found or not all(path.is_file() for path in found):
        sys.exit("error: no bundle to measure\n\nhint: run `make demo` first, or name one with --bundle FILE")
    return found


def digest_of(bundle: Path) -> str:
    """Return a bundle's sha256."""
    return hashlib.sha256(bundle.read_bytes()).hexdigest()


@contextmanager
def unpacked(bundle: Path) -> Iterator[Path]:
    """Yield the folder of an unpacked bundle, named by its digest as in an agent's store."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / digest_of(bundle)
        unpack_bundle(bundle, folder)
        yield folder


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
