"""What the trial forbids itself, before it loads anything of a model."""

import os
import resource
import signal

LOWEST_PRIORITY = 19


def restrain(memory_bytes: int | None, seconds: int) -> None:
    """Take the lowest priority, a memory limit, an end, and leave no core file.

    The end comes by SIGALRM, even inside a runtime that hangs, and even when nobody waits for the trial any more.
    """
    os.setpriority(os.PRIO_PROCESS, 0, LOWEST_PRIORITY)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(seconds)
    if memory_bytes is not None:
        # The soft limit alone, so that `lift_memory_limit` may raise it again. RLIMIT_DATA counts what is really
        # written to, as RLIMIT_AS does not; past it a runtime gets std::bad_alloc, which it reports.
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def lift_memory_limit() -> None:
    """Allow again whatever the process was allowed when it began."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
