"""The models that the loop holds: the active one, one loaded for `swap`, and the one before for `back`.

The inference thread alone changes the active model, in `turn`, between two frames; so a frame is seen by exactly one
model. Loading and freeing happen on the worker thread.
"""

import ctypes
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ommatid.errors import OmmatidError
from ommatid.runtime.model import Model
from ommatid.vision.reference import ReferenceProfile

logger = logging.getLogger(__name__)


class NothingLoadedError(OmmatidError):
    """There is no model to swap to."""


class NothingBeforeError(OmmatidError):
    """There is no swap to go back from."""


class LoadingError(OmmatidError):
    """One model is being loaded already."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model that is warm, with what else the loop needs of its bundle."""

    digest: str
    model: Model
    reference: ReferenceProfile | None = None


@dataclass(frozen=True, slots=True)
class Turned:
    """The active model was changed, from `previous` to `digest`; `back` undid a swap."""

    digest: str | None
    previous: str | None
    back: bool


Done: TypeAlias = Callable[[Exception | None], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Before:
    """What ran before the last swap; nothing, where the swap brought the first model."""

    held: LoadedModel | None


class Slots:
    """Safe between the inference thread, the worker and whoever asks."""

    def __init__(self, active: LoadedModel | None = None) -> None:
        """Start with the model that the loop found in its slots."""
        self._lock = threading.Lock()
        self._active = active
        self._loaded: LoadedModel | None = None
        self._before: _Before | None = None
        self._unused: list[LoadedModel] = []
        self._wanted: list[tuple[Literal["swap", "back"], Done]] = []

    @property
    def active(self) -> LoadedModel | None:
        """Return the model that sees the frames."""
        return self._active

    def digests(self) -> tuple[str | None, str | None, str | None]:
        """Return the digests of the active, the loaded and the previous model."""
        with self._lock:
            before = self._before.held if self._before else None
            return _digest(self._active), _digest(self._loaded), _digest(before)

    def start_with(self, model: LoadedModel | None) -> None:
        """Make `model` the active one, before the first frame."""
        with self._lock:
            self._active = model

    def offer(self, model: LoadedModel) -> None:
        """Keep a loaded model for `swap`, in place of one that was loaded before."""
        with self._lock:
            self._discard(self._loaded)
            self._loaded = model

    def want(self, order: Literal["swap", "back"], done: Done) -> None:
        """Ask for a change at the next `turn`; `done` is called there, with the error if it cannot be."""
        with self._lock:
            self._wanted.append((order, done))

    def turn(self) -> Turned | None:
        """Do what was asked for, between two frames; return what changed."""
        if not self._wanted:
            return None
        with self._lock:
            order, done = self._wanted.pop(0)
            turned: Turned | OmmatidError = self._swap() if order == "swap" else self._back()
        if isinstance(turned, OmmatidError):
            done(turned)
            return None
        logger.info("%s: %s -> %s", order, turned.previous, turned.digest)
        done(None)
        return turned

    def drop(self) -> None:
        """Forget the loaded and the previous model; only the active one stays."""
        with self._lock:
            self._discard(self._loaded)
            self._discard(self._before.held if self._before else None)
            self._loaded = self._before = None

    def free(self) -> None:
        """Give the memory of all forgotten models back to the system; call it on the worker thread."""
        with self._lock:
            unused, self._unused = self._unused, []
        for held in unused:
            held.model.close()
        if unused:
            del unused, held
            trim_memory()

    def _swap(self) -> Turned | OmmatidError:
        if self._loaded is None:
            return NothingLoadedError("no model is loaded", hint="`load` comes before `swap`")
        if self._before is not None:
            self._discard(self._before.held)
        self._before = _Before(self._active)
        self._active, self._loaded = self._loaded, None
        return Turned(_digest(self._active), _digest(self._before.held), back=False)

    def _back(self) -> Turned | OmmatidError:
        if self._before is None:
            return NothingBeforeError("no swap to go back from, or the model before was dropped")
        left, self._active, self._before = self._active, self._before.held, None
        self._discard(left)
        return Turned(_digest(self._active), _digest(left), back=True)

    def _discard(self, held: LoadedModel | None) -> None:
        if held is not None:
            self._unused.append(held)


def trim_memory() -> None:
    """Give freed pages back: the C library keeps those of a closed model."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc alone has it
        trim(0)


def read_reference(path: Path | None) -> ReferenceProfile | None:
    """Read a bundle's quality profile; without one the frames are judged by the camera's own baseline alone."""
    if path is None:
        return None
    try:
        return ReferenceProfile.decode(path.read_bytes())
    except (OSError, ValueError) as error:
        logger.warning("%s: %s", path, error)
        return None


def _digest(held: LoadedModel | None) -> str | None:
    return None if held is None else held.digest
