"""One file that carries a model: a deterministic, uncompressed tar of manifest.json and what it names.

Writing gives the same bytes for the same content. Reading is bounded: plain files only, in the manifest's order,
sizes checked before a byte is read, nothing outside the target folder, nothing that the manifest does not name.
"""

import hashlib
import io
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
    with _open(path) as tar:
        return _first_entry(tar, path)


def verify_bundle(path: Path) -> Manifest:
    """Read a whole bundle and check every byte against its manifest.

    Raises:
        BadInputError: There is no such file.
        BundleError: It is cut short, altered, or carries anything that the manifest does not name.
    """
    with _open(path) as tar:
        manifest = _first_entry(tar, path)
        for entry, stream in _entries(tar, manifest, path):
            _check(entry, _chunks(stream, entry, path), path)
        return manifest


def unpack_bundle(path: Path, folder: Path) -> Manifest:
    """Write a verified bundle into the new folder `folder`; the caller makes it durable and visible.

    Raises:
        BadInputError: There is no such file.
        BundleError: As `verify_bundle`; the folder is removed again.
    """
    folder.mkdir(parents=True)
    try:
        with _open(path) as tar:
            manifest = _first_entry(tar, path)
            (folder / MANIFEST_NAME).write_bytes(manifest.encode())
            for entry, stream in _entries(tar, manifest, path):
                target = folder / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    _check(entry, _written(_chunks(stream, entry, path), file), path)
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


@contextmanager
def _open(path: Path) -> Iterator[tarfile.TarFile]:
    if not path.is_file():
        raise BadInputError(f"{path}: no such bundle", hint="`optimizer build` makes one")
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError) as error:
        raise BundleError(f"{path}: not a bundle, or cut short ({error})", hint="fetch or build it again") from error


def _first_entry(tar: tarfile.TarFile, path: Path) -> Manifest:
    info = tar.next()
    if info is None or info.name != MANIFEST_NAME or not info.isreg():
        raise BundleError(f"{path}: not a bundle: it does not begin with {MANIFEST_NAME}")
    if info.size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path}: {MANIFEST_NAME} claims {info.size} bytes; at most {MAX_MANIFEST_BYTES} are read")
    stream = tar.extractfile(info)
    content = stream.read(info.size) if stream else b""
    manifest = parse_manifest(content)
    if manifest.encode() != content:
        raise BundleError(f"{path}: {MANIFEST_NAME} is not in canonical form")
    return manifest


def _entries(tar: tarfile.TarFile, manifest: Manifest, path: Path) -> Iterator[tuple[BundleFile, IO[bytes]]]:
    """Yield each named file with its content, refusing anything else the tar holds."""
    for expected in manifest.files:
        info = tar.next()
        if info is None:
            raise BundleError(f"{path}: cut short: {expected.path} is missing", hint="fetch or build it again")
        if not info.isreg() or info.name != expected.path:
            raise BundleError(f"{path}: holds {info.name!r} where the manifest names {expected.path!r}")
        if info.size != expected.size_bytes:
            raise BundleError(f"{path}: {info.name} claims {info.size} bytes, the manifest {expected.size_bytes}")
        stream = tar.extractfile(info)
        if stream is None:
            raise BundleError(f"{path}: {info.name} is not a plain file")
        yield expected, stream
    if (extra := tar.next()) is not None:
        raise BundleError(f"{path}: holds {extra.name!r}, which the manifest does not name")


def _chunks(stream: IO[bytes], entry: BundleFile, path: Path) -> Iterator[bytes]:
    remaining = entry.size_bytes
    while remaining:
        chunk = stream.read(min(CHUNK, remaining))
        if not chunk:
            raise BundleError(f"{path}: cut short in {entry.path}", hint="fetch or build it again")
        remaining -= len(chunk)
        yield chunk


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
