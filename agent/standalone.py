"""Run one bundle without any server: verified, tried, and put into the slot that the loop starts from."""

import json
import logging
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

from agent.app import hold_trial
from agent.identity import Identity
from agent.settings import Settings
from agent.trial.errors import TrialError
from agent.update.release import Release
from agent.update.slots import SlotLinks
from agent.update.store import Store
from ommatid.contract.bundle import verify_bundle
from ommatid.contract.digests import sha256_file
from ommatid.disk import Disk
from ommatid.errors import BackendError, BadInputError, SourceError

PROBE_TIMEOUT_S: Final = 30.0

logger = logging.getLogger(__name__)


class RefusedModelError(TrialError):
    """The trial refused a model; its own class is in the message."""


def install_bundle(bundle: Path, settings: Settings, disk: Disk) -> Release:
    """Make `bundle` the model that the loop of this state directory starts with.

    Raises:
        BundleError: It is damaged, altered, or not a bundle; nothing is installed.
        BadInputError: It is not there, was built for another machine, or this device belongs to a fleet.
        RefusedModelError: It fails its own golden samples here; the slots are as before.
        StorageError: The disk is full, read-only or broken.
    """
    root = settings.state_dir
    if Identity.load(root) is not None:
        raise BadInputError(
            f"{root}: this device belongs to a fleet, which decides what it runs",
            hint="name another --state-dir, or none at all, to run a bundle without the fleet",
        )
    manifest = verify_bundle(bundle)
    if platform.machine() not in manifest.compatible.arch:
        raise BadInputError(
            f"{bundle}: built for {', '.join(manifest.compatible.arch)}; this machine is {platform.machine()}",
            hint="build it for this machine: `optimizer build … --target …`",
        )
    release = Release(
        path=f"{manifest.name}/{manifest.bundle_name}",
        length=bundle.stat().st_size,
        sha256=sha256_file(bundle),
        model=manifest.name,
        version=manifest.version,
        target=manifest.target,
        release_counter=0,
    )
    disk.mkdir(root)
    store, slots = Store(root, disk), SlotLinks(root, disk)
    store.prepare()
    slots.prepare()
    store.check_room(release)
    folder = store.install(bundle, release)
    verdict = hold_trial(settings, folder, None)
    if not verdict.passed:
        raise RefusedModelError(
            f"{bundle}: refused by its trial: {verdict.error}: {verdict.reason}",
            hint="this device does not compute what the builder computed; build the bundle again for this target",
        )
    slots.stand_by(release.model, release.sha256)
    slots.promote(release.model, release.sha256, slots.of(release.model).current)
    logger.info("%s %s: passed its trial", release.model, release.version)
    return release


def check_source(source: str) -> str:
    """Open a source once, in a process of its own, and take one picture from it; return its size.

    Raises:
        SourceError: It gives none; the reader's own words are passed on.
    """
    answer = probe("source", source)
    if answer["error"] is not None:
        raise SourceError(f"{answer['reason']}", hint=answer["hint"])
    return str(answer["reason"])


def check_runtime(name: str) -> str:
    """Run a tiny model on one runtime, in a process of its own; return the runtime's version.

    Raises:
        BackendError: It does not run here.
    """
    answer = probe("runtime", name)
    if answer["error"] is not None:
        raise BackendError(f"{answer['reason']}", hint=answer["hint"])
    return str(answer["reason"])


def probe(what: str, argument: str) -> dict[str, str | None]:
    """Ask `agent.probe`, which loads OpenCV and the runtimes, so that this process need not."""
    command = [sys.executable, "-m", "agent.probe", what, argument]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)  # noqa: S603 - our own module
    except subprocess.TimeoutExpired:
        return {"error": "TimeoutError", "reason": f"{argument}: no answer in {PROBE_TIMEOUT_S:g} s", "hint": None}
    try:
        answer: dict[str, str | None] = json.loads(result.stdout.strip().rpartition("\n")[2])
    except ValueError:
        reason = f"{argument}: the check died (exit {result.returncode}): {result.stderr.strip()[-300:]}"
        return {"error": "CrashError", "reason": reason, "hint": None}
    return answer
