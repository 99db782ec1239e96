"""How an update fails, beyond what the contract already names."""

from ommatid.errors import BundleError, LinkError, OmmatidError


class DownloadRefusedError(LinkError):
    """The server answers, and says no; asking again would not help."""


class LengthMismatchError(BundleError):
    """The server has more or fewer bytes than were signed."""

    def __init__(self, path: object, expected: int, actual: str) -> None:
        """Name the file and both lengths."""
        super().__init__(
            f"{path}: the server has {actual} bytes, but {expected} were signed",
            hint="push the release again; the server's copy is damaged or altered",
        )


class DownloadStoppedError(OmmatidError):
    """A download was stopped on purpose: a newer order came, or the agent ends. What was fetched is kept."""
