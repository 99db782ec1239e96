"""The messages between device and server: frozen, versioned, and tolerant of unknown fields.

JSON everywhere but for telemetry windows, which are CBOR. A report (hello, update, window, event) carries
(device, boot, seq) and is stored once; `Ack` says what is stored, and only then the device forgets it.
"""

import json
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ommatid.contract.digests import Sha256
from ommatid.contract.topics import IDENTIFIER
from ommatid.errors import MessageError

MAX_MESSAGE_BYTES = 256 * 1024
"""No message of ours comes near; a larger one is refused unread."""

Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER.pattern)]
Text = Annotated[str, StringConstraints(max_length=2000)]
MAX_COUNT = 2**53
"""What every JSON parser and every database can hold."""
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Ordinal = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Bin = Annotated[int, Field(ge=0, le=255)]
Moment = Annotated[int, Field(ge=-(2**100), le=2**100)]
"""A sum of fixed-point values over one window."""
MAX_SIGNALS = 64
"""Bounded, for CBOR can name one histogram ten thousand times in a few bytes each."""
BootId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Message(BaseModel):
    """A received message: unknown fields are ignored, so that neighbouring releases understand each other."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    v: Literal[1] = 1


class UpdateState(StrEnum):
    """Where an update of one model stands; stored and fsynced before it is acted on."""

    IDLE = "idle"
    OFFERED = "offered"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    TRIAL = "trial"
    LOADED = "loaded"
    SHADOW = "shadow"
    PROBATION = "probation"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Tell whether the update has ended, well or badly."""
        return self in _FINAL


_FINAL = frozenset(
    {UpdateState.IDLE, UpdateState.COMMITTED, UpdateState.ROLLED_BACK, UpdateState.REFUSED, UpdateState.FAILED}
)


class ModelRef(Message):
    """One release of a model, as it runs or shall run."""

    name: Text
    version: Text
    target: Text
    digest: Sha256
    release_counter: Count


MAX_IN_FLIGHT = 64
"""So many reports of a device may be numbered and not yet acknowledged at once.

A server that sees `seq` therefore knows that the device has forgotten everything up to `seq - MAX_IN_FLIGHT`: one that
was restored from an old backup does not wait for ever for what it once acknowledged.
"""


class Report(Message):
    """What every report carries; (device, boot, seq) is its identity."""

    boot: BootId
    seq: Ordinal
    uptime_s: float = Field(ge=0, allow_inf_nan=False, description="monotonic, since the supervisor started")
    sent_at: Text = Field(description="the device's own clock, RFC 3339; may be wrong")


class Hello(Report):
    """The first report of each connection: the facts that rollouts select on. Channel `reported`."""

    kind: Literal["hello"] = "hello"
    agent: Text
    arch: Text
    runtimes: dict[str, str] = Field(default_factory=dict, description="runtime name -> version")
    memory_bytes: Count = 0
    tags: tuple[Text, ...] = ()
    models: tuple[ModelRef, ...] = ()
    desired_rev: Count = Field(0, description="the newest director document accepted")


class UpdateReport(Report):
    """One change of state of one update. Channel `reported`."""

    kind: Literal["update"] = "update"
    desired_rev: Count
    model: ModelRef
    state: UpdateState
    attempt: Ordinal = 1
    error: Text | None = Field(None, description="class of the error, for a bad end")
    reason: Text | None = Field(None, description="one sentence for the operator")
    figures: dict[str, float] = Field(default_factory=dict, description="measurements of this step, units in names")


class Refusal(Report):
    """A desired document that was refused whole, with the class of the error. Channel `reported`."""

    kind: Literal["refusal"] = "refusal"
    error: Text
    reason: Text


class Event(Report):
    """Something an operator would want to know: source down, quality alarm. Channel `event`."""

    kind: Literal["event"] = "event"
    name: Text
    severity: Literal["info", "warning", "error"]
    text: Text
    source: Text | None = None


class Histogram(BaseModel):
    """A signal in fixed bins, with exact moments; merging is addition in any order.

    Sums are integers of fixed-point values (value * 2**16), so that addition is exact and associative.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    bins: Text = Field(description="id of the bin specification; fixed for ever for one signal")
    counts: dict[Bin, Ordinal] = Field(description="sparse: bin index 0..255 -> frames")
    n: Count
    sum_q16: Moment
    sum_squares_q16: Moment = Field(ge=0)
    min: float | None = None
    max: float | None = None


class Window(Report):
    """Telemetry of one source over one window. Channel `window`, CBOR."""

    kind: Literal["window"] = "window"
    source: Text
    model: ModelRef | None = None
    started_at: Text
    duration_s: float = Field(ge=0.001, le=1e9, allow_inf_nan=False)
    frames: Count
    dropped: Count
    flagged: Count = Field(0, description="frames that failed a quality check")
    signals: dict[str, Histogram] = Field(default_factory=dict, max_length=MAX_SIGNALS)
    classes: dict[str, Ordinal] = Field(default_factory=dict, description="label -> detections")


class SourceStatus(Message):
    """One camera, as it is now."""

    name: Text
    state: Literal["starting", "running", "down", "ended"]
    fps: float = Field(0, ge=0, le=1e6, allow_inf_nan=False, description="frames inferred a second")
    frames: Count = 0
    dropped: Count = 0
    p50_ms: float | None = Field(None, description="inference with pre- and post-processing")
    p99_ms: float | None = None
    quality: Literal["ok", "flagged", "learning", "unsupported"] = "learning"
    quality_reasons: tuple[Text, ...] = ()
    brightness: float | None = None
    sharpness: float | None = None


class SwapFigures(Message):
    """What a swap cost, from the start of loading to one second after it."""

    digest: Sha256
    load_ms: float
    frames: Count
    dropped: Count = Field(description="frames nobody read in that time")
    dropped_by_swap: Count = Field(description="the same, beyond the steady rate")
    p99_ms: float


class State(Message):
    """What the device is doing now: retained, replaced, and the last will. Not a report, never spooled."""

    online: bool
    sent_at: Text | None = None
    uptime_s: float = 0
    agent: Text | None = None
    model: ModelRef | None = None
    update: UpdateState = UpdateState.IDLE
    sources: tuple[SourceStatus, ...] = ()
    last_swap: SwapFigures | None = None
    spool: Count = Field(0, description="reports not yet acknowledged")


class Ack(Message):
    """All reports of this boot up to and with `seq` are stored."""

    boot: BootId
    seq: Ordinal


M = TypeVar("M", bound=Message)

REPORTS: dict[str, type[Report]] = {
    "hello": Hello,
    "update": UpdateReport,
    "refusal": Refusal,
    "event": Event,
    "window": Window,
}


def encode(message: Message) -> bytes:
    """Return a message as compact JSON."""
    return message.model_dump_json(exclude_none=True).encode()


def decode(payload: bytes, kind: type[M]) -> M:
    """Read a JSON message.

    Raises:
        MessageError: It is too large, not JSON, or not a message of this kind.
    """
    return validate(_json_object(payload), kind)


def decode_report(payload: bytes) -> Report:
    """Read a JSON report of any kind.

    Raises:
        MessageError: It is too large, not JSON, or of a kind that this release does not know.
    """
    document = _json_object(payload)
    kind = REPORTS.get(str(document.get("kind")))
    if kind is None:
        raise MessageError(f"a report of unknown kind {str(document.get('kind'))[:40]!r}")
    return validate(document, kind)


def validate(document: dict[str, Any], kind: type[M]) -> M:
    """Check a decoded document against a message class.

    Raises:
        MessageError: A field is missing or out of range; the first such field is named.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MessageError(f"{kind.__name__}: {place}: {first['msg']}") from error


def _json_object(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MessageError(f"a message of {len(payload)} bytes; at most {MAX_MESSAGE_BYTES} are read")
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"a message is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise MessageError("a message is JSON, but not an object")
    return document
