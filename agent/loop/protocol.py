"""What is said over the loop's Unix socket: one JSON object a line.

The supervisor sends orders, the loop answers each by its number, in the order of completion, and pushes what happens
by itself. Standard library only: the supervisor reads the same classes, and the loop loads no pydantic.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, TypeAlias, TypeVar

from ommatid.errors import MessageError, OmmatidError

MAX_LINE_BYTES: Final = 256 * 1024
"""No line of ours comes near; whoever sends a longer one is cut off."""

OrderName: TypeAlias = Literal["load", "swap", "back", "drop", "status"]
ORDERS: Final[tuple[OrderName, ...]] = ("load", "swap", "back", "drop", "status")
SourceState: TypeAlias = Literal["starting", "running", "down", "ended"]
Slot: TypeAlias = Literal["current", "previous"]


@dataclass(frozen=True, slots=True)
class Order:
    """One thing that the supervisor wants done."""

    number: int
    name: OrderName
    folder: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class FoundObject:
    """One detection or one class of a classification, which has no place."""

    label: str
    confidence: float
    xyxy: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class FramePush:
    """What came of one frame.

    captured_at_ms: wall clock, since 1970; may be wrong where the device has no clock.
    latency_ms: from the moment that the loop took the frame to its result.
    age_ms: from capture to result.
    digest: the model that saw it; None when there is no model.
    quality_state: what is known of the frame: ok, flagged, learning, unsupported; None when it was not judged.
    quality: the signals of the quality checks by name; `flags` are the reasons why the frame is flagged.
    frames, dropped: of this source, since the loop started; a dropped frame was read by nobody.
    error: why there is no result, when the model failed on this frame.
    """

    source: str
    index: int
    captured_at_ms: int
    latency_ms: float
    age_ms: float
    frames: int
    dropped: int
    digest: str | None = None
    width: int = 0
    height: int = 0
    quality_state: str | None = None
    quality: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    objects: tuple[FoundObject, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SwappedPush:
    """What a swap cost, from the start of loading to one second after the swap; sent then.

    frames: inferred in that time. dropped: read by nobody in that time.
    dropped_by_swap: the same, beyond the steady rate of the minute before.
    back: the swap went back to the model from before.
    """

    digest: str | None
    previous: str | None
    load_ms: float
    frames: int
    dropped: int
    dropped_by_swap: int
    p99_ms: float
    back: bool = False


@dataclass(frozen=True, slots=True)
class SourcePush:
    """A source changed its state."""

    name: str
    state: SourceState
    reason: str = ""


Push: TypeAlias = FramePush | SwappedPush | SourcePush


@dataclass(frozen=True, slots=True)
class SourceFigures:
    """One source as it is now; times are over the last frames, in ms."""

    name: str
    state: SourceState
    reason: str
    frames: int
    dropped: int
    errors: int
    fps: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    age_p50_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The answer to `status`.

    active, loaded, previous: digests; `loaded` waits for `swap`, `previous` for `back`.
    slot: which slot the loop started from; None when it found no model that loads.
    error, reason: class and text of what was wrong with the slots at start.
    pushes_lost: pushes that were dropped because the supervisor did not read them.
    """

    uptime_s: float
    active: str | None
    loaded: str | None
    previous: str | None
    loading: bool
    slot: Slot | None
    error: str | None
    reason: str | None
    frames: int
    errors: int
    pushes_lost: int
    last_frame_ms_ago: float | None
    sources: tuple[SourceFigures, ...]
    last_swap: SwappedPush | None = None


def encode_order(order: Order) -> bytes:
    """Return the line of an order."""
    document: dict[str, Any] = {"id": order.number, "order": order.name}
    if order.name == "load":
        document |= {"folder": order.folder, "digest": order.digest}
    return _line(document)


def decode_order(line: bytes) -> Order:
    """Read the line of an order.

    Raises:
        MessageError: It is not an order; nothing was done.
    """
    document = decode_object(line)
    number, name = document.get("id"), document.get("order")
    if not isinstance(number, int) or isinstance(number, bool):
        raise MessageError("an order without an `id` number")
    for known in ORDERS:
        if name == known:
            folder, digest = document.get("folder", ""), document.get("digest", "")
            if not isinstance(folder, str) or not isinstance(digest, str):
                raise MessageError("an order whose `folder` or `digest` is not text")
            return Order(number, known, folder, digest)
    raise MessageError(f"an unknown order {str(name)[:40]!r}; known are {', '.join(ORDERS)}")


def encode_answer(number: int, result: Mapping[str, Any]) -> bytes:
    """Return the line that says that order `number` was done."""
    return _line({"answer": number, "ok": True, **result})


def encode_refusal(number: int | None, error: Exception) -> bytes:
    """Return the line that says why an order was not done."""
    hint = error.hint if isinstance(error, OmmatidError) else None
    return _line({"answer": number, "ok": False, "error": type(error).__name__, "reason": str(error), "hint": hint})


def encode_push(push: Push) -> bytes:
    """Return the line of a push; a frame's is written by hand, because there are many."""
    if isinstance(push, FramePush):
        return _line(_frame_document(push))
    kind = "swapped" if isinstance(push, SwappedPush) else "source"
    return _line({"push": kind, **asdict(push)})


def status_document(status: Status) -> dict[str, Any]:
    """Return a status as the plain values of an answer."""
    return asdict(status)


def decode_push(document: Mapping[str, Any]) -> Push:
    """Read a push; unknown fields are ignored.

    Raises:
        MessageError: It is not a push that this release knows.
    """
    try:
        match document.get("push"):
            case "frame":
                return _frame_push(document)
            case "swapped":
                return SwappedPush(**_known(SwappedPush, document))
            case "source":
                return SourcePush(**_known(SourcePush, document))
            case kind:
                raise MessageError(f"an unknown push {str(kind)[:40]!r}")
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise MessageError(f"a push that is not whole: {error}") from error


def decode_status(document: Mapping[str, Any]) -> Status:
    """Read the answer to `status`.

    Raises:
        MessageError: It is not one.
    """
    try:
        known = _known(Status, document)
        known["sources"] = tuple(SourceFigures(**_known(SourceFigures, source)) for source in known["sources"])
        swap = known.get("last_swap")
        known["last_swap"] = SwappedPush(**_known(SwappedPush, swap)) if swap else None
        return Status(**known)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise MessageError(f"a status that is not whole: {error}") from error


def decode_object(line: bytes) -> dict[str, Any]:
    """Read one line as a JSON object.

    Raises:
        MessageError: It is not one.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"a line is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise MessageError("a line is JSON, but not an object")
    return document


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _frame_document(push: FramePush) -> dict[str, Any]:
    document: dict[str, Any] = {
        "push": "frame",
        "source": push.source,
        "index": push.index,
        "captured_at_ms": push.captured_at_ms,
        "latency_ms": round(push.latency_ms, 3),
        "age_ms": round(push.age_ms, 3),
        "frames": push.frames,
        "dropped": push.dropped,
        "digest": push.digest,
        "width": push.width,
        "height": push.height,
        "objects": [
            {"label": found.label, "confidence": found.confidence, "xyxy": found.xyxy} for found in push.objects
        ],
    }
    if push.quality_state is not None:
        document["quality"] = {"state": push.quality_state, "flags": push.flags, **push.quality}
    if push.error is not None:
        document["error"] = push.error
    return document


def _frame_push(document: Mapping[str, Any]) -> FramePush:
    known = _known(FramePush, document)
    known["objects"] = tuple(
        FoundObject(found["label"], found["confidence"], tuple(found["xyxy"]) if found.get("xyxy") else None)
        for found in document.get("objects", ())
    )
    quality = dict(known.pop("quality", None) or {})
    if quality:
        known["quality_state"] = str(quality.pop("state"))
        known["flags"] = tuple(quality.pop("flags"))
        known["quality"] = quality
    return FramePush(**known)


K = TypeVar("K")


def _known(kind: type[K], document: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # every caller passes a dataclass
    return {name: value for name, value in document.items() if name in names}
