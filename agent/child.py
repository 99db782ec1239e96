"""Run one of our modules as a child that does not outlive its parent: `python -m agent.child PARENT MODULE`.

Standard library only, because the loop starts through it.
"""

import ctypes
import os
import runpy
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""From linux/prctl.h: the signal that we get when the thread that made us ends, even by SIGKILL."""


def end_with_parent(parent: int) -> bool:
    """Ask the kernel for SIGTERM when the parent dies; return False when it is dead already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return os.getppid() == parent


def main() -> None:
    """Run the module named on the command line."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    if not end_with_parent(parent):
        sys.exit(0)
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
