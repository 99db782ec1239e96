"""The exception tree: callers catch a class, never match text.

    OmmatidError
    ├── BadInputError           what a person gave us cannot be used
    ├── ContractError
    │   ├── BundleError         a bundle is damaged, altered or not one
    │   │   └── DigestMismatchError
    │   ├── MessageError        a received message cannot be understood
    │   └── TrustError          signed metadata is refused: fail closed
    │       └── (one class a reason, in ommatid.contract.trust.errors)
    ├── BackendError            a runtime failed to load or to run a model
    ├── SourceError             a camera or a video gives no frames
    ├── StorageError            the disk is full, read-only or broken
    └── LinkError               a server or broker cannot be reached, or refuses

Each message says what happened, where, and what to do. A `hint` is printed on a line of its own.
"""


class OmmatidError(Exception):
    """Something expected went wrong; programs print it as one clear error and exit with 1."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep what happened and where in `message`, and what to do now in `hint`."""
        super().__init__(message)
        self.hint = hint


class BadInputError(OmmatidError):
    """What a person gave us (a file, a folder, an option) cannot be used."""


class ContractError(OmmatidError):
    """A document or file breaks the contract between the programs."""


class BundleError(ContractError):
    """A bundle is damaged, altered, or not a bundle at all."""


class DigestMismatchError(BundleError):
    """A file is not the one the manifest describes."""

    def __init__(self, path: object, expected: str, actual: str) -> None:
        """Name the file and the first digits of both sha256 digests."""
        super().__init__(
            f"{path}: sha256 is {actual[:12]}, but {expected[:12]} was promised",
            hint="the file is damaged or altered: delete it and fetch it again",
        )


class MessageError(ContractError):
    """A received message cannot be understood; it is counted and ignored."""


class TrustError(ContractError):
    """Signed metadata is refused. What runs now goes on running."""


class BackendError(OmmatidError):
    """A runtime failed to load or to run a model."""


class SourceError(OmmatidError):
    """A camera or a video gives no frames."""


class StorageError(OmmatidError):
    """The disk is full, read-only or broken."""


class LinkError(OmmatidError):
    """A server or a broker cannot be reached, or refuses us."""
