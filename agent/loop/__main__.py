"""Start the loop: `python -m agent.loop [--config FILE]`; without a file the configuration is read from stdin.

No click here: the loop process loads nothing that it does not need.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

from agent.loop.app import Loop
from agent.loop.config import parse_config
from ommatid.errors import BadInputError, OmmatidError


def main() -> int:
    """Run the loop until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m agent.loop", description="Run the camera loop.")
    parser.add_argument("--config", type=Path, help="JSON file; standard input if left out")
    arguments = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    try:
        loop = Loop(parse_config(_read(arguments.config)))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stop())
        loop.run()
    except OmmatidError as error:
        sys.stderr.write(f"error: {error}\n" + (f"\nhint: {error.hint}\n" if error.hint else ""))
        return 1
    return 0


def _read(path: Path | None) -> str:
    try:
        return sys.stdin.read() if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path or 'stdin'}: cannot be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
