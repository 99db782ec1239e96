"""Read the images a build learns from and is judged on: a folder, or a part of a video.

Which images are taken depends on their number alone, so a build repeated takes the same ones. They are kept in the
size the model sees; resizing again to that size changes nothing, and memory stays small.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np
from numpy.typing import NDArray

from ommatid.contract.digests import canonical_json, sha256_bytes, sha256_file
from ommatid.errors import BadInputError
from ommatid.vision.resize import Rule, plan
from optimizer.request import Sampling

Picture = NDArray[np.uint8]
"""uint8 (height, width, 3), blue first."""

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
DEFAULT_FPS: Final = 25.0


@dataclass(frozen=True, slots=True)
class Section:
    """A folder, or a video from `start_s` to `end_s`; None means to its end."""

    path: Path
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One image as it was read. `label` is the name of its class folder, if it lies in one."""

    bgr: Picture
    label: str | None = None


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images in the size the model sees, and a digest of what was taken from where."""

    pictures: tuple[Picture, ...]
    labels: tuple[str | None, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def labelled(self) -> bool:
        """Tell whether every image lies in a class folder."""
        return bool(self.labels) and all(label is not None for label in self.labels)


def parse_section(text: str) -> Section:
    """Read `PATH[#t=START,END]`, seconds as in W3C Media Fragments URI 1.0.

    Raises:
        BadInputError: The fragment says something else.
    """
    path, mark, fragment = text.partition("#")
    if not mark:
        return Section(Path(path))
    name, _, span = fragment.partition("=")
    start, _, end = span.partition(",")
    try:
        section = Section(Path(path), float(start or 0), float(end) if end else None)
    except ValueError:
        name = ""
        section = Section(Path(path))
    begins, ends = section.start_s, math.inf if section.end_s is None else section.end_s
    if name != "t" or not 0 <= begins < ends:
        raise BadInputError(f"`{text}`: not a part of a video", hint="write VIDEO#t=START,END in seconds: #t=0,30")
    return section


def load_images(
    text: str,
    sampling: Sampling,
    *,
    rule: Rule,
    input_size: tuple[int, int],
    watch: Callable[[Picture], object] = lambda _: None,
) -> ImageSet:
    """Read the chosen images of a folder or video, calling `watch` with each in its full size.

    Raises:
        BadInputError: There is none, or one does not decode.
    """
    section = parse_section(text)
    reader = _FolderReader(section, sampling) if section.path.is_dir() else _VideoReader(section, sampling)
    pictures, labels = [], []
    for frame in reader.frames():
        watch(frame.bgr)
        pictures.append(shrink(frame.bgr, rule, input_size))
        labels.append(frame.label)
    return ImageSet(tuple(pictures), tuple(labels), reader.sha256)


def shrink(bgr: Picture, rule: Rule, input_size: tuple[int, int]) -> Picture:
    """Return a picture as the device's resize makes it, without the border of a letterbox."""
    _, inner = plan(rule, (bgr.shape[1], bgr.shape[0]), input_size)
    if inner == (bgr.shape[1], bgr.shape[0]):
        return bgr.copy()
    return np.asarray(cv2.resize(bgr, inner, interpolation=cv2.INTER_LINEAR), np.uint8)


class _FolderReader:
    """Images of a folder and its sub-folders, by path."""

    def __init__(self, section: Section, sampling: Sampling) -> None:
        if section.start_s or section.end_s is not None:
            raise BadInputError(f"`{section.path}`: a folder has no seconds", hint="leave #t= out, or name a video")
        found = sorted(path for path in section.path.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            looked_for = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
            raise BadInputError(
                f"`{section.path}`: no image found (looked for {looked_for})",
                hint="about 100 images of what the camera will see are needed; name their folder or a video",
            )
        self._folder = section.path
        self._paths = [found[index] for index in sampling.positions(len(found))]
        names = [[path.relative_to(section.path).as_posix(), sha256_file(path)] for path in self._paths]
        self.sha256 = sha256_bytes(canonical_json(names))

    def frames(self) -> Iterator[Frame]:
        for path in self._paths:
            bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if bgr is None:
                raise BadInputError(f"`{path}`: not an image, or damaged", hint="remove it, or save it again")
            label = path.parent.name if path.parent != self._folder else None
            yield Frame(np.asarray(bgr, np.uint8), label)


class _VideoReader:
    """Frames of a video file, decoded from its start: seeking is not exact in every format."""

    def __init__(self, section: Section, sampling: Sampling) -> None:
        self._path = section.path
        if not section.path.is_file():
            raise BadInputError(f"`{section.path}`: no such file or folder", hint="name a video or a folder of images")
        capture = self._opened()
        fps, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = fps if math.isfinite(fps) and fps > 0 else DEFAULT_FPS
        if count <= 0:
            count = self._counted(capture)
        capture.release()
        first = round(section.start_s * fps)
        last = count if section.end_s is None else min(count, round(section.end_s * fps))
        if last <= first:
            raise BadInputError(
                f"`{section.path}`: nothing from second {section.start_s:g} on; it lasts {count / fps:.1f} s",
                hint="choose a part inside the video",
            )
        self._positions = [first + position for position in sampling.positions(last - first)]
        digest = hashlib.sha256(sha256_file(section.path).encode() + canonical_json(self._positions))
        self.sha256 = digest.hexdigest()

    def frames(self) -> Iterator[Frame]:
        capture, number = self._opened(), 0
        try:
            for position in self._positions:
                while number < position and capture.grab():
                    number += 1
                decoded, bgr = capture.read()
                number += 1
                if not decoded or bgr is None:
                    raise BadInputError(
                        f"`{self._path}`: frame {position} does not decode",
                        hint="the video is damaged or cut short: use the part before, #t=START,END",
                    )
                yield Frame(np.asarray(bgr, np.uint8))
        finally:
            capture.release()

    def _opened(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise BadInputError(
                f"`{self._path}`: not a video that can be decoded", hint="name a video file or a folder of images"
            )
        return capture

    @staticmethod
    def _counted(capture: cv2.VideoCapture) -> int:
        count = 0
        while capture.grab():
            count += 1
        return count
