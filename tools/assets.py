"""Fetch the model and the video of the demo and the tests, by package name and pinned sha256.

They are other people's work, so they are never committed: the package clients (npm, apt) bring them into a cache
folder. Runs with any Python from 3.11 on and nothing installed; running again is quick and fetches nothing twice.

    python3 tools/assets.py [--cache FOLDER] [--json]
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path(__file__).resolve().parent.parent
CATALOGUE: Final = Path(__file__).resolve().with_name("assets.toml")
CLIENT_TIMEOUT_S: Final = 900


class AssetError(Exception):
    """A file cannot be fetched; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        """Keep what happened in `message`, and what to do now in `hint`."""
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Asset:
    """One file, and the package that holds it."""

    key: str
    name: str
    what: str
    licence: str
    sha256: str
    client: Literal["npm", "apt"]
    package: str
    member: str
    bytes: tuple[int, int] | None = None


def catalogue(path: Path = CATALOGUE) -> list[Asset]:
    """Return the assets that assets.toml names."""
    entries = tomllib.loads(path.read_text())["asset"]
    return [Asset(**{**entry, "bytes": tuple(entry["bytes"]) if "bytes" in entry else None}) for entry in entries]


def cache_folder() -> Path:
    """Return where assets are kept: OMMATID_CACHE/assets, or .cache/assets of this repository."""
    named = os.environ.get("OMMATID_CACHE")
    return (Path(named) if named else ROOT / ".cache") / "assets"


def fetch_assets(folder: Path | None = None) -> dict[str, Path]:
    """Return every asset by key (model, labels, video), fetching the ones that are missing or damaged.

    Raises:
        AssetError: A client is missing, a package cannot be fetched, or holds another file than the pinned one.
    """
    folder = folder or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    missing = [asset for asset in catalogue() if not _is_the_one(folder / asset.name, asset)]
    for package in dict.fromkeys(asset.package for asset in missing):
        wanted = [asset for asset in missing if asset.package == package]
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            _fetch_package(wanted, Path(scratch), folder)
    return {asset.key: folder / asset.name for asset in catalogue()}


def _is_the_one(path: Path, asset: Asset) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == asset.sha256


def _fetch_package(assets: list[Asset], scratch: Path, folder: Path) -> None:
    print(f"fetching {assets[0].package} with {assets[0].client}", file=sys.stderr)
    contents = _from_npm(assets, scratch) if assets[0].client == "npm" else _from_apt(assets, scratch, folder)
    for asset in assets:
        content = contents[asset.member]
        if asset.bytes is not None:
            content = content[slice(*asset.bytes)]
        partial = scratch / asset.name
        partial.write_bytes(content)
        if not _is_the_one(partial, asset):
            digest = hashlib.sha256(content).hexdigest()
            raise AssetError(
                f"{asset.package}: {asset.name} has sha256 {digest[:12]}, but {asset.sha256[:12]} is pinned",
                "the package holds another file now: review it, then change tools/assets.toml",
            )
        partial.replace(folder / asset.name)


def _from_npm(assets: list[Asset], scratch: Path) -> dict[str, bytes]:
    npm = _client("npm")
    _run([npm, "pack", "--silent", assets[0].package], scratch, "check that the npm registry can be reached")
    archive = next(scratch.glob("*.tgz"), None)
    if archive is None:
        raise AssetError(f"npm pack {assets[0].package} left no archive", "try again")
    with tarfile.open(archive) as tar:
        return {asset.member: _member(tar, asset) for asset in assets}


def _from_apt(assets: list[Asset], scratch: Path, folder: Path) -> dict[str, bytes]:
    installed = {asset.member: Path("/") / asset.member for asset in assets}
    if all(_is_the_one(installed[asset.member], asset) for asset in assets):
        return {member: path.read_bytes() for member, path in installed.items()}
    apt, package = _client("apt-get"), assets[0].package
    try:
        _run([apt, "download", package], scratch, "")
    except AssetError:
        # No package lists yet, or old ones: keep lists of our own, which needs no root.
        lists = _private_lists(folder)
        _run([apt, *lists, "update"], scratch, "check that Debian's mirror can be reached")
        _run([apt, *lists, "download", package], scratch, f"enable the part of the archive that holds {package}")
    archive = next(scratch.glob("*.deb"))
    tarball = scratch / "content.tar"
    with tarball.open("wb") as file:
        _run([_client("dpkg-deb"), "--fsys-tarfile", str(archive)], scratch, "remove the cache and try again", file)
    with tarfile.open(tarball) as tar:
        return {asset.member: _member(tar, asset, prefix="./") for asset in assets}


def _private_lists(folder: Path) -> list[str]:
    state, cache = folder / ".apt" / "lists", folder / ".apt" / "cache"
    for path in (state / "partial", cache / "archives" / "partial"):
        path.mkdir(parents=True, exist_ok=True)
    return ["-o", f"Dir::State::Lists={state}", "-o", f"Dir::Cache={cache}"]


def _member(tar: tarfile.TarFile, asset: Asset, prefix: str = "") -> bytes:
    try:
        stream = tar.extractfile(prefix + asset.member)
    except KeyError:
        stream = None
    if stream is None:
        raise AssetError(f"{asset.package} holds no {asset.member}", "another release of the package may hold it")
    return stream.read()


def _client(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise AssetError(f"{name} is not installed", f"`make setup` installs it; by hand: apt-get install {name}")
    return path


def _run(command: list[str], folder: Path, hint: str, stdout: object = subprocess.PIPE) -> None:
    try:
        done = subprocess.run(  # type: ignore[call-overload]  # one overload a kind of stdout
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=CLIENT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssetError(f"{' '.join(command)}: no end after {CLIENT_TIMEOUT_S} s", hint or "try again") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()
        raise AssetError(f"{' '.join(command)}: {last[-1] if last else f'exit {done.returncode}'}", hint or "try again")


def main() -> int:
    """Fetch and print the paths; exit 1 with one clear error when that fails."""
    parser = argparse.ArgumentParser(description="Fetch the model and the video of the demo and the tests.")
    parser.add_argument(
        "--cache", type=Path, help="folder to keep them in; default: OMMATID_CACHE/assets or .cache/assets"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object: key -> path")
    options = parser.parse_args()
    try:
        paths = fetch_assets(options.cache)
    except (AssetError, OSError) as error:
        print(f"error: {error}\n\nhint: {getattr(error, 'hint', 'check free space and permissions')}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({key: str(path) for key, path in paths.items()}, indent=2))
    else:
        print("\n".join(str(path) for path in paths.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
