"""What the server refuses, by class; the HTTP status follows from the class (fleet_server.api.problems)."""

from ommatid.errors import BadInputError, LinkError, OmmatidError


class UnauthorizedError(OmmatidError):
    """There is no token, or nobody has it."""


class ForbiddenError(OmmatidError):
    """The token's role does not allow this."""


class NotFoundError(OmmatidError):
    """There is nothing of this name."""


class ConflictError(OmmatidError):
    """This cannot be done as things are now."""


class TooLargeError(BadInputError):
    """More bytes than the server takes."""


class EnrolmentRefusedError(OmmatidError):
    """The enrolment token is unknown, expired or used up."""


class PortInUseError(LinkError):
    """Another program listens where we want to."""
