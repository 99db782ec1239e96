"""Hold one trial: `python -m agent.trial --candidate DIR [--current DIR] [--memory-mb N] [--threads 1]`.

Prints the verdict as one JSON line. Exit 0 passed, 1 refused; death by a signal is for the caller to see.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from agent.trial.judge import MAX_RATIO
from agent.trial.limits import lift_memory_limit, restrain
from agent.trial.verdict import refused

DEFAULT_SECONDS = 300
BYTES_A_MB = 1024 * 1024


def main() -> int:
    """Hold the trial."""
    arguments = _parser().parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    for pool in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(pool, "1")  # before NumPy is imported, and makes a pool that nothing here uses
    restrain(None if arguments.memory_mb is None else arguments.memory_mb * BYTES_A_MB, arguments.seconds)
    try:
        from agent.trial.examine import examine  # noqa: PLC0415 - runtimes are imported under the limits

        verdict = examine(
            arguments.candidate,
            arguments.current,
            threads=arguments.threads,
            max_ratio=arguments.max_ratio,
            lift_limit=lift_memory_limit,
        )
    except Exception as error:  # whatever a model does to Python, it is a verdict
        logging.getLogger(__name__).exception("the trial failed in a way that no error of ours covers")
        verdict = refused(error)
    sys.stdout.write(verdict.encode() + "\n")
    return 0 if verdict.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m agent.trial", description="Try a model away from the camera.")
    parser.add_argument("--candidate", type=Path, required=True, help="folder of the unpacked bundle")
    parser.add_argument("--current", type=Path, help="folder of the model that runs now, to measure beside")
    parser.add_argument("--memory-mb", type=int, help="memory limit of the process in MiB")
    parser.add_argument("--threads", type=int, default=1, help="threads of the runtime")
    parser.add_argument("--max-ratio", type=float, default=MAX_RATIO, help="how many times slower it may be")
    parser.add_argument("--seconds", type=int, default=DEFAULT_SECONDS, help="the trial ends itself after so long")
    return parser


if __name__ == "__main__":
    sys.exit(main())
