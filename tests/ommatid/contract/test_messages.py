import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ommatid.contract.messages import (
    MAX_COUNT,
    MAX_MESSAGE_BYTES,
    Ack,
    Event,
    Hello,
    Report,
    State,
    UpdateState,
    decode,
    decode_report,
    encode,
)
from ommatid.errors import MessageError

FROZEN = Path(__file__).parents[2] / "fixtures" / "contract"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def frozen(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FROZEN / f"{name}.json").read_bytes())
    return document


def test_a_message_survives_the_wire() -> None:
    event = Event(
        boot="0" * 32, seq=1, uptime_s=0.5, sent_at="1970-01-01T00:00:01Z", name="x", severity="error", text="ünïcode"
    )

    assert decode_report(encode(event)) == event


def test_only_ends_are_final() -> None:
    assert {state for state in UpdateState if state.final} == {
        UpdateState.IDLE,
        UpdateState.COMMITTED,
        UpdateState.ROLLED_BACK,
        UpdateState.REFUSED,
        UpdateState.FAILED,
    }


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(MessageError, match="poem"):
        decode_report(json.dumps({**frozen("event"), "kind": "poem"}).encode())


def test_the_first_bad_field_is_named() -> None:
    with pytest.raises(MessageError, match=r"Hello: models\.0\.digest"):
        decode_report(
            json.dumps({**frozen("hello"), "models": [{**frozen("hello")["models"][0], "digest": "x"}]}).encode()
        )


@pytest.mark.parametrize("seq", [0, -1, MAX_COUNT + 1, 2**70, 1.5, "one"])
def test_a_number_that_no_database_holds_is_refused(seq: object) -> None:
    with pytest.raises(MessageError, match="seq"):
        decode(json.dumps({**frozen("ack"), "seq": seq}).encode(), Ack)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_not_a_number_is_refused(value: str) -> None:
    text = json.dumps({**frozen("state"), "uptime_s": 0}).replace('"uptime_s": 0', f'"uptime_s": {value}')

    with pytest.raises(MessageError, match="uptime_s"):
        decode(text.encode(), State)


def test_another_version_of_the_protocol_is_refused() -> None:
    with pytest.raises(MessageError, match="v:"):
        decode(json.dumps({**frozen("ack"), "v": 2}).encode(), Ack)


def test_a_message_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(MessageError, match="at most"):
        decode(b" " * (MAX_MESSAGE_BYTES + 1), Ack)


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"[]", b"null", b"[" * 200_000, b'"\\ud800"', b'{"seq":' + b"9" * 5000 + b"}"]
)
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageError):
        decode(payload, Hello)


@settings(deadline=None, max_examples=200)
@given(data=st.data(), name=st.sampled_from(["hello", "update", "refusal", "event", "window"]))
def test_a_changed_report_is_understood_or_refused(data: st.DataObject, name: str) -> None:
    document = frozen(name)
    document[data.draw(st.sampled_from(sorted(document)))] = data.draw(JSON)

    try:
        report = decode_report(json.dumps(document).encode())
    except MessageError:
        return
    assert isinstance(report, Report)
    assert decode_report(encode(report)) == report


@settings(deadline=None, max_examples=300)
@given(payload=st.binary(max_size=200))
def test_any_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(MessageError):
        decode_report(payload)
