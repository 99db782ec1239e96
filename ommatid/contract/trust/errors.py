"""Why signed metadata is refused: one class a reason, all of them TrustError.

TrustError
├── MetadataFormatError     not a signed document of the kind that is needed
├── SignatureError          not signed by enough of the keys that the pinned root leads to
│   └── RootMismatchError   a root of another fleet
├── ExpiredError            too old, or the clock is wrong
├── ReplayedError           older than what was accepted before
├── LengthOrHashError       content is not what the signed metadata says
├── WrongDeviceError        a director document for another device
├── NotReleasedError        the director names what the release side never signed
├── OlderReleaseError       below the counter that this device may not go back behind
├── WrongHardwareError      signed for other hardware
├── AgentTooOldError        signed for a newer agent
└── FloorsLostError         both copies of what must never go back are damaged
"""

from ommatid.errors import TrustError

_WITHHELD = "what runs now goes on running; if this repeats, someone between device and server alters what it sends"
_STOLEN = "what runs now goes on running; look whether the server's online key was stolen (see docs/threat-model.md)"


class MetadataFormatError(TrustError):
    """A document is too large, not JSON, or not signed metadata of the needed kind."""

    def __init__(self, what: str, why: object) -> None:
        super().__init__(f"{what} is not usable: {why}", hint=_WITHHELD)


class SignatureError(TrustError):
    """Too few valid signatures by the keys that the pinned root leads to."""

    def __init__(self, what: str, why: object) -> None:
        super().__init__(f"{what} is not signed by the keys that this device trusts ({why})", hint=_STOLEN)


class RootMismatchError(SignatureError):
    """A root that the pinned root does not lead to: of another fleet, or a forgery."""

    def __init__(self, what: str, why: object) -> None:
        super().__init__(what, why)
        self.hint = "this is another fleet's root, or a forgery; to move a device to another fleet, enrol it anew"


class ExpiredError(TrustError):
    """Metadata has expired: the server is down, withholds newer, or the clock of this device is wrong."""

    def __init__(self, what: str, now: str) -> None:
        super().__init__(
            f"{what} has expired; by the clock of this device it is {now}",
            hint="if that is not the time, set the clock; else look whether the fleet server runs",
        )


class ReplayedError(TrustError):
    """A document is older than one that was accepted before."""

    def __init__(self, what: str, why: object) -> None:
        super().__init__(f"{what} is older than one accepted before: {why}", hint=_WITHHELD)


class LengthOrHashError(TrustError):
    """Content does not have the length or digest that signed metadata gives it."""

    def __init__(self, what: str, why: object) -> None:
        super().__init__(f"{what} is not what was signed: {why}", hint=_WITHHELD)


class WrongDeviceError(TrustError):
    """A director document is for another device or tenant."""

    def __init__(self, meant: str, device: str) -> None:
        super().__init__(f"the director document is for {meant}, but this is {device}", hint=_STOLEN)


class NotReleasedError(TrustError):
    """The director names a bundle that the release side never signed."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: the director names it, but {why}", hint=_STOLEN)


class OlderReleaseError(TrustError):
    """The release lies below the counter floor of its model."""

    def __init__(self, path: str, counter: int, floor: int) -> None:
        super().__init__(
            f"{path}: release {counter} is older than release {floor}, behind which this device may not go back",
            hint="release the old model again under a new version: `fleet push` gives it a newer counter",
        )


class WrongHardwareError(TrustError):
    """The release is signed for other hardware."""

    def __init__(self, path: str, hardware: str, meant: str) -> None:
        super().__init__(
            f"{path}: this device is {hardware}, but the release is for {meant}",
            hint="build the model for a target of this hardware, or leave the device out of the rollout",
        )


class AgentTooOldError(TrustError):
    """The release needs a newer agent."""

    def __init__(self, path: str, needed: str, agent: str) -> None:
        super().__init__(f"{path}: needs agent {needed} or newer, this is {agent}", hint="update the agent first")


class FloorsLostError(TrustError):
    """Both copies of the floors are unreadable: without them an old release could come back."""

    def __init__(self, where: object) -> None:
        super().__init__(
            f"{where}: both copies of the update floors are damaged or missing; updates are refused",
            hint="the disk is failing: what runs now goes on running; replace the disk and enrol the device anew",
        )
