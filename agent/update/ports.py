"""What the engine needs of the rest of the agent, as small protocols; agent.supervisor chooses the real ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from agent.update.release import Assigned, Release
from ommatid.contract.messages import ModelRef, UpdateState


class Clock(Protocol):
    """Time that never goes back."""

    def monotonic_s(self) -> float:
        """Return seconds since some fixed moment."""
        ...


class Trust(Protocol):
    """The trust rules and their floors: ommatid.contract.trust, told who this device is."""

    def check(self, document: bytes, /) -> Assigned | None:
        """Verify a director document against the release side; return what to run, or None to run what runs.

        Raises:
            TrustError: It is refused.
            LinkError: The release side cannot be reached.
        """
        ...

    def raise_counter_floor(self, model: str, counter: int, /) -> None:
        """Refuse releases of `model` below `counter` from now on; a lower counter than the floor changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """How a download went: bytes found on disk at its start, and bytes that came over the network."""

    bytes_before: int
    bytes_fetched: int


class Fetch(Protocol):
    """Get a bundle from the server."""

    def __call__(self, release: Release, part: Path, stopped: Callable[[], bool], /) -> Fetched:
        """Bring `part` to the signed length and digest, going on from what is there; give up when `stopped` says so.

        Raises:
            DownloadStoppedError: `stopped` said so; what was fetched is kept.
            BundleError: What the server has is not what was signed; nothing is kept.
            DownloadRefusedError: The server refuses; asking again would not help.
            LinkError: The server cannot be reached, after bounded retries; what was fetched is kept.
            StorageError: The disk is full, read-only or broken.
        """
        ...


class Verdict(Protocol):
    """How a trial ended."""

    @property
    def passed(self) -> bool:
        """Tell whether the model may meet the camera."""
        ...

    @property
    def error(self) -> str | None:
        """Return the class of what was wrong."""
        ...

    @property
    def reason(self) -> str | None:
        """Return one sentence for the operator."""
        ...

    @property
    def figures(self) -> Mapping[str, float]:
        """Return what was measured, units in the names."""
        ...


class Trial(Protocol):
    """Run a model away from the camera, in a process of its own, against its golden samples."""

    def __call__(self, candidate: Path, current: Path | None, /) -> Verdict:
        """Judge `candidate`, measured beside `current`; raise OmmatidError if no trial could be held."""
        ...


class LoopView(Protocol):
    """What the loop holds, by digest."""

    @property
    def active(self) -> str | None:
        """Return the model that sees the frames."""
        ...

    @property
    def loaded(self) -> str | None:
        """Return the model that waits for `swap`."""
        ...

    @property
    def previous(self) -> str | None:
        """Return the model that waits for `back`."""
        ...

    @property
    def loading(self) -> bool:
        """Tell whether a load is under way."""
        ...


class Loop(Protocol):
    """Orders to the loop. All raise LinkError when it is away, OrderRefusedError when it cannot."""

    def load(self, folder: Path, digest: str, /) -> float:
        """Load and warm up a model beside the running one; return the milliseconds that it took."""
        ...

    def swap(self) -> None:
        """Run the loaded model from the next frame on; keep the one before."""
        ...

    def back(self) -> None:
        """Run the model before from the next frame on."""
        ...

    def drop(self) -> None:
        """Forget all models but the running one."""
        ...

    def status(self) -> LoopView:
        """Return what the loop holds."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """One change of state, as it is reported."""

    desired_rev: int
    model: ModelRef
    state: UpdateState
    attempt: int = 1
    error: str | None = None
    reason: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


class Reporter(Protocol):
    """Where changes go; it keeps them until the server has them."""

    def update(self, change: Change, /) -> None:
        """Report one change of state."""
        ...

    def refusal(self, error: str, reason: str, /) -> None:
        """Report a director document that was refused whole."""
        ...

    def event(self, name: str, severity: Literal["info", "warning", "error"], text: str, /) -> None:
        """Report something that an operator would want to know."""
        ...
