"""One file that carries a model: a deterministic, uncompressed tar of manifest.json and what it names.

Writing gives the same bytes for the same content, so reading needs no tar parser: each header must be, byte for byte,
the one that the writer gives to the file which the manifest names next. What tar could otherwise carry (links,
devices, other paths, long-name and PAX headers, a second manifest, anything at the end) differs, and is refused.
"""

import hashlib
import io
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from ommatid.contract.digests import sha256_file
from ommatid.contract.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, BundleFile, Manifest, parse_manifest
from ommatid.errors import BadInputError, BundleError, DigestMismatchError

CHUNK: Final = 1024 * 1024
BLOCK: Final = tarfile.BLOCKSIZE
_SIZE_FIELD: Final = slice(124, 136)
_OCTAL: Final = re.compile(rb"[0-7]{11}\0")


def write_bundle(path: Path, manifest: Manifest, sources: Mapping[str, Path]) -> None:
    """Pack `sources` (bundle path -> file) after their manifest; the file appears whole or not at all.

    Raises:
        DigestMismatchError: A source is not what the manifest says.
        OSError: The disk is full or read-only; nothing is left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
            content = manifest.encode()
            tar.addfile(_plain_entry(MANIFEST_NAME, len(content)), io.BytesIO(content))
            for entry in manifest.files:
                source = sources[entry.path]
                actual = sha256_file(source)
                if actual != entry.sha256 or source.stat().st_size != entry.size_bytes:
                    raise DigestMismatchError(source, entry.sha256, actual)
                with source.open("rb") as file:
                    tar.addfile(_plain_entry(entry.path, entry.size_bytes), file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of a bundle without reading further.

    Raises:
        BadInputError: There is no such file.
        BundleError: It is not a bundle.
    """
    with _open(path) as file:
        return _read_first(file, path)


def verify_bundle(path: Path) -> Manifest:
    """Read a whole bundle and check every byte against its manifest.

    Raises:
        BadInputError: There is no such file.
        BundleError: It is cut short, altered, or carries anything that the manifest does not name.
    """
    with _open(path) as file:
        manifest = _read_first(file, path)
        for entry in manifest.files:
            _check(entry, _content(file, entry, path), path)
        _check_end(file, path)
        return manifest


def unpack_bundle(path: Path, folder: Path) -> Manifest:
    """Write a verified bundle into the new folder `folder`; the caller makes it durable and visible.

    Raises:
        BadInputError: There is no such file.
        BundleError: As `verify_bundle`; the folder is removed again.
    """
    folder.mkdir(parents=True)
    try:
        with _open(path) as file:
            manifest = _read_first(file, path)
            (folder / MANIFEST_NAME).write_bytes(manifest.encode())
            for entry in manifest.files:
                target = folder / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as unpacked:
                    _check(entry, _written(_content(file, entry, path), unpacked), path)
            _check_end(file, path)
            return manifest
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _plain_entry(name: str, size: int) -> tarfile.TarInfo:
    """Return a header that depends on name and size alone: time 0, no owner, mode 0644."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info


def _header(name: str, size: int) -> bytes:
    """Return the one block that announces a file in a bundle."""
    return _plain_entry(name, size).tobuf(tarfile.USTAR_FORMAT)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    if not path.is_file():
        raise BadInputError(f"{path}: no such bundle", hint="`optimizer build` makes one")
    with path.open("rb") as file:
        yield file


def _read_first(file: IO[bytes], path: Path) -> Manifest:
    """Read the manifest, which says what every byte after it must be, and how many there are."""
    header = file.read(BLOCK)
    field = header[_SIZE_FIELD]
    size = int(field[:-1], 8) if _OCTAL.fullmatch(field) else 0
    if header != _header(MANIFEST_NAME, size):
        raise BundleError(
            f"{path}: not a bundle: it does not begin with a plain {MANIFEST_NAME}",
            hint="name a .bundle file, as `optimizer build` makes it",
        )
    if size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path}: {MANIFEST_NAME} claims {size} bytes; at most {MAX_MANIFEST_BYTES} are read")
    content = b"".join(_file(file, MANIFEST_NAME, size, path))
    manifest = parse_manifest(content)
    if manifest.encode() != content:
        raise BundleError(f"{path}: {MANIFEST_NAME} is not in canonical form")
    return manifest


def _content(file: IO[bytes], entry: BundleFile, path: Path) -> Iterator[bytes]:
    """Yield the content of the next file, which must be `entry`."""
    header = file.read(BLOCK)
    if len(header) < BLOCK:
        raise _cut_short(path, entry.path)
    if header != _header(entry.path, entry.size_bytes):
        raise BundleError(
            f"{path}: something else stands where the manifest names {entry.path} of {entry.size_bytes} bytes",
            hint="the bundle is damaged or altered: fetch or build it again",
        )
    yield from _file(file, entry.path, entry.size_bytes, path)


def _file(file: IO[bytes], name: str, size: int, path: Path) -> Iterator[bytes]:
    remaining = size
    while remaining:
        chunk = file.read(min(CHUNK, remaining))
        if not chunk:
            raise _cut_short(path, name)
        remaining -= len(chunk)
        yield chunk
    padding = -size % BLOCK
    if file.read(padding) != bytes(padding):
        raise BundleError(f"{path}: the space after {name} is not empty", hint="fetch or build it again")


def _check_end(file: IO[bytes], path: Path) -> None:
    """Require the end that tar writes: zeros up to the next whole record, at least two blocks, then nothing."""
    rest = 2 * BLOCK + -(file.tell() + 2 * BLOCK) % tarfile.RECORDSIZE
    if file.read(rest + 1) != bytes(rest):
        raise BundleError(
            f"{path}: does not end after the files that the manifest names",
            hint="the bundle is cut short or altered: fetch or build it again",
        )


def _cut_short(path: Path, name: str) -> BundleError:
    return BundleError(f"{path}: cut short in {name}", hint="fetch or build it again")


def _written(chunks: Iterator[bytes], file: IO[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        file.write(chunk)
        yield chunk


def _check(entry: BundleFile, chunks: Iterator[bytes], path: Path) -> None:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    if digest.hexdigest() != entry.sha256:
        raise DigestMismatchError(f"{path}: {entry.path}", entry.sha256, digest.hexdigest())
