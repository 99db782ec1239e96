"""Show what a build is doing, on stderr: bars on a terminal, one line a step elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Tick = Callable[[], None]


class Steps(Protocol):
    """Tell a person about the steps of a build."""

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Tick]:
        """Run one step; the caller ticks `total` times."""
        ...


class Terminal:
    """Tell each step on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Tick]:
        """Show a bar while the step runs, where there is a terminal; then one line with its seconds."""
        start = time.perf_counter()
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with Progress(*columns, console=self._console, transient=True) as bars:
                bar = bars.add_task(name, total=total)
                yield lambda: bars.advance(bar)
        else:
            yield lambda: None
        self._console.print(f"{name}: {time.perf_counter() - start:.1f} s", highlight=False, soft_wrap=True)
