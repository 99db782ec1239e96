"""Look at everything that a device needs, and say in one line each what is well and what is not."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal
from urllib.parse import urljoin

import httpx
from cryptography import x509

from agent.app import DeviceTrust, runtime_versions
from agent.clock import Clock
from agent.identity import Identity, now_utc
from agent.server_errors import answered, unreachable
from agent.settings import Settings
from agent.standalone import check_runtime, check_source
from agent.status import read_status, running_address
from agent.update.slots import SlotLinks
from agent.update.store import Store
from ommatid.backoff import Backoff
from ommatid.contract.trust.clock import BUILD_DATE
from ommatid.disk import Disk
from ommatid.errors import LinkError, OmmatidError, SourceError, StorageError
from ommatid.mqtt import Session

LEAST_FREE_BYTES: Final = 64 * 1024 * 1024
GOOD_FREE_BYTES: Final = 512 * 1024 * 1024
BROKER_TIMEOUT_S: Final = 10.0
SOON_DAYS: Final = 14

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one thing."""

    name: str
    verdict: Verdict
    text: str
    hint: str | None = None


def examine(settings: Settings, disk: Disk, clock: Clock) -> Iterator[Check]:
    """Make every check, one after the other; none changes anything."""
    yield _guarded("state directory", lambda: _state_dir(settings, disk))
    yield _guarded("disk space", lambda: _free(settings))
    for name in ("onnx", "tflite"):
        yield _guarded(f"runtime {name}", partial(_runtime, name))
    yield _guarded("source", lambda: _source(settings))
    yield _guarded("model", lambda: _model(settings, disk))
    try:
        identity = Identity.load(settings.state_dir)
    except OmmatidError as error:
        yield Check("identity", "fail", str(error), error.hint)
        return
    if identity is None:
        yield Check("identity", "warn", "not enrolled", "`edge-agent enroll --token-file FILE` makes it a member")
        return
    yield _guarded("identity", lambda: _certificate(identity, clock))
    yield _guarded("clock", lambda: _clock(identity, settings, disk, clock))
    yield _guarded("server", lambda: _server(identity))
    yield _guarded("broker", lambda: _broker(identity, settings, disk))


def _guarded(name: str, check: Callable[[], tuple[Verdict, str]]) -> Check:
    try:
        verdict, text = check()
    except OmmatidError as error:
        return Check(name, "fail", str(error), error.hint)
    except OSError as error:
        return Check(name, "fail", str(error))
    return Check(name, verdict, text)


def _state_dir(settings: Settings, disk: Disk) -> tuple[Verdict, str]:
    if not settings.state_dir.is_dir():
        raise StorageError(f"{settings.state_dir}: no such folder", hint="`edge-agent enroll` makes it")
    trace = settings.state_dir / f".doctor.{os.getpid()}"
    try:
        disk.write(trace, b"x" * 4096)
        disk.sync(trace)
    finally:
        disk.unlink(trace)
    return "ok", f"{settings.state_dir} can be written"


def _free(settings: Settings) -> tuple[Verdict, str]:
    folder = settings.state_dir if settings.state_dir.is_dir() else settings.state_dir.parent
    free = shutil.disk_usage(folder).free
    verdict: Verdict = "ok" if free >= GOOD_FREE_BYTES else "warn" if free >= LEAST_FREE_BYTES else "fail"
    return verdict, f"{free // 1_000_000} MB free"


def _runtime(name: str) -> tuple[Verdict, str]:
    package = "onnxruntime" if name == "onnx" else "lite"
    if not any(package in installed for installed in runtime_versions()):
        return "warn", f"not installed; {name} models do not run here"
    return "ok", f"{check_runtime(name)} ran a model"


def _source(settings: Settings) -> tuple[Verdict, str]:
    if settings.source is None:
        return "warn", "no source is set"
    try:
        return "ok", f"{settings.source}: {check_source(settings.source)}"
    except SourceError as error:
        raise SourceError(f"{settings.source}: {error}", hint=error.hint) from error


def _model(settings: Settings, disk: Disk) -> tuple[Verdict, str]:
    slots, store = SlotLinks(settings.state_dir, disk), Store(settings.state_dir, disk)
    running = slots.running
    if running is None:
        return "warn", "no model yet"
    if not store.is_whole(running):
        return "fail", f"{running[:12]}: the model that the loop starts with is damaged"
    release = store.release(running)
    return "ok", f"{release.model} {release.version}, every file as signed"


def _certificate(identity: Identity, clock: Clock) -> tuple[Verdict, str]:
    certificate = x509.load_pem_x509_certificate(identity.files.certificate.read_bytes())
    left = certificate.not_valid_after_utc - max(now_utc(clock.wall_s()), BUILD_DATE)
    text = f"{identity.enrolment.device} of {identity.enrolment.tenant}, certificate ends in {left.days} days"
    if left.days < 0:
        return "warn", f"{text}; the agent will renew it"
    return ("warn" if left.days < SOON_DAYS else "ok"), text


def _clock(identity: Identity, settings: Settings, disk: Disk, clock: Clock) -> tuple[Verdict, str]:
    with identity.http_client() as client:
        floor = DeviceTrust(identity, settings.state_dir, disk, client, clock).time_floor()
    now = now_utc(clock.wall_s())
    if now < floor:
        return "warn", f"{now:%Y-%m-%d %H:%M} is before {floor:%Y-%m-%d}; updates still work, timestamps are wrong"
    return "ok", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, trust metadata starts from {floor:%Y-%m-%d}"


def _server(identity: Identity) -> tuple[Verdict, str]:
    enrolment = identity.enrolment
    url = urljoin(enrolment.url, f"/v1/director/{enrolment.device}.json")
    try:
        with identity.http_client() as client:
            answer = client.get(url, headers=identity.bearer())
    except httpx.HTTPError as error:
        raise unreachable(enrolment.url, error) from error
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise LinkError(
            f"{enrolment.url} refuses {enrolment.device}: it was revoked, or the server does not know it",
            hint=f"if it shall belong to the fleet, remove {identity.files.path} and enrol it with a new token",
        )
    if answer.status_code != httpx.codes.NOT_FOUND:  # it knows this device, and nothing is decided for it yet
        answered(answer)
    return "ok", f"{enrolment.url} answers with the pinned CA, and knows {enrolment.device}"


def _broker(identity: Identity, settings: Settings, disk: Disk) -> tuple[Verdict, str]:
    broker = identity.broker
    if running_address(settings.state_dir) is not None:
        # A second connection of this identity would end the agent's own.
        connected = read_status(settings.state_dir, disk).connected
        return ("ok" if connected else "fail"), f"{broker}: the running agent is {'' if connected else 'not '}connected"
    settled, reasons = threading.Event(), list[str]()

    def failed(reason: str) -> None:
        reasons.append(reason)
        settled.set()

    session = Session(
        broker,
        identity.enrolment.device,
        on_connected=settled.set,
        on_disconnected=failed,
        backoff=Backoff(first_s=BROKER_TIMEOUT_S),
    )
    session.start()
    settled.wait(BROKER_TIMEOUT_S)
    connected = session.connected
    session.stop()
    if not connected:
        why = reasons[0] if reasons else f"no answer in {BROKER_TIMEOUT_S:g} s"
        raise LinkError(
            f"{broker}: {why}",
            hint="is the broker running, does the network let this device reach it, and was the device not revoked?",
        )
    return "ok", f"{broker} accepts this device's certificate"
