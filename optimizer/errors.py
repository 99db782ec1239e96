"""What the optimizer refuses, beyond the shared exception tree."""

from ommatid.errors import OmmatidError


class GateError(OmmatidError):
    """The build lost more than was allowed: no bundle is written."""


class ConversionError(OmmatidError):
    """A model cannot be carried over to another format or precision without changing what it computes."""
