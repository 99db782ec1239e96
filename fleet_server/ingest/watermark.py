"""How far the reports of one boot are stored without a gap."""

from collections.abc import Iterable
from dataclasses import dataclass

from ommatid.contract.messages import MAX_IN_FLIGHT


@dataclass(frozen=True, slots=True)
class Folded:
    """What arrived, compared with what was there.

    fresh: sequence numbers to store now, ascending.
    mark: all numbers up to and with this one are stored once `fresh` is.
    """

    fresh: tuple[int, ...]
    mark: int


def fold(mark: int, beyond: Iterable[int], arrived: Iterable[int]) -> Folded:
    """Return which of the `arrived` numbers are new, and how far there is no gap any more.

    Args:
        mark: Everything from 1 to here is stored; 0 is nothing.
        beyond: Numbers above `mark` that are stored already, after a gap.
        arrived: Numbers of this batch, in any order, repeated or not.
    """
    stored = set(beyond)
    fresh = {seq for seq in arrived if seq > mark and seq not in stored}
    stored |= fresh
    # What lies further back than a device may have in flight was acknowledged once, by a server whose backup we are.
    mark = max(mark, max(stored, default=0) - MAX_IN_FLIGHT)
    while mark + 1 in stored:
        mark += 1
    return Folded(tuple(sorted(fresh)), mark)
