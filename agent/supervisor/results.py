"""Write each result as one JSON line, to a file or to standard output."""

import json
import logging
import sys
from io import FileIO
from typing import Any

from agent.clock import rfc3339
from agent.loop.protocol import FramePush
from ommatid.cli import explain
from ommatid.errors import StorageError

logger = logging.getLogger(__name__)


class ResultSink:
    """An open file of results. A full disk costs results, never the supervisor.

    unread: nobody reads the pipe any more, as when `head` has seen enough.
    """

    def __init__(self, target: str) -> None:
        """Open the file to append to; `-` is standard output.

        Raises:
            StorageError: It cannot be written.
        """
        self._target = target
        self._torn = False
        self.lost = 0
        self.unread = False
        try:
            # Unbuffered: what a full disk refused must not wait in memory for better times.
            self._file = FileIO(sys.stdout.fileno(), "wb", closefd=False) if target == "-" else FileIO(target, "ab")
        except OSError as error:
            raise StorageError(f"{target}: {error.strerror}", hint="name a file that can be written") from error

    def write(self, frame: FramePush) -> None:
        """Write one line; what cannot be written is counted, and a full disk is said once."""
        line = json.dumps(result_line(frame), separators=(",", ":")).encode() + b"\n"
        if self._torn:
            line = b"\n" + line
        try:
            while line:
                line = line[self._file.write(line) or 0 :]
                self._torn = bool(line)
        except BrokenPipeError:
            self.unread = True
            self.lost += 1
        except OSError as error:
            if not self.lost:
                logger.warning("%s: %s; results are lost until it can be written", self._target, explain(error))
            self.lost += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()


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
