import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.loop.config import LoopConfig, SourceConfig, parse_config
from agent.loop.protocol import (
    FoundObject,
    FramePush,
    Order,
    Push,
    SourceFigures,
    SourcePush,
    Status,
    SwappedPush,
    decode_object,
    decode_order,
    decode_push,
    decode_status,
    encode_answer,
    encode_order,
    encode_push,
    encode_refusal,
    status_document,
)
from ommatid.errors import BackendError, BadInputError, MessageError

SWAPPED = SwappedPush("b" * 64, None, 12.5, 30, 1, 0, 9.0, back=True)
PUSHES: list[Push] = [
    SWAPPED,
    SourcePush("camera", "down", "no such file"),
    FramePush("camera", 3, 1_700_000_000_000, 1.5, 2.5, 4, 0, error="BackendError: it failed"),
    FramePush(
        source="camera",
        index=7,
        captured_at_ms=1,
        latency_ms=2.0,
        age_ms=3.0,
        frames=8,
        dropped=1,
        digest="a" * 64,
        width=64,
        height=48,
        quality_state="flagged",
        quality={"brightness": 11.5},
        flags=("too_dark",),
        objects=(FoundObject("dog", 0.5, (1.0, 2.0, 3.0, 4.0)), FoundObject("street", 0.25)),
    ),
]
FIGURES = SourceFigures("camera", "running", "", 8, 1, 0, 19.9, 1.0, 2.0, 3.0)
STATUS = Status(1.5, "a", "b", None, False, "current", None, None, 8, 0, 0, 3.5, (FIGURES,), SWAPPED)


@pytest.mark.parametrize("push", PUSHES)
def test_a_push_survives_its_line(push: Push) -> None:
    assert decode_push(json.loads(encode_push(push))) == push


@pytest.mark.parametrize("order", [Order(1, "swap"), Order(2, "load", "/store/x", "ab"), Order(3, "status")])
def test_an_order_survives_its_line(order: Order) -> None:
    assert decode_order(encode_order(order)) == order


def test_a_status_survives_its_answer() -> None:
    line = encode_answer(4, status_document(STATUS))

    assert decode_status(decode_object(line)) == STATUS


def test_fields_of_a_newer_release_are_ignored() -> None:
    document = {**json.loads(encode_push(PUSHES[1])), "colour": "green"}

    assert decode_push(document) == PUSHES[1]


def test_a_refusal_names_class_reason_and_hint() -> None:
    line = encode_refusal(5, BackendError("it does not load", hint="build it again"))

    assert json.loads(line) == {
        "answer": 5,
        "ok": False,
        "error": "BackendError",
        "reason": "it does not load",
        "hint": "build it again",
    }


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_no_line_is_more_than_a_message_error(line: bytes) -> None:
    try:
        decode_order(line)
    except MessageError:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["frame", "swapped", "source", "other"]), st.data())
def test_no_push_or_status_is_more_than_a_message_error(kind: str, data: st.DataObject) -> None:
    names = ["objects", "quality", "source", "index", "sources", "last_swap", "name", "state"]
    document = data.draw(st.dictionaries(st.sampled_from(names), json_values)) | {"push": kind}
    for decode in (decode_push, decode_status):
        try:
            decode(document)
        except MessageError:
            continue


def test_a_configuration_survives_its_document() -> None:
    config = LoopConfig(
        (SourceConfig("a", "a.avi#loop"), SourceConfig("b", "photos")), Path("/x/loop.sock"), Path("/x/models"), 2
    )

    assert parse_config(config.encode()) == config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sources": []}, "sources"),
        ({"sources": ["x"]}, "sources"),
        ({"sources": [{"name": "a", "source": "x"}] * 2}, "one name"),
        ({"sources": [{"name": "a"}]}, "source"),
        ({"socket": None}, "socket"),
        ({"threads": 0}, "threads"),
        ({"threads": True}, "threads"),
        ({"quality": 1}, "quality"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, object], named: str) -> None:
    document = {"sources": [{"name": "a", "source": "x"}], "socket": "s", "models": "m", **change}

    with pytest.raises(BadInputError, match=named):
        parse_config(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_what_is_no_document_is_one_error(text: str) -> None:
    with pytest.raises(BadInputError):
        parse_config(text)
