"""What happens to a pixel before the model: stated by the person who built the model, or assumed and said so."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from ommatid.errors import BadInputError

Color = Literal["rgb", "bgr", "gray"]
Resize = Literal["stretch", "letterbox"]


@dataclass(frozen=True, slots=True)
class Size:
    """Height and width in pixels."""

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """(pixel - mean) * scale per channel in `color` order, after resizing by `resize`."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    color: Color = "rgb"
    resize: Resize = "stretch"
    pad_value: int = 114

    @property
    def channels(self) -> int:
        """Return how many channels the model takes."""
        return 1 if self.color == "gray" else 3


DEFAULTS: Final = {
    # TensorFlow's SSD models: -1..1, as MediaPipe's object detection graphs feed them.
    "ssd": Preprocessing(mean=(127.5,) * 3, scale=(1 / 127.5,) * 3),
    # The ImageNet statistics of torchvision, for pixels of 0-255.
    "classification": Preprocessing(mean=(123.675, 116.28, 103.53), scale=(1 / 58.395, 1 / 57.12, 1 / 57.375)),
}


def resolve(
    family: str,
    *,
    mean: tuple[float, ...] | None = None,
    scale: tuple[float, ...] | None = None,
    color: Color | None = None,
    resize: Resize | None = None,
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return what was said, completed by the family's defaults, and one sentence a default that was used.

    Raises:
        BadInputError: The numbers do not fit the channels.
    """
    chosen, assumed = DEFAULTS[family], []
    if color is not None:
        chosen = replace(chosen, color=color)
    else:
        assumed.append(f"colour order is {chosen.color} (--color)")
    if resize is not None:
        chosen = replace(chosen, resize=resize)
    else:
        assumed.append(f"images are resized by {chosen.resize} (--resize)")
    if mean is None:
        assumed.append(f"mean is {_listed(_per_channel(chosen.mean, chosen.channels, '--mean'))} (--mean)")
    if scale is None:
        assumed.append(f"scale is {_listed(_per_channel(chosen.scale, chosen.channels, '--scale'))} (--scale)")
    chosen = replace(
        chosen,
        mean=_per_channel(mean or chosen.mean, chosen.channels, "--mean"),
        scale=_per_channel(scale or chosen.scale, chosen.channels, "--scale"),
    )
    if not all(chosen.scale):
        raise BadInputError("--scale: 0 would erase the image", hint="scale multiplies (pixel - mean): 1/255 for 0..1")
    return chosen, tuple(assumed)


def _per_channel(numbers: tuple[float, ...], channels: int, option: str) -> tuple[float, ...]:
    if len(numbers) == channels:
        return numbers
    if len(set(numbers)) == 1:
        return (numbers[0],) * channels
    if channels == 1 and len(numbers) > 1:
        return (sum(numbers) / len(numbers),)
    raise BadInputError(
        f"{option}: {len(numbers)} numbers for {channels} channels", hint="give one number, or one each"
    )


def _listed(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:.6g}" for number in numbers)
