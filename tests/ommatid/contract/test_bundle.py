import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ommatid.contract.bundle import read_manifest, unpack_bundle, verify_bundle, write_bundle
from ommatid.contract.manifest import MANIFEST_NAME
from ommatid.errors import BadInputError, BundleError, DigestMismatchError
from tests.support.small_bundle import CONTENT, small_bundle, small_manifest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "detector-1.0-int8-arm.bundle"
    small_bundle(path)
    return path


def altered(path: Path, folder: Path, change: Callable[[bytes], bytes]) -> Path:
    other = folder / "other.bundle"
    other.write_bytes(change(path.read_bytes()))
    return other


def packed(folder: Path, entries: list[tuple[tarfile.TarInfo, bytes]], kind: int = tarfile.USTAR_FORMAT) -> Path:
    """Write a tar as an attacker would, beginning with a true manifest."""
    path = folder / "attack.bundle"
    manifest = small_manifest().encode()
    with tarfile.open(path, "w", format=kind) as tar:
        tar.addfile(plain(MANIFEST_NAME, manifest), io.BytesIO(manifest))
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


def plain(name: str, content: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    return info


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, bundle: Path) -> None:
    again = tmp_path / "again.bundle"

    small_bundle(again)

    assert again.read_bytes() == bundle.read_bytes()


def test_an_unpacked_bundle_is_its_files_and_its_manifest(tmp_path: Path, bundle: Path) -> None:
    manifest = unpack_bundle(bundle, tmp_path / "model")

    files = {str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert files == {*CONTENT, MANIFEST_NAME}
    assert all((tmp_path / "model" / name).read_bytes() == content for name, content in CONTENT.items())
    assert (tmp_path / "model" / MANIFEST_NAME).read_bytes() == manifest.encode()
    assert verify_bundle(bundle) == manifest == read_manifest(bundle)


def test_any_tar_program_can_read_a_bundle(bundle: Path) -> None:
    with tarfile.open(bundle, "r:") as tar:
        assert tar.getnames() == [MANIFEST_NAME, *CONTENT]


def test_a_bundle_can_be_read_twice(tmp_path: Path, bundle: Path) -> None:
    assert verify_bundle(bundle) == verify_bundle(bundle)
    with pytest.raises(FileExistsError):
        unpack_bundle(bundle, tmp_path)


def test_a_missing_bundle_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such bundle"):
        verify_bundle(tmp_path / "none.bundle")


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.5, 0.75, 0.999])
def test_a_bundle_cut_short_is_refused_and_leaves_nothing(tmp_path: Path, bundle: Path, share: float) -> None:
    cut = altered(bundle, tmp_path, lambda content: content[: int(len(content) * share)])

    with pytest.raises(BundleError):
        unpack_bundle(cut, tmp_path / "model")

    assert not (tmp_path / "model").exists()


def test_a_flipped_bit_in_a_file_is_a_digest_mismatch(tmp_path: Path, bundle: Path) -> None:
    flipped = altered(bundle, tmp_path, lambda content: content.replace(b"cat\ndog", b"cat\ndoG"))

    with pytest.raises(DigestMismatchError, match=r"labels\.txt"):
        verify_bundle(flipped)


@pytest.mark.parametrize("name", ["../escape", "/absolute/escape", "golden/../../escape", "./model.onnx", "extra.txt"])
def test_a_path_that_the_manifest_does_not_name_is_refused(tmp_path: Path, name: str) -> None:
    attack = packed(tmp_path, [(plain(name, CONTENT["model.onnx"]), CONTENT["model.onnx"])])

    with pytest.raises(BundleError, match=r"model\.onnx"):
        unpack_bundle(attack, tmp_path / "model")

    assert not list(tmp_path.rglob("escape"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE]
)
def test_anything_but_a_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("model.onnx")
    info.type, info.linkname, info.mode = kind, "/etc/passwd", 0o644

    with pytest.raises(BundleError):
        unpack_bundle(packed(tmp_path, [(info, b"")]), tmp_path / "model")


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_headers_that_rename_the_next_file_are_refused(tmp_path: Path, kind: int) -> None:
    info = plain("model.onnx", CONTENT["model.onnx"])
    if kind == tarfile.PAX_FORMAT:
        info.pax_headers = {"path": "model.onnx", "comment": "hidden"}
    else:
        info.name = f"{'./' * 60}model.onnx"

    with pytest.raises(BundleError):
        unpack_bundle(packed(tmp_path, [(info, CONTENT["model.onnx"])], kind), tmp_path / "model")


def test_a_second_file_of_one_name_is_refused(tmp_path: Path) -> None:
    entries = [(plain(name, content), content) for name, content in CONTENT.items()]

    with pytest.raises(BundleError, match="does not end"):
        verify_bundle(packed(tmp_path, [*entries, entries[0]]))


@pytest.mark.parametrize("tail", [b"\0", b"x", bytes(10240), b"manifest.json"])
def test_anything_after_the_end_is_refused(tmp_path: Path, bundle: Path, tail: bytes) -> None:
    with pytest.raises(BundleError, match="does not end"):
        verify_bundle(altered(bundle, tmp_path, lambda content: content + tail))


@pytest.mark.parametrize("claim", [b"77777777777\0", b"\x80" + b"\xff" * 11, b"-0000000001\0", b"           \0"])
def test_a_manifest_that_claims_gigabytes_is_refused_in_little_memory(
    tmp_path: Path, bundle: Path, claim: bytes
) -> None:
    liar = altered(bundle, tmp_path, lambda content: content[:124] + claim + content[136:])

    tracemalloc.start()
    with pytest.raises(BundleError):
        verify_bundle(liar)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 1_000_000


def test_reading_a_large_bundle_needs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.bundle"
    small_bundle(path, {**CONTENT, "model.onnx": bytes(32 * 1024 * 1024)})

    tracemalloc.start()
    verify_bundle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 4_000_000


def test_a_source_that_changed_meanwhile_leaves_no_bundle(tmp_path: Path) -> None:
    manifest = small_manifest()
    sources = {}
    for name in CONTENT:
        sources[name] = tmp_path / name.replace("/", "_")
        sources[name].write_bytes(CONTENT[name] + b"!")

    with pytest.raises(DigestMismatchError):
        write_bundle(tmp_path / "b.bundle", manifest, sources)

    assert not [path for path in tmp_path.iterdir() if "bundle" in path.name]


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_change_is_refused_or_another_manifest(
    tmp_path_factory: pytest.TempPathFactory, bundle: Path, data: st.DataObject
) -> None:
    content = bytearray(bundle.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 700)))
        content[start:end] = data.draw(st.binary(max_size=700))
    path = tmp_path_factory.mktemp("fuzz") / "fuzz.bundle"
    path.write_bytes(content)

    try:
        manifest = verify_bundle(path)
    except BundleError:
        return
    # Another well-formed manifest is another bundle: its sha256 is signed, so nobody is offered it.
    assert bytes(content) == bundle.read_bytes() or manifest != read_manifest(bundle)


def test_every_single_bit_after_the_manifest_counts(tmp_path: Path, bundle: Path) -> None:
    content = bundle.read_bytes()
    begin = 512 + len(read_manifest(bundle).encode())
    path = tmp_path / "bit.bundle"
    for position in range(begin, len(content), 23):
        flipped = bytes([content[position] ^ 1 << position % 8])
        path.write_bytes(content[:position] + flipped + content[position + 1 :])
        with pytest.raises(BundleError):
            verify_bundle(path)
