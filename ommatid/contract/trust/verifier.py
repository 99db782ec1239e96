"""The verifier by hand, against any TUF repository: what `edge-agent trust` does.

Unlike the agent's own checks it keeps whatever was verified before something failed, as the TUF specification has it,
and judges expiry by this machine's clock alone.
"""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
from tuf.api.metadata import Metadata

from ommatid.contract.trust.download import save_target
from ommatid.contract.trust.fetch import HttpxFetcher
from ommatid.contract.trust.folder import MetadataFolder
from ommatid.contract.trust.release import ReleaseClient
from ommatid.contract.trust.roots import pinned_root
from ommatid.disk import RealDisk
from ommatid.errors import BadInputError, LinkError, TrustError

MAX_ROOT_BYTES: Final = 512_000


def init(folder: Path, root: Path) -> None:
    """Start trusting from a root document; doing it again with the same one is fine.

    Raises:
        TrustError: It is not a root, or the folder was begun with another one.
        OSError: The file cannot be read.
    """
    with root.open("rb") as file:
        content = file.read(MAX_ROOT_BYTES)
    try:
        pinned_root(content, str(root))
    except TrustError as error:
        error.hint = "this file is damaged or altered: get root.json again, from a place that you trust"
        raise
    metadata = MetadataFolder(folder, RealDisk())
    with metadata.locked():
        metadata.pin(content)


def refresh(folder: Path, url: str) -> dict[str, int]:
    """Fetch and verify newer metadata; return the version of each role.

    Raises:
        TrustError, LinkError: As `ReleaseClient.refresh`.
    """
    with _refreshed(folder, url):
        pass
    return {path.stem: Metadata.from_bytes(path.read_bytes()).signed.version for path in sorted(folder.glob("*.json"))}


def download(folder: Path, url: str, names: Sequence[str], base_url: str, target_dir: Path) -> dict[Path, bool]:
    """Fetch newer metadata, then the named targets; return each file, and whether it had to be fetched.

    Raises:
        BadInputError: Nobody who is trusted signed a target of this name.
        TrustError, LinkError: As `ReleaseClient.refresh` and `save_target`.
    """
    files = {}
    with _refreshed(folder, url) as (client, fetcher):
        for name in names:
            entry = client.find(name)
            if entry is None:
                raise BadInputError(f"{name}: nobody who is trusted here signed a target of this name")
            path, fetched = save_target(entry, base_url, fetcher, target_dir, digest_prefix=client.consistent_snapshot)
            files[path] = fetched
    return files


@contextmanager
def _refreshed(folder: Path, url: str) -> Iterator[tuple[ReleaseClient, HttpxFetcher]]:
    metadata = MetadataFolder(folder, RealDisk())
    pinned = metadata.pinned
    if pinned is None:
        raise BadInputError(f"{folder}: no root is trusted here yet", hint="begin with `init ROOT`")
    with metadata.locked(), httpx.Client(follow_redirects=True) as http:
        fetcher = HttpxFetcher(http)
        client = ReleaseClient(metadata.stage(), url, pinned, fetcher, datetime.now(UTC))
        try:
            client.refresh()
            yield client, fetcher
        except LinkError as error:
            if _is_untrusted(error):
                error.hint = "if the repository has a CA of its own, put SSL_CERT_FILE=ca.crt before the command"
            raise
        finally:
            metadata.commit()


def _is_untrusted(error: BaseException | None) -> bool:
    """Tell whether a certificate that nobody vouches for is behind an error."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None
