"""What does the loop cost beside the bare model? The same frames, in turns, one thread, one run.

bare: the runtime alone on a prepared tensor. model: resize, pack, run, decode. loop: the same with the quality checks,
statistics, and a push to a supervisor that reads it. Only the ratios travel between machines.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from report import FRAMES, Table, bundles, describe_machine, digest_of, say, unpacked

from agent.loop.inbox import Inbox
from agent.loop.pipeline import Pipeline
from agent.loop.server import Server
from agent.loop.slots import LoadedModel, Slots
from agent.loop.sources import open_source, parse_source
from agent.loop.worker import load_model
from ommatid.vision.frame import Frame
from ommatid.vision.resize import InputPacker, Resizer

READER = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nwhile s.recv(65536): pass"
WARM_UP = 20


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, action="append", help="default: what `make demo` built")
    parser.add_argument("--source", default=FRAMES, help="video or folder the frames are taken from")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    pictures = _pictures(arguments.source, arguments.frames)
    rows = []
    for bundle in bundles(arguments.bundle):
        with unpacked(bundle) as folder:
            rows.append(bench_bundle(bundle, folder, pictures, arguments.threads))
    settings = {
        "threads": arguments.threads,
        "repeats": arguments.frames,
        "warm_up": WARM_UP,
        "source": Path(arguments.source).name,
    }
    say(
        {"benchmark": "loop", "machine": describe_machine(), "settings": settings, "rows": rows},
        Table("bundle", "bare_p50_ms", "model_p50_ms", "loop_p50_ms", "model_ratio", "loop_ratio", "loop_p95_ms"),
        as_json=arguments.json,
    )


def bench_bundle(bundle: Path, folder: Path, pictures: list[NDArray[np.uint8]], threads: int) -> dict[str, object]:
    """Return the figures of one bundle."""
    held = load_model(folder, folder.name, threads)
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        server = Server(Path(place) / "s", lambda _order, _answer: None)
        server.start()
        reader = subprocess.Popen([sys.executable, "-c", READER, str(Path(place) / "s")])
        while not server.has_room():
            time.sleep(0.01)
        times = measure(held, server, pictures)
        assert server.pushes_lost == 0
        server.stop()
        reader.wait(10)
    bare, model, loop = (np.array(each) for each in times)
    return {
        "bundle": bundle.name,
        "digest": digest_of(bundle),
        "bare_p50_ms": float(np.median(bare)),
        "model_p50_ms": float(np.median(model)),
        "loop_p50_ms": float(np.median(loop)),
        "loop_p95_ms": float(np.percentile(loop, 95)),
        "model_ratio": float(np.median(model / bare)),
        "loop_ratio": float(np.median(loop / bare)),
    }


def measure(held: LoadedModel, server: Server, pictures: list[NDArray[np.uint8]]) -> list[list[float]]:
    """Return the times of bare, model and loop on each picture, in turns whose order rotates."""
    spec, backend = held.model.spec, held.model.backend
    resizer = Resizer(spec.input.resize, spec.input.width, spec.input.height, spec.input.pad_value)
    packer = InputPacker(spec.input.shape, spec.input.dtype, spec.input.layout, spec.input.color)
    slots = Slots(held)
    pipeline = Pipeline(["camera"], Inbox(["camera"]), slots, server.push, quality=True)
    times: list[list[float]] = [[], [], []]
    for index in range(-WARM_UP, len(pictures)):
        picture = pictures[index]
        tensor = packer.pack(resizer.resize(picture)[0])
        frame = Frame(picture, max(0, index), "camera", time.monotonic_ns(), time.time())
        ways: list[Callable[[], object]] = [
            lambda tensor=tensor: backend.run({spec.input.name: tensor}),  # type: ignore[misc]  # a default, not a parameter
            lambda picture=picture: held.model.infer(picture),  # type: ignore[misc]  # same
            lambda frame=frame: pipeline.process(frame),  # type: ignore[misc]  # same
        ]
        for turn in range(len(ways)):
            way = (turn + index) % len(ways)
            taken = _time(ways[way])
            if index >= 0:
                times[way].append(taken)
    return times


def _time(run: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - began) / 1e6


def _pictures(source: str, count: int) -> list[NDArray[np.uint8]]:
    cv2.setNumThreads(1)
    opened = open_source(parse_source(source))
    pictures: list[NDArray[np.uint8]] = []
    while len(pictures) < count and (picture := opened.read()) is not None:
        pictures.append(picture)
    opened.close()
    return pictures


if __name__ == "__main__":
    main()
