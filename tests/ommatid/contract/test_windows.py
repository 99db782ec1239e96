from pathlib import Path

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ommatid.contract.messages import MAX_MESSAGE_BYTES, Histogram, Window
from ommatid.contract.windows import decode_window, encode_window
from ommatid.errors import MessageError

FROZEN = Path(__file__).parents[2] / "fixtures" / "contract"
PAYLOAD = bytes.fromhex((FROZEN / "window.cbor.hex").read_text(encoding="ascii"))


def test_a_window_survives_the_wire() -> None:
    window = decode_window(PAYLOAD)

    assert decode_window(encode_window(window)) == window
    assert window.signals["brightness"].counts == {3: 10, 200: 5}


def test_a_full_window_of_real_size_stays_small() -> None:
    signal = Histogram(bins="brightness-1", counts=dict.fromkeys(range(40), 225), n=9000, sum_q16=1, sum_squares_q16=1)
    window = decode_window(PAYLOAD).model_copy(update={"signals": {f"signal_{n}": signal for n in range(8)}})

    assert len(encode_window(window)) < 3000


@pytest.mark.parametrize("bin_index", [-1, 256, 2**70])
def test_a_bin_that_does_not_exist_is_refused(bin_index: int) -> None:
    document = cbor2.loads(PAYLOAD)
    document["signals"]["brightness"]["counts"] = {bin_index: 1}

    with pytest.raises(MessageError, match="counts"):
        decode_window(cbor2.dumps(document))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xa0",
        b"\xf6",
        PAYLOAD + b"\0",
        PAYLOAD[:-1],
        b"\x81" * 100_000,
        b"\x9b" + b"\xff" * 8,
        b"\x5b\x00\x00\x00\x7f\x00\x00\x00\x00",
        b"\xd8\x1c\x81\xd8\x1d\x00",
        b"\xc2\x5a\x00\x01\x00\x00" + b"\xff" * 65536,
        b" " * (MAX_MESSAGE_BYTES + 1),
        cbor2.dumps({10**6000: 1}),
        cbor2.dumps({**cbor2.loads(PAYLOAD), 7: 1}),
    ],
)
def test_what_is_no_window_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageError):
        decode_window(payload)


def test_one_histogram_named_thousands_of_times_is_refused() -> None:
    histogram = {"bins": "x", "counts": dict.fromkeys(range(256), 1), "n": 256, "sum_q16": 1, "sum_squares_q16": 1}
    document = {**cbor2.loads(PAYLOAD), "signals": dict.fromkeys(map(str, range(5000)), histogram)}
    bomb = cbor2.dumps(document, value_sharing=True)
    assert len(bomb) < MAX_MESSAGE_BYTES / 4

    with pytest.raises(MessageError, match="signals"):
        decode_window(bomb)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_changed_window_is_understood_or_refused(data: st.DataObject) -> None:
    content = bytearray(PAYLOAD)
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 8)))
    content[start:end] = data.draw(st.binary(max_size=8))

    try:
        window = decode_window(bytes(content))
    except MessageError:
        return
    assert isinstance(window, Window)
    assert decode_window(encode_window(window)) == window
