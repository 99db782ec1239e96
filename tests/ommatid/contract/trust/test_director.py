import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, Root

from ommatid.contract.trust.director import DirectorDocument, verify_document
from ommatid.contract.trust.errors import MetadataFormatError, SignatureError
from ommatid.contract.trust.floors import Floors
from ommatid.errors import TrustError
from tests.support.repository import TODAY, Fleet

FLEET = Fleet()
DOCUMENT = FLEET.direct(FLEET.push("1.0"))
ROOT: Root = Metadata[Root].from_bytes(FLEET.director_root).signed
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def verify(content: bytes) -> DirectorDocument:
    return verify_document(content, ROOT, device="camera-1", tenant="acme", now=TODAY, floors=Floors(TODAY))


def resigned(change: dict[str, Any]) -> bytes:
    """Sign any content with the true online key: what a stolen key can do."""
    metadata: Metadata[Any] = Metadata.from_bytes(DOCUMENT)
    document = metadata.to_dict()
    document["signed"] = {**document["signed"], **change}
    changed: Metadata[Any] = Metadata.from_dict(document)
    changed.sign(FLEET.online_key)
    return changed.to_bytes()


def test_a_document_stays_small() -> None:
    assert len(DOCUMENT) < 700
    assert verify(DOCUMENT).version == 1


def test_a_document_names_at_most_one_bundle() -> None:
    targets = {name: {"length": 1, "hashes": {"sha256": "0" * 64}} for name in "ab"}

    with pytest.raises(MetadataFormatError, match="names 2 bundles"):
        verify(resigned({"targets": targets}))


def test_a_director_does_not_delegate() -> None:
    with pytest.raises(MetadataFormatError, match="does not delegate"):
        verify(resigned({"delegations": {"keys": {}, "roles": []}}))


@pytest.mark.parametrize(
    "issued", [None, 0, "", "yesterday", "2026-11-10T07:00:00+00:00", "2026-11-10T07:00:00Z\n", []]
)
def test_a_signing_time_that_is_none_is_refused(issued: object) -> None:
    with pytest.raises(MetadataFormatError, match="issued"):
        verify(resigned({"issued": issued}))


@pytest.mark.parametrize("device", [None, 1, ["camera-1"], {"camera-1": 1}])
def test_a_device_that_is_no_name_is_another_device(device: object) -> None:
    with pytest.raises(TrustError):
        verify(resigned({"device": device}))


def test_every_change_of_one_byte_is_refused_or_changes_nothing_that_is_signed() -> None:
    for position in range(0, len(DOCUMENT), 3):
        content = DOCUMENT[:position] + bytes([DOCUMENT[position] ^ 1]) + DOCUMENT[position + 1 :]
        with pytest.raises(TrustError):
            verify(content)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_changed_document_is_refused(data: st.DataObject) -> None:
    document = json.loads(DOCUMENT)
    part = data.draw(st.sampled_from(["signed", "signatures", "document"]))
    place: Any = {"signed": document["signed"], "signatures": document["signatures"][0], "document": document}[part]
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(JSON)

    try:
        verified = verify(json.dumps(document).encode())
    except TrustError:
        return
    # python-tuf fills what is null with its own default, so equal meaning is all that can be asked for.
    assert replace(verified, sha256="") == replace(verify(DOCUMENT), sha256="")


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_whatever_a_stolen_key_signs_is_understood_or_refused(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(["device", "tenant", "issued", "targets", "version", "expires", "x"]))
    try:
        content = resigned({key: data.draw(JSON)})
    except Exception:  # noqa: BLE001 - what cannot even be signed needs no verifying
        return

    try:
        verify(content)
    except TrustError:
        return


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(MetadataFormatError):
        verify(content)


def test_a_signature_of_the_right_key_over_other_bytes_is_refused() -> None:
    document = json.loads(DOCUMENT)
    document["signed"]["version"] = 2

    with pytest.raises(SignatureError):
        verify(json.dumps(document).encode())
