"""Where pictures come from: a video file, or a folder of images.

A source is named like a media fragment: `street.avi#t=10,30&loop` is the part from second 10 to second 30, again and
again; `photos#fps=2` is a folder at two pictures a second.

Source: the fragment syntax is that of W3C Media Fragments URI 1.0 (`t=`), with `loop` and `fps=` of our own.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ommatid.errors import BadInputError, SourceError

Picture = NDArray[np.uint8]
"""uint8 (height, width, 3), blue first."""

DEFAULT_VIDEO_FPS: Final = 25.0
DEFAULT_FOLDER_FPS: Final = 10.0
HIGHEST_FPS: Final = 1000.0
IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source as its text names it; `end_s` None means to the end, `fps` None means its own rate."""

    path: Path
    start_s: float = 0.0
    end_s: float | None = None
    loop: bool = False
    fps: float | None = None


class Source(Protocol):
    """An open source. One thread uses it."""

    fps: float

    def read(self) -> Picture | None:
        """Return the next picture, or None after the last.

        Raises:
            SourceError: No picture can be read any more.
        """
        ...

    def close(self) -> None:
        """Release what is open."""
        ...


def parse_source(text: str) -> SourceSpec:
    """Read `PATH[#t=START,END][&loop][&fps=RATE]`.

    Raises:
        BadInputError: The fragment says something else.
    """
    path, mark, fragment = text.partition("#")
    spec = SourceSpec(Path(path))
    if not path:
        raise BadInputError(f"source {text!r}: no path", hint="name a video file or a folder of images")
    if "://" in path:
        raise BadInputError(
            f"source {text!r}: streams are not read by this release",
            hint="name a video file or a folder of images",
        )
    for part in fragment.split("&") if mark else ():
        spec = _with_part(spec, part, text)
    return spec


def open_source(spec: SourceSpec) -> Source:
    """Open a video file or an image folder.

    Raises:
        SourceError: There is nothing there, or nothing that decodes.
    """
    if spec.path.is_dir():
        return FolderSource(spec)
    if not spec.path.exists():
        raise SourceError(f"{spec.path}: no such file or folder", hint="name a video file or a folder of images")
    return FileSource(spec)


class FileSource:
    """A video file, or the part of one."""

    def __init__(self, spec: SourceSpec) -> None:
        """Open the file and go to the first picture of the part.

        Raises:
            SourceError: It is not a video.
        """
        self._spec = spec
        self._capture = self._opened()
        own = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = spec.fps or (own if math.isfinite(own) and 0 < own <= HIGHEST_FPS else DEFAULT_VIDEO_FPS)
        rate = own if math.isfinite(own) and own > 0 else self.fps
        self._first = round(spec.start_s * rate)
        self._end = None if spec.end_s is None else round(spec.end_s * rate)
        self._next = 0
        self._rewind()

    def read(self) -> Picture | None:
        """Return the next picture; after the last the first again, or None without `loop`."""
        picture = self._decoded()
        if picture is not None or not self._spec.loop:
            return picture
        self._rewind()
        picture = self._decoded()
        if picture is None:
            raise SourceError(f"{self._spec.path}: no picture after going back to the start")
        return picture

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def _opened(self) -> cv2.VideoCapture:
        with _cv2_errors(self._spec.path):
            capture = cv2.VideoCapture(str(self._spec.path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SourceError(
                f"{self._spec.path}: not a video that can be decoded", hint="`ffmpeg -i FILE` says what is in it"
            )
        return capture

    def _decoded(self) -> Picture | None:
        if self._end is not None and self._next >= self._end:
            return None
        with _cv2_errors(self._spec.path):
            ok, picture = self._capture.read()
        if not ok:
            return None
        self._next += 1
        return cast("Picture", picture)

    def _rewind(self) -> None:
        """Go to the first picture: by seeking where the file can, else by reading up to it."""
        with _cv2_errors(self._spec.path):
            if self._first or self._next:
                self._capture.set(cv2.CAP_PROP_POS_FRAMES, self._first)
            if round(self._capture.get(cv2.CAP_PROP_POS_FRAMES)) != self._first:
                self._capture.release()
                self._capture = self._opened()
                for _ in range(self._first):
                    if not self._capture.grab():
                        break
        self._next = self._first


class FolderSource:
    """The images of a folder in the order of their names; what does not decode is passed over."""

    def __init__(self, spec: SourceSpec) -> None:
        """List the images.

        Raises:
            SourceError: There is none.
        """
        self.fps = spec.fps or DEFAULT_FOLDER_FPS
        images = sorted(path for path in spec.path.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        end = None if spec.end_s is None else round(spec.end_s * self.fps)
        self._images = images[round(spec.start_s * self.fps) : end]
        self._loop = spec.loop
        self._place = 0
        if not self._images:
            raise SourceError(f"{spec.path}: no image found", hint="looked for jpg, png, bmp and webp files")
        self._folder = spec.path

    def read(self) -> Picture | None:
        """Return the next image; after the last the first again, or None without `loop`."""
        for _ in range(len(self._images)):
            if self._place >= len(self._images):
                if not self._loop:
                    return None
                self._place = 0
            path = self._images[self._place]
            self._place += 1
            with _cv2_errors(path):
                picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is not None:
                return cast("Picture", picture)
        if self._place >= len(self._images) and not self._loop:
            return None
        raise SourceError(f"{self._folder}: none of {len(self._images)} images can be decoded")

    def close(self) -> None:
        """Do nothing: no image stays open."""


def _with_part(spec: SourceSpec, part: str, text: str) -> SourceSpec:
    name, _, value = part.partition("=")
    try:
        match name:
            case "loop" if part == "loop":
                return SourceSpec(spec.path, spec.start_s, spec.end_s, loop=True, fps=spec.fps)
            case "t":
                start, end = _interval(value)
                return SourceSpec(spec.path, start, end, spec.loop, spec.fps)
            case "fps":
                return SourceSpec(spec.path, spec.start_s, spec.end_s, spec.loop, _rate(value))
            case _:
                raise ValueError("not one of t=START,END, loop and fps=RATE")
    except ValueError as error:
        raise BadInputError(f"source {text!r}: {part!r}: {error}", hint="as in `street.avi#t=10,30&loop`") from error


def _interval(value: str) -> tuple[float, float | None]:
    start_text, _, end_text = value.partition(",")
    start, end = float(start_text or 0), float(end_text) if end_text else None
    if not (math.isfinite(start) and start >= 0 and (end is None or (math.isfinite(end) and end > start))):
        raise ValueError("the end must come after the start")
    return start, end


def _rate(value: str) -> float:
    rate = float(value)
    if not 0 < rate <= HIGHEST_FPS:
        raise ValueError(f"a rate lies between 0 and {HIGHEST_FPS:g}")
    return rate


@contextmanager
def _cv2_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except cv2.error as error:
        raise SourceError(f"{path}: cannot be decoded: {error}") from error
