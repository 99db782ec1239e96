"""Follow a chain of TUF roots: the first is trusted because it is pinned, each other because the last one signs it."""

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, T

from ommatid.contract.trust.errors import MetadataFormatError, RootMismatchError


def pinned_root(content: bytes, what: str) -> Root:
    """Return the first root of a chain.

    Raises:
        MetadataFormatError: It is not a root document.
        RootMismatchError: It is not signed by its own keys.
    """
    return _verified(None, content, what)


def next_root(root: Root, content: bytes, what: str) -> Root:
    """Return the successor of `root`, signed by the keys of both and one version newer.

    Raises:
        MetadataFormatError: It is not a root document, or not of the next version.
        RootMismatchError: `root` does not lead to it.
    """
    newer = _verified(root, content, what)
    if newer.version != root.version + 1:
        raise MetadataFormatError(what, f"version {newer.version} where {root.version + 1} is due")
    return newer


def parse(content: bytes, kind: type[T], what: str) -> tuple[Metadata[T], bytes]:
    """Return a document of one kind, not yet verified, and the bytes that its signatures are over.

    Raises:
        MetadataFormatError: It is not such a document.
    """
    try:
        metadata: Metadata[T] = Metadata.from_bytes(content)
        if metadata.signed.type == kind.type:
            return metadata, metadata.signed_bytes
    except (exceptions.RepositoryError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MetadataFormatError(what, error) from error
    raise MetadataFormatError(what, f"{metadata.signed.type} metadata where {kind.type} is due")


def _verified(root: Root | None, content: bytes, what: str) -> Root:
    metadata, signed_bytes = parse(content, Root, what)
    newer = metadata.signed
    try:
        for signer in (root or newer, newer):
            signer.verify_delegate(Root.type, signed_bytes, metadata.signatures)
    except exceptions.UnsignedMetadataError as error:
        raise RootMismatchError(what, error) from error
    return newer
