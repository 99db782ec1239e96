"""Write each result as one JSON line, to a file or to standard output."""

import json
import logging
import sys
from pathlib import Path
from typing import Any, TextIO

from agent.clock import rfc3339
from agent.loop.protocol import FramePush
from ommatid.errors import StorageError

logger = logging.getLogger(__name__)


class ResultSink:
    """An open file of results. A full disk costs results, never the supervisor."""

    def __init__(self, target: str) -> None:
        """Open the file to append to; `-` is standard output.

        Raises:
            StorageError: It cannot be written.
        """
        self._target = target
        self.lost = 0
        try:
            self._stream: TextIO = sys.stdout if target == "-" else Path(target).open("a", buffering=1)  # noqa: SIM115 - open as long as we are
        except OSError as error:
            raise StorageError(f"{target}: {error.strerror}", hint="name a file that can be written") from error

    def write(self, frame: FramePush) -> None:
        """Write one line; what cannot be written is counted, and said once."""
        try:
            self._stream.write(json.dumps(result_line(frame), separators=(",", ":")) + "\n")
            if self._target == "-":
                self._stream.flush()
        except OSError as error:
            if not self.lost:
                logger.warning("%s: results cannot be written: %s (further ones are counted)", self._target, error)
            self.lost += 1

    def close(self) -> None:
        """Close the file."""
        if self._target != "-":
            self._stream.close()


def result_line(frame: FramePush) -> dict[str, Any]:
    """Return what is told of one frame; docs/agent.md explains the fields."""
    line: dict[str, Any] = {
        "source": frame.source,
        "index": frame.index,
        "captured_at": rfc3339(frame.captured_at_ms / 1000),
        "latency_ms": round(frame.latency_ms, 3),
        "model": frame.digest,
        "width": frame.width,
        "height": frame.height,
        "objects": [
            {
                "label": found.label,
                "confidence": round(found.confidence, 4),
                **({"xyxy": [round(value, 1) for value in found.xyxy]} if found.xyxy else {}),
            }
            for found in frame.objects
        ],
    }
    if frame.quality_state is not None:
        line["quality"] = {"state": frame.quality_state, "reasons": list(frame.flags), "signals": dict(frame.quality)}
    if frame.error is not None:
        line["error"] = frame.error
    return line
