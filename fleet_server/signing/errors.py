"""Why the server refuses to sign or to publish."""

from ommatid.errors import BadInputError


class KeyFileError(BadInputError):
    """A key file cannot be used."""


class ClockBehindError(BadInputError):
    """This machine's clock is earlier than this release; what it signs would be born expired."""


class PublishError(BadInputError):
    """A signed releases document is refused by the server; nothing was published."""


class NotSignedError(PublishError):
    """The releases document lacks signatures of the release keys that the root names."""


class VersionBackError(PublishError):
    """The releases document does not follow the published one: someone else pushed meanwhile, or it is old."""


class CounterBackError(PublishError):
    """One model name is pushed with a release counter that goes back or stands still."""


class TargetChangedError(PublishError):
    """A release that is already published was changed or removed; releases are only ever added."""
