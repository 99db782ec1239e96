"""Telemetry windows on the wire: the same message as everywhere, as a CBOR map."""

import io

import cbor2

from ommatid.contract.messages import MAX_MESSAGE_BYTES, Window, validate
from ommatid.errors import MessageError


def encode_window(window: Window) -> bytes:
    """Return a window as a CBOR map with text keys; about 1 KB."""
    return cbor2.dumps(window.model_dump(exclude_none=True, mode="python"))


def decode_window(payload: bytes) -> Window:
    """Read a window.

    Raises:
        MessageError: It is too large, not one CBOR map, or not a window.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MessageError(f"a window of {len(payload)} bytes; at most {MAX_MESSAGE_BYTES} are read")
    stream = io.BytesIO(payload)
    try:
        document = cbor2.load(stream)
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError, TypeError, EOFError) as error:
        raise MessageError(f"a window is not CBOR: {error}") from error
    if not isinstance(document, dict) or stream.tell() != len(payload):
        raise MessageError("a window is not one CBOR map")
    if not all(isinstance(key, str) for key in document):
        raise MessageError("a window has a key that is not text")
    return validate(document, Window)
