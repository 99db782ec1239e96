import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ommatid.contract.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from ommatid.errors import BundleError
from tests.support.small_bundle import small_manifest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def document() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(small_manifest().encode())
    return parsed


def refused(changed: dict[str, Any]) -> str:
    with pytest.raises(BundleError) as caught:
        parse_manifest(json.dumps(changed).encode())
    return str(caught.value)


def test_a_manifest_survives_its_own_encoding() -> None:
    manifest = small_manifest()

    assert parse_manifest(manifest.encode()) == manifest
    assert parse_manifest(manifest.encode()).encode() == manifest.encode()
    assert manifest.bundle_name == "detector-1.0-int8-arm.bundle"


def test_an_unknown_field_is_refused_at_every_level() -> None:
    assert "surprise" in refused({**document(), "surprise": 1})
    assert "input.surprise" in refused({**document(), "input": {**document()["input"], "surprise": 1}})


def test_a_newer_schema_asks_for_a_newer_agent() -> None:
    with pytest.raises(BundleError) as caught:
        parse_manifest(json.dumps({**document(), "schema_version": 2}).encode())

    assert caught.value.hint == "this bundle needs a newer agent"


@pytest.mark.parametrize(
    "path",
    ["../x", "/x", "a/../b", "./x", "a//b", "", "a/b/c/d/e", ".hidden", "a\\b", "x\n", "é", "-rf", "a" * 101, "nul\0"],
)
def test_a_path_that_could_leave_the_folder_is_refused(path: str) -> None:
    changed = document()
    changed["files"][0]["path"] = path

    assert "files" in refused(changed)


@pytest.mark.parametrize(
    "path", ["manifest.json", "MANIFEST.JSON", "labels.txt", "Labels.TXT", "golden", "labels.txt/x"]
)
def test_two_files_may_not_share_a_name(path: str) -> None:
    changed = document()
    changed["files"][0]["path"] = path

    assert "files" in refused(changed)


def test_every_named_file_must_be_listed() -> None:
    changed = document()
    changed["task"]["labels"] = "missing.txt"

    assert "missing.txt" in refused(changed)


@pytest.mark.parametrize("version", ["1-0", "1.0\n", "", " 1", "1" * 43, "../1"])
def test_a_version_that_would_break_the_file_name_is_refused(version: str) -> None:
    assert "version" in refused({**document(), "version": version})


def test_a_size_beyond_what_tar_can_say_is_refused() -> None:
    changed = document()
    changed["files"][0]["size_bytes"] = 8**11

    assert "size_bytes" in refused(changed)


def test_a_manifest_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(BundleError, match="at most"):
        parse_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"\xff", b"{", b"[" * 100_000, b'{"schema_version":1' + b"0" * 5000 + b"}"]
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(content)


def test_not_a_number_is_refused() -> None:
    text = small_manifest().encode().replace(b'"minimum_agreement":0.97', b'"minimum_agreement":NaN')

    with pytest.raises(BundleError):
        parse_manifest(text)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_changed_manifest_is_valid_or_refused(data: st.DataObject) -> None:
    changed: Any = document()
    place = changed
    while isinstance(place, dict | list) and place:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]

    try:
        manifest = parse_manifest(json.dumps(changed).encode())
    except BundleError:
        return
    assert isinstance(manifest, Manifest)
    assert parse_manifest(manifest.encode()) == manifest


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(content)
