"""The whole way on real input: build, sign, push, roll out, swap, refuse, resume; then a table and summary.json.

Only public commands are used, and every figure comes from what the programs themselves print.
"""

import argparse
import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from programs import DemoError, Outcome, Service, call, free_ports, wait_for
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
RUN = ROOT / "demo" / "run"
SUMMARY = ROOT / "demo" / "summary.json"
NAME = "street"
DEVICES = {"cam-north": "0,26", "cam-east": "26,52", "cam-south": "52,79"}
CALIBRATE, VALIDATE = "0,30", "40,75"
INT8 = "int8-arm" if platform.machine() == "aarch64" else "int8-x86"
BUNDLE_RATE = 5_000_000
"""Bytes a second for all downloads together: slow enough to pull the plug in the middle of one."""
SHORT = {"id", "version", "by", "class"}
"""Columns that are not broken into lines."""

console = Console(soft_wrap=True)


@dataclass
class Demo:
    """The parts that the scenes share."""

    assets: dict[str, str]
    fleet_dir: Path = RUN / "fleet"
    keys: Path = RUN / "release-keys"
    services: dict[str, Service] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=lambda: {"schema": 1})
    started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Print one line of what happens, with the seconds since the start."""
        console.print(f"[dim]{time.monotonic() - self.started:6.1f} s[/]  {text}", highlight=False)

    def fleet(self, *arguments: str | Path, expect: int | None = 0) -> Outcome:
        """Run a `fleet` command against the demo's server."""
        return call("fleet", "--dir", self.fleet_dir, *arguments, expect=expect)

    def state(self, device: str) -> Path:
        """Return a device's state directory."""
        return RUN / device

    def status(self, device: str) -> dict[str, Any]:
        """Return what the device says of itself."""
        return dict(call("edge-agent", "status", "--state-dir", self.state(device), "--json").json())

    def push(self, bundle: Path) -> dict[str, Any]:
        """Sign a bundle with the release keys, and push it."""
        return dict(self.fleet("push", bundle, "--keys", self.keys, "--json").json())

    def rollout(self, version: str, *, expect: int = 0, stages: str = "1,100%") -> dict[str, Any]:
        """Roll a version out and wait for the end; returns the rollout's status."""
        options = ("--stages", stages, "--soak", "1", "--max-failures", "1", "--wait", "--json")
        return dict(self.fleet("rollout", "start", NAME, version, *options, expect=expect).json())


def build(demo: Demo, version: str, target: str, *options: str | Path, expect: int = 0) -> Outcome:
    """Build one bundle from the float detector and the video."""
    video = demo.assets["video"]
    validate = ("--validate", f"{video}#t={VALIDATE}")
    calibrate = ("--calibrate", f"{video}#t={CALIBRATE}") if target != "fp32" else ()
    names = ("--name", NAME, "--version", version, "--target", target, "--labels", demo.assets["labels"])
    common = ("--decode", "ssd", "-o", RUN / "bundles", "--json")
    return call(
        "optimizer", "build", demo.assets["model"], *names, *calibrate, *validate, *common, *options, expect=expect
    )


def build_scene(demo: Demo) -> dict[str, Path]:
    """Build the float v1, the int8 v2, the bad v3 that the gate refuses, and the same v3 past the gate."""
    (RUN / "bundles").mkdir()
    bad = ("--per-tensor", "--no-search")
    built = {"v1": build(demo, "1", "fp32").json(), "v2": build(demo, "2", INT8).json()}
    demo.say(f"built v1 (float, {mb(built['v1'])}) and v2 (int8, {mb(built['v2'])})")
    refusal = build(demo, "3", INT8, *bad, expect=1)
    demo.summary["refused"] = {"gate": {"class": "GateError", "message": refusal.error()}}
    demo.say(f"the gate refused v3: {refusal.error()}")
    built["v3"] = build(demo, "3", INT8, *bad, "--no-gate").json()
    # Float and int8 are timed in turns while v2 is built; figures of two builds would compare two moments.
    built["v1"]["latency_ms"] = built["v2"]["float_latency_ms"]
    demo.summary["bundles"] = {
        version: {key: figures[key] for key in ("size_bytes", "latency_ms", "agreement_f1")}
        for version, figures in built.items()
    }
    for version in ("4", "5"):  # v2 again, under versions of their own
        built[f"v{version}"] = build(demo, version, INT8).json()
    return {version: Path(figures["bundle"]) for version, figures in built.items()}


def start_fleet(demo: Demo) -> None:
    """Make and start the server, enrol three agents, and start them on their parts of the video."""
    http_port, mqtt_port = free_ports(2)
    ports = ("--http-port", str(http_port), "--mqtt-port", str(mqtt_port))
    call("fleet", "init", demo.fleet_dir, "--keys", demo.keys, *ports)
    serve = ("fleet", "--dir", demo.fleet_dir, "serve", "--bundle-rate-limit", str(BUNDLE_RATE))
    demo.services["fleet"] = Service(serve, RUN / "fleet.log")
    demo.services["fleet"].start()
    demo.say(f"fleet server on https://127.0.0.1:{http_port}, its own broker on port {mqtt_port}")
    wait_for("the server", lambda: demo.fleet("devices", "--json", expect=None).code == 0, 30, [demo.services["fleet"]])
    for device, section in DEVICES.items():
        token = demo.fleet("token", "--tag", "demo").stdout
        state = ("--state-dir", demo.state(device))
        call("edge-agent", "enroll", *state, "--device", device, "--token-file", "-", stdin=token)
        source = f"{demo.assets['video']}#t={section}&loop"
        run = ("edge-agent", "run", *state, "--source", source)
        settings = {
            "EDGE_AGENT_HTTP_PORT": "0",
            "EDGE_AGENT_STATUS_INTERVAL_S": "1",
            "EDGE_AGENT_WINDOW_S": "10",
            "EDGE_AGENT_PROBATION_S": "5",
        }
        demo.services[device] = Service(run, RUN / f"{device}.log", settings)
        demo.services[device].start()
    wait_for("three devices online", lambda: len(online(demo)) == len(DEVICES), 60, list(demo.services.values()))
    demo.say("three agents are enrolled, and watch their parts of the video")


def rollout_scene(demo: Demo, bundles: dict[str, Path]) -> None:
    """Roll out v1 and v2; then v3, which the devices refuse in the trial."""
    demo.summary["rollouts"] = {}
    for version in ("1", "2"):
        demo.push(bundles[f"v{version}"])
        status = demo.rollout(version)
        demo.summary["rollouts"][f"v{version}"] = {"push_to_committed_s": status["push_to_committed_s"]}
        demo.say(f"v{version} is committed everywhere, {status['push_to_committed_s']:.1f} s after the push")
    demo.summary["devices"] = [device_row(demo, device) for device in DEVICES]
    demo.push(bundles["v3"])
    refused = first_failure(demo.rollout("3", expect=1))
    demo.summary["refused"]["trial"] = refused
    demo.say(f"v3 was forced through; the trial refused it: {refused['message']}")
    for device in DEVICES:
        running(demo, device, "2")


def resume_scene(demo: Demo, bundles: dict[str, Path]) -> None:
    """Kill one agent in the middle of the download of v4, and see it resume."""
    victim = list(DEVICES)[-1]
    pushed = demo.push(bundles["v4"])
    started = demo.fleet("rollout", "start", NAME, "4", "--stages", "100%", "--soak", "1", "--json").json()
    partial = demo.state(victim) / "downloads" / f"{pushed['digest']}.part"
    size = int(pushed["size_bytes"])
    wait_for("a third of the download", lambda: partial.exists() and partial.stat().st_size > size / 3, 60)
    demo.services[victim].kill()
    before = partial.stat().st_size
    demo.services[victim].start()
    wait_for("the rollout of v4", lambda: rollout_state(demo, started["id"]) != "running", 120)
    if (state := rollout_state(demo, started["id"])) != "finished":
        raise DemoError(f"the rollout of v4 is {state}, but it must be finished")
    figures = demo.status(victim)["update"]["figures"]
    after = int(figures["bytes_fetched"])
    demo.summary["resumed"] = {
        "bytes_before_kill": before,
        "bytes_fetched_after": after,
        "bytes_fetched_again": before + after - size,
        "size_bytes": size,
    }
    demo.say(f"{victim} was killed after {before:,} bytes of v4; it resumed, and fetched the other {after:,}")


def attack_scene(demo: Demo, bundles: dict[str, Path]) -> None:
    """Offer v5 from a server that was broken into: first signed by a stranger, then with one flipped bit."""
    pushed = demo.push(bundles["v5"])
    metadata, kept = demo.fleet_dir / "metadata" / "release", RUN / "kept-metadata"
    shutil.copytree(metadata, kept)
    shutil.copytree(stranger_metadata(bundles["v5"]), metadata, dirs_exist_ok=True)
    demo.summary["refused"]["stranger"] = first_failure(demo.rollout("5", expect=1))
    shutil.copytree(kept, metadata, dirs_exist_ok=True)
    demo.say(f"a stranger's signature was refused: {demo.summary['refused']['stranger']['message']}")
    blob = demo.fleet_dir / "bundles" / pushed["digest"]
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    demo.summary["refused"]["bit_flip"] = first_failure(demo.rollout("5", expect=1))
    demo.say(f"one flipped bit was refused: {demo.summary['refused']['bit_flip']['message']}")
    for device in DEVICES:
        running(demo, device, "4")


def stranger_metadata(bundle: Path) -> Path:
    """Return the release metadata of somebody else's server, to which they pushed the bundle with their own keys."""
    folder, keys = RUN / "stranger", RUN / "stranger-keys"
    http_port, mqtt_port = free_ports(2)
    ports = ("--http-port", str(http_port), "--mqtt-port", str(mqtt_port))
    call("fleet", "init", folder, "--keys", keys, *ports)
    server = Service(("fleet", "--dir", folder, "serve"), RUN / "stranger.log")
    server.start()
    try:
        ready = ("fleet", "--dir", folder, "devices", "--json")
        wait_for("the stranger's server", lambda: call(*ready, expect=None).code == 0, 30, [server])
        call("fleet", "--dir", folder, "push", bundle, "--keys", keys)
    finally:
        server.stop()
    return folder / "metadata" / "release"


def online(demo: Demo) -> list[str]:
    """Return the devices that the server sees online."""
    return [device["id"] for device in demo.fleet("devices", "--json").json() if device["online"]]


def rollout_state(demo: Demo, rollout: str) -> str:
    """Return the state of one rollout."""
    return str(demo.fleet("rollout", "status", str(rollout), "--json").json()["state"])


def first_failure(status: dict[str, Any]) -> dict[str, str]:
    """Return class and message of the first device that failed in an aborted rollout."""
    if status["state"] != "aborted":
        raise DemoError(f"the rollout of {status['version']} is {status['state']}, but it must be aborted")
    failed = [device for device in status["devices"] if device["error"]]
    return {"class": failed[0]["error"], "message": failed[0]["reason"]}


def running(demo: Demo, device: str, version: str) -> None:
    """Raise DemoError unless the device runs this version."""
    wait_for(f"{device} on v{version}", lambda: (demo.status(device)["model"] or {}).get("version") == version, 30)


def device_row(demo: Demo, device: str) -> dict[str, Any]:
    """Return the figures of one device, as it states them."""
    status = demo.status(device)
    (source,) = status["sources"]
    swap = status["last_swap"]
    return {
        "id": device,
        "frames": source["frames"],
        "dropped": source["dropped"],
        "dropped_by_swap": swap["dropped_by_swap"],
        "p50_ms": source["p50_ms"],
        "p99_ms": source["p99_ms"],
        "p99_ms_during_swap": swap["p99_ms"],
        "running": status["model"]["version"],
    }


def mb(figures: dict[str, Any]) -> str:
    """Return a bundle's size for people."""
    return f"{figures['size_bytes'] / 1e6:.1f} MB"


def print_tables(summary: dict[str, Any]) -> None:
    """Print the summary as people read it."""
    for title, rows in (
        ("Bundles", [{"version": version, **row} for version, row in summary["bundles"].items()]),
        ("Devices, after the swap to v2", summary["devices"]),
        ("Rollouts", [{"version": version, **row} for version, row in summary["rollouts"].items()]),
        ("Refused", [{"by": by, **row} for by, row in summary["refused"].items()]),
        ("Resumed", [summary["resumed"]]),
    ):
        table = Table(title=f"\n{title}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for column in rows[0]:
            numeric = not isinstance(rows[0][column], str)
            table.add_column(column.replace("_", " "), justify="right" if numeric else "left", no_wrap=column in SHORT)
        for row in rows:
            table.add_row(*(f"{cell:,.3f}" if isinstance(cell, float) else str(cell) for cell in row.values()))
        console.print(table)


def play(demo: Demo) -> None:
    """Play all scenes, and write the summary."""
    bundles = build_scene(demo)
    start_fleet(demo)
    rollout_scene(demo, bundles)
    resume_scene(demo, bundles)
    attack_scene(demo, bundles)
    demo.summary["seconds"] = round(time.monotonic() - demo.started, 1)
    SUMMARY.write_text(json.dumps(demo.summary, indent=2) + "\n")
    print_tables(demo.summary)
    demo.say(f"wrote {SUMMARY.relative_to(ROOT)}")


def leave_running(demo: Demo) -> None:
    """Say where the page is, and wait for Ctrl-C."""
    page = demo.fleet("page").stdout.strip()
    console.print(f"\nThe fleet goes on running. Its page: {page}\nCtrl-C ends it.", highlight=False)
    signal.pause()


def main(arguments: Sequence[str]) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end")
    options = parser.parse_args(arguments)
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    SUMMARY.unlink(missing_ok=True)
    fetched = subprocess.run(
        [sys.executable, ROOT / "tools" / "assets.py", "--json"], stdout=subprocess.PIPE, check=True, text=True
    )
    demo = Demo(json.loads(fetched.stdout))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        play(demo)
        if options.keep:
            leave_running(demo)
    except DemoError as error:
        console.print(f"\n[bold red]error:[/] {error}\n\nhint: the logs are in {RUN.relative_to(ROOT)}/", markup=True)
        return 1
    except KeyboardInterrupt:
        return 0 if SUMMARY.exists() else 130
    finally:
        for service in reversed(demo.services.values()):
            service.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
