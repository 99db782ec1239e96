"""A device for tests of updates: real store, bundles and HTTP; the loop, the trial and the reporter are fakes.

All fakes keep what must outlive a killed process in plain files beside the state directory, so that the same device
can be built again after a kill.
"""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

import httpx

from agent.loop_client import OrderRefusedError
from agent.update.download import Download, DownloadPolicy
from agent.update.engine import Engine
from agent.update.ports import Change
from agent.update.probation import Sight
from agent.update.release import Release
from agent.update.rules import Policy
from ommatid.contract.bundle import write_bundle
from ommatid.contract.digests import sha256_bytes, sha256_file
from ommatid.contract.manifest import parse_manifest
from ommatid.disk import Disk, RealDisk
from ommatid.errors import LinkError, TrustError
from tests.support.clock import HandClock
from tests.support.disks import CrashingDisk, Points
from tests.support.small_bundle import CONTENT, small_manifest

QUICK = Policy(probation_frames=5, probation_s=2.0, probation_longest_s=60.0, loop_patience_s=30.0, steady_frames=5)
PATIENCE = DownloadPolicy(tries=4, progress_bytes=1, first_pause_s=0.001, longest_pause_s=0.002, sync_bytes=64 * 1024)


@dataclass(frozen=True)
class Signed:
    """What the trust rules give for one bundle."""

    rev: int
    path: str
    length: int
    sha256: str
    model: str
    version: str
    target: str
    release_counter: int

    @property
    def document(self) -> bytes:
        """The director document that names it, as `FakeTrust` reads it."""
        return json.dumps(asdict(self)).encode()

    @property
    def release(self) -> Release:
        return Release.of(self)


def make_release(
    folder: Path, version: str, rev: int, counter: int, size: int = 160_000, name: str = "detector"
) -> Signed:
    """Write a small bundle that only its version and name tell from others, and sign it, so to speak."""
    content = {**CONTENT, "model.onnx": (f"{name} {version} ".encode() * size)[:size]}
    manifest = small_manifest(content).model_copy(update={"version": version, "name": name})
    sources = {}
    for path, data in content.items():
        sources[path] = folder / f"{name}-{version}" / path
        sources[path].parent.mkdir(parents=True, exist_ok=True)
        sources[path].write_bytes(data)
    bundle = folder / manifest.bundle_name
    write_bundle(bundle, manifest, sources)
    digest = sha256_file(bundle)
    bundle.rename(folder / digest)
    length = (folder / digest).stat().st_size
    return Signed(rev, f"{name}/{manifest.bundle_name}", length, digest, name, version, "int8-arm", counter)


class FakeTrust:
    """Believes every document that is one, and remembers the floors."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self.floors: dict[str, int] = {}
        self.offline = False

    def check(self, document: bytes) -> Signed | None:
        if self.offline:
            raise LinkError("no release side")
        if document == b"nothing":
            return None
        try:
            return Signed(**json.loads(document))
        except (ValueError, TypeError) as error:
            raise TrustError("not signed") from error

    def raise_counter_floor(self, model: str, counter: int) -> None:
        self._points.pass_one()
        self.floors[model] = max(counter, self.floors.get(model, 0))


@dataclass(frozen=True)
class View:
    """The fake loop's answer to `status`."""

    active: str | None
    loaded: str | None
    previous: str | None
    loading: bool = False


class FakeLoop:
    """A loop as a small file: what it runs, has loaded, and ran before. It always starts from the current slot."""

    def __init__(self, file: Path, current: Path, points: Points) -> None:
        self._file = file
        self._current = current
        self._points = points
        self.away = False
        self.broken: set[str] = set()
        self.deadly: set[str] = set()
        self.orders: list[str] = []
        if not file.exists():
            self.restart()

    def restart(self) -> None:
        """Die, and start again."""
        digest = self._current.resolve().name if self._current.exists() else None
        self._set(View(digest, None, None))

    def load(self, folder: Path, digest: str) -> float:
        self._begin("load")
        if digest in self.broken or not (folder / "model.onnx").exists():
            raise OrderRefusedError("load", "BackendError", "no such operator", None)
        view = self.status()
        self._set(View(view.active, digest, view.previous))
        self._points.pass_one()
        return 12.5

    def swap(self) -> None:
        self._begin("swap")
        view = self.status()
        if view.loaded is None:
            raise OrderRefusedError("swap", "NothingLoadedError", "nothing loaded", None)
        self._set(View(view.loaded, None, view.active))
        if view.loaded in self.deadly:
            self.restart()
            raise LinkError("the loop went away")
        self._points.pass_one()

    def back(self) -> None:
        self._begin("back")
        view = self.status()
        self._set(View(view.previous, None, None))
        self._points.pass_one()

    def drop(self) -> None:
        self._begin("drop")
        self._set(View(self.status().active, None, None))
        self._points.pass_one()

    def status(self) -> View:
        if self.away:
            raise LinkError("no loop answers")
        return View(**json.loads(self._file.read_text()))

    def _begin(self, order: str) -> None:
        self.orders.append(order)
        if self.away:
            raise LinkError("no loop answers")
        self._points.pass_one()

    def _set(self, view: View) -> None:
        partial = self._file.with_suffix(".new")
        partial.write_text(json.dumps(asdict(view)))
        partial.replace(self._file)


@dataclass(frozen=True)
class FakeVerdict:
    """How the fake trial ended."""

    passed: bool
    error: str | None = None
    reason: str | None = None
    figures: Mapping[str, float] = field(default_factory=lambda: {"latency_ratio": 0.5})


class FakeTrial:
    """Passes every model but those that a test names, and reads it whole."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self.bad: set[str] = set()
        self.crashing: set[str] = set()
        self.held: list[str] = []

    def __call__(self, candidate: Path, current: Path | None) -> FakeVerdict:
        self._points.pass_one()
        self.held.append(candidate.name)
        assert is_whole(candidate)
        assert current is None or is_whole(current)
        self._points.pass_one()
        if candidate.name in self.crashing:
            return FakeVerdict(passed=False, error="TrialCrashError", reason="SIGSEGV")
        if candidate.name in self.bad:
            return FakeVerdict(passed=False, error="GoldenError", reason="golden sample 0 differs")
        return FakeVerdict(passed=True)


class FileReporter:
    """Appends each report to a file, as the spool does."""

    def __init__(self, file: Path, points: Points) -> None:
        self._file = file
        self._points = points

    def update(self, change: Change) -> None:
        self._points.pass_one()
        document = {**asdict(change), "model": change.model.model_dump(), "figures": dict(change.figures)}
        self._append({"kind": "update", **document})
        self._points.pass_one()

    def refusal(self, error: str, reason: str) -> None:
        self._append({"kind": "refusal", "error": error, "reason": reason})

    def event(self, name: str, severity: str, text: str) -> None:
        self._append({"kind": "event", "name": name, "severity": severity, "text": text})

    def _append(self, document: Mapping[str, Any]) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(document) + "\n")


class FastDisk(RealDisk):
    """A real disk that does not wait for the platters: for runs that no power cut follows."""

    def sync(self, path: Path) -> None:
        assert path.exists()


class Device:
    """One device with its state directory; made again over the same folder, it is the same device after a restart."""

    def __init__(
        self,
        home: Path,
        url: str,
        *,
        client: httpx.Client,
        disk: Disk | None = None,
        points: Points | None = None,
        policy: Policy = QUICK,
    ) -> None:
        points = points or Points()
        self.root = home / "state"
        self.root.mkdir(parents=True, exist_ok=True)
        self._reports = home / "reports.ndjson"
        self.clock = HandClock()
        self.disk = disk or FastDisk()
        self.loop = FakeLoop(home / "loop.json", self.root / "models" / "active" / "current", points)
        self.trial = FakeTrial(points)
        self.trust = FakeTrust(points)
        self.failing: dict[str, str] = {}
        self.silent: set[str] = set()
        self.latency_ms: dict[str, float] = {}
        download = Download(
            client,
            lambda release: f"{url}/{release.sha256}",
            lambda: {"Authorization": "Bearer made-up"},
            self.disk,
            self.clock,
            PATIENCE,
            sleep=self.clock.pass_s,
        )
        self.engine = Engine(
            self.root,
            self.disk,
            trust=self.trust,
            fetch=download,
            trial=self.trial,
            loop=self.loop,
            reporter=FileReporter(self._reports, points),
            clock=self.clock,
            policy=policy,
        )

    def run(self, *offers: bytes, ticks: int = 2000) -> None:
        """Recover, take the offers, and go on until nothing is left to do."""
        self.engine.recover()
        for document in offers:
            self.engine.offer(document)
        self.finish(ticks)

    def finish(self, ticks: int = 2000) -> None:
        for _ in range(ticks):
            if self.engine.idle:
                return
            self.engine.tick()
            self.see_a_frame()
        raise AssertionError(f"the update does not end: {self.engine.record}")

    def see_a_frame(self) -> None:
        self.clock.pass_s(0.5)
        if self.loop.away or (digest := self.loop.status().active) is None:
            return
        objects = 0 if digest in self.silent else 3
        error = self.failing.get(digest)
        self.engine.watch.observe(Sight(digest, self.latency_ms.get(digest, 10.0), objects, error))

    @property
    def reports(self) -> list[dict[str, Any]]:
        if not self._reports.exists():
            return []
        return [json.loads(line) for line in self._reports.read_text().splitlines()]

    @property
    def states(self) -> list[str]:
        return [report["state"] for report in self.reports if report["kind"] == "update"]

    @property
    def current(self) -> str | None:
        return slot(self.root, "current")

    @property
    def previous(self) -> str | None:
        return slot(self.root, "previous")


def slot(root: Path, name: str) -> str | None:
    """Return what a slot of the active model leads to, read without any of our code; it must be whole."""
    link = root / "models" / "active" / name
    if not link.is_symlink():
        return None
    folder = link.resolve(strict=True)
    assert is_whole(folder), f"{link} leads to {folder}, which is damaged"
    return folder.name


def is_whole(folder: Path) -> bool:
    """Check every file of an unpacked bundle against its manifest."""
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    return all(sha256_bytes((folder / entry.path).read_bytes()) == entry.sha256 for entry in manifest.files)


def kill_self() -> NoReturn:
    """Die as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def crashing(points: Points) -> CrashingDisk:
    """Return a disk without waits that dies at one of `points`."""
    return CrashingDisk(FastDisk(), points=points)


Answer = Callable[["BundleHandler", bytes], None]


class BundleHandler(BaseHTTPRequestHandler):
    """Serves a folder of bundles by digest, with Range, and with the faults that a test put in line."""

    protocol_version = "HTTP/1.1"
    server: "BundleServer"

    def do_GET(self) -> None:
        self.server.requests.append(dict(self.headers))
        content = self.server.content(self.path.strip("/"))
        fault = self.server.next_fault()
        if fault is not None:
            fault(self, content)
        elif not content:
            self.answer(404, b"")
        else:
            self.serve(content)

    def serve(self, content: bytes) -> None:
        """Answer rightly."""
        start = self.start_byte()
        if start == 0:
            self.answer(200, content)
        elif start >= len(content):
            self.answer(416, b"")
        else:
            self.answer(206, content[start:], {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})

    def start_byte(self) -> int:
        wanted = self.headers.get("Range", "")
        return int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0

    def answer(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, sent: int | None = None
    ) -> None:
        """Send a head that promises all of `body`, and as much of it as `sent`, then perhaps hang up."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        part = body if sent is None else body[:sent]
        for start in range(0, len(part), 32 * 1024):
            self.wfile.write(part[start : start + 32 * 1024])
        if sent is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it)
        """Stay silent."""

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True


class BundleServer(ThreadingHTTPServer):
    """A real server on a port of its own. `faults` answer the next requests; `always` answers all that are left."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), BundleHandler)
        self._folder = folder
        self.faults: list[Answer] = []
        self.always: Answer | None = None
        self.requests: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def content(self, name: str) -> bytes:
        path = self._folder / name
        return path.read_bytes() if name and path.is_file() else b""

    def next_fault(self) -> Answer | None:
        return self.faults.pop(0) if self.faults else self.always


@contextmanager
def serving(folder: Path) -> Iterator[BundleServer]:
    """Serve the bundles of a folder for a while."""
    server = BundleServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
