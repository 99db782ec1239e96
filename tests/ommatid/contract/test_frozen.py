"""The documents in tests/fixtures/contract are what release 0.1.0 wrote. They are never changed.

A later release that cannot read them, or reads them as something else, breaks devices in the field.
"""

import json
from pathlib import Path

import pytest

from ommatid.contract.manifest import parse_manifest
from ommatid.contract.messages import REPORTS, Ack, Message, State, decode, decode_report, encode
from ommatid.contract.windows import decode_window

FROZEN = Path(__file__).parents[2] / "fixtures" / "contract"
KINDS: dict[str, type[Message]] = {**REPORTS, "state": State, "ack": Ack}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_frozen_message_is_understood_to_the_last_field(name: str) -> None:
    content = (FROZEN / f"{name}.json").read_bytes()

    message = decode(content, KINDS[name])

    written = json.loads(encode(message))
    assert {key: written[key] for key in json.loads(content)} == json.loads(content)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_message_of_the_next_release_is_understood(name: str) -> None:
    content = json.loads((FROZEN / f"{name}.json").read_bytes())

    newer = decode(json.dumps({**content, "new_in_next_release": {"a": [1]}}).encode(), KINDS[name])

    assert newer == decode(json.dumps(content).encode(), KINDS[name])


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_a_frozen_report_finds_its_own_class(name: str) -> None:
    assert type(decode_report((FROZEN / f"{name}.json").read_bytes())) is REPORTS[name]


def test_a_frozen_window_is_the_same_in_cbor_and_json() -> None:
    cbor = bytes.fromhex((FROZEN / "window.cbor.hex").read_text(encoding="ascii"))

    assert decode_window(cbor) == decode_report((FROZEN / "window.json").read_bytes())


def test_a_frozen_manifest_is_still_canonical() -> None:
    content = (FROZEN / "manifest.json").read_bytes()

    assert parse_manifest(content).encode() == content
