"""Run a program on a small disk of its own that is really full: a tmpfs in a private mount namespace."""

import subprocess
from pathlib import Path
from typing import Final

import pytest

_SCRIPT: Final = 'mount -t tmpfs -o size="$2" tmpfs "$1" && shift 2 && exec "$@"'
UNSHARE: Final = ("unshare", "--mount", "--map-root-user")


def small_disk(folder: Path, size: str) -> tuple[str, ...]:
    """Return the start of a command line under which `folder` is an empty disk of `size`, such as `64k`.

    Skips the test where the kernel forbids it, as some containers do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = (*UNSHARE, "sh", "-c", _SCRIPT, "sh", str(folder), size)
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no private mounts on this machine")
    return command
