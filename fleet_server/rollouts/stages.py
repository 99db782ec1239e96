"""How many devices a rollout may reach, stage by stage, and in which order.

A stage is a share of the eligible devices or a count; each one lets at least one more device in, so that three
stages mean three looks also in a fleet of three. The order comes from a salted hash: every rollout has other canaries.
"""

import hashlib
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

from ommatid.errors import BadInputError

DEFAULT_STAGES: Final = "5%,25%,100%"
MAX_STAGES: Final = 20
_AMOUNT = re.compile(r"^(?P<number>\d{1,9}(?:\.\d{1,4})?)\s*(?P<percent>%?)$")


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of devices: `value` of them, or that share (0-1) of some of them."""

    value: Fraction
    is_share: bool

    def of(self, devices: int) -> int:
        """Return the amount as devices, rounded up, never fewer than one."""
        exact = self.value * devices if self.is_share else self.value
        return max(1, -int(-exact // 1))

    def __str__(self) -> str:
        """Return the amount as it is typed."""
        return f"{float(self.value * 100):g}%" if self.is_share else str(int(self.value))


def parse_amount(text: str, option: str) -> Amount:
    """Read `5%` or `12`.

    Raises:
        BadInputError: It is neither, or zero, or more than 100 %.
    """
    match = _AMOUNT.match(text.strip())
    hint = f"give {option} a count such as 3, or a share such as 25%"
    if match is None:
        raise BadInputError(f"{option}: {text.strip()!r} is neither a count nor a share", hint=hint)
    number = Fraction(match["number"])
    if match["percent"]:
        if not 0 < number <= 100:  # noqa: PLR2004 - a percentage
            raise BadInputError(f"{option}: {text.strip()} is not between 0% and 100%", hint=hint)
        return Amount(number / 100, is_share=True)
    if number < 1 or number.denominator != 1:
        raise BadInputError(f"{option}: {text.strip()} is not a whole number of devices", hint=hint)
    return Amount(number, is_share=False)


def parse_stages(text: str) -> tuple[Amount, ...]:
    """Read stages such as `5%,25%,100%` or `1,10,100%`.

    Raises:
        BadInputError: One is not an amount, they do not grow, or there are too many.
    """
    stages = tuple(parse_amount(part, "--stages") for part in text.split(","))
    if len(stages) > MAX_STAGES:
        raise BadInputError(f"--stages: {len(stages)} stages; at most {MAX_STAGES} make sense")
    for before, after in pairwise(stages):
        if before.is_share == after.is_share and after.value <= before.value:
            raise BadInputError(f"--stages: {after} does not reach more devices than {before}", hint="let them grow")
    return stages


def quotas(stages: tuple[Amount, ...], eligible: int) -> tuple[int, ...]:
    """Return how many devices each stage reaches in all, the earlier stages included."""
    reached = 0
    result = []
    for stage in stages:
        reached = min(eligible, max(stage.of(eligible), reached + 1))
        result.append(reached)
    return tuple(result)


def rank(salt: str, device: str) -> bytes:
    """Return the place of a device in a rollout's order: lower goes first."""
    return hashlib.sha256(f"{salt}\0{device}".encode()).digest()
