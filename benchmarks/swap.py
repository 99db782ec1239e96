"""What does a swap cost the camera? A real loop process at a fixed frame rate; steady time and swaps in turns.

steady: as long as a swap takes, nothing else going on. swap: from the start of loading to one second after the swap.
"""

import argparse
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from report import FRAMES, Table, bundles, describe_machine, digest_of, say, unpacked

from agent.loop.config import LoopConfig, SourceConfig
from agent.loop.protocol import FramePush, Push, SwappedPush
from agent.loop.statistics import percentile
from agent.loop_client import LoopClient


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--bundle", type=Path, action="append", help="running, then new; default: what `make demo` built"
    )
    parser.add_argument("--source", default=f"{FRAMES}&fps=30")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--settle", type=float, default=5.0, help="seconds before the first measurement")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = bundles(arguments.bundle)
    running, new = found[0], found[1 % len(found)]
    row = bench_swap(running, new, arguments.source, arguments.repeats, arguments.settle)
    settings = {"threads": 1, "repeats": arguments.repeats, "source": Path(arguments.source).name}
    say(
        {"benchmark": "swap", "machine": describe_machine(), "settings": settings, "rows": [row]},
        Table(
            "running", "new", "load_ms", "steady_dropped", "swap_dropped", "dropped_by_swap", "steady_frames",
            "swap_frames", "steady_p99_ms", "swap_p99_ms", "p99_ratio",
        ),
        as_json=arguments.json,
    )  # fmt: skip


def bench_swap(running: Path, new: Path, source: str, repeats: int, settle_s: float) -> dict[str, object]:
    """Return what the swaps from `running` to `new` cost, and what the same time costs without one."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(unpacked(bundle)) for bundle in (running, new))
        client, pushes = stack.enter_context(loop(first, source))
        _steady(pushes, settle_s)
        steadies: list[tuple[list[float], int]] = []
        swaps: list[SwappedPush] = []
        span_s = 2.0
        for _ in range(repeats):
            steadies.append(_steady(pushes, span_s))
            began_s = time.monotonic()
            client.load(second, second.name)
            client.swap()
            swaps.append(_swapped(pushes))
            span_s = time.monotonic() - began_s
            client.back()
            _swapped(pushes)
            client.drop()
        steady_p99 = statistics.median(percentile(latencies, 0.99) or 0.0 for latencies, _ in steadies)
        swap_p99 = statistics.median(swap.p99_ms for swap in swaps)
    return {
        "running": running.name,
        "new": new.name,
        "running_digest": digest_of(running),
        "new_digest": digest_of(new),
        "load_ms": statistics.median(swap.load_ms for swap in swaps),
        "steady_frames": sum(len(latencies) for latencies, _ in steadies),
        "swap_frames": sum(swap.frames for swap in swaps),
        "steady_dropped": sum(dropped for _, dropped in steadies),
        "swap_dropped": sum(swap.dropped for swap in swaps),
        "dropped_by_swap": sum(swap.dropped_by_swap for swap in swaps),
        "steady_p99_ms": steady_p99,
        "swap_p99_ms": swap_p99,
        "p99_ratio": swap_p99 / steady_p99,
    }


@contextmanager
def loop(folder: Path, source: str) -> Iterator[tuple[LoopClient, "queue.SimpleQueue[Push]"]]:
    """Run a loop process whose current model is in `folder`; yield its client and what it pushes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        slots = Path(place) / "models" / "model"
        slots.mkdir(parents=True)
        (slots / "current").symlink_to(folder)
        (Path(place) / "models" / "active").symlink_to("model")
        config = LoopConfig((SourceConfig("camera", source),), Path(place) / "s", Path(place) / "models")
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.loop"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"},
            text=True,
        )
        pushes: queue.SimpleQueue[Push] = queue.SimpleQueue()
        try:
            _write(process, config)
            with LoopClient(config.socket, pushes.put) as client:
                client.connect(30)
                yield client, pushes
        finally:
            process.terminate()
            process.wait(20)


def _write(process: "subprocess.Popen[str]", config: LoopConfig) -> None:
    assert process.stdin is not None
    process.stdin.write(config.encode())
    process.stdin.close()


def _steady(pushes: "queue.SimpleQueue[Push]", span_s: float) -> tuple[list[float], int]:
    """Return the latencies of the next `span_s` seconds, and the frames dropped meanwhile."""
    while not pushes.empty():
        pushes.get()
    frames: list[FramePush] = []
    ends_s = time.monotonic() + span_s
    while time.monotonic() < ends_s:
        push = pushes.get(timeout=30)
        if isinstance(push, FramePush):
            frames.append(push)
    return [frame.latency_ms for frame in frames], frames[-1].dropped - frames[0].dropped


def _swapped(pushes: "queue.SimpleQueue[Push]") -> SwappedPush:
    while not isinstance(push := pushes.get(timeout=120), SwappedPush):
        pass
    return push


if __name__ == "__main__":
    main()
