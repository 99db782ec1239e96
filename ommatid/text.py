"""What somebody else wrote, made safe to show: a device, a server, a bundle."""

import re
from typing import Final

_STEERING: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What makes a terminal do something: control characters, and marks that change the direction of reading."""


_ERRNO: Final = re.compile(r"\[Errno -?[0-9]+\] ?")


def printable(text: str) -> str:
    """Return a text so that it steers no terminal, and no line of it passes for one of ours."""
    return _STEERING.sub(lambda found: f"\\x{ord(found[0]):02x}", text).replace("\n", "\n    ")


def printable_json(text: str) -> str:
    """Return a JSON document that steers no terminal; it says the same."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def in_words(error: BaseException) -> str:
    """Return an error's own words without its number; an error without words gives the name of its class."""
    return _ERRNO.sub("", str(error)) or type(error).__name__
