"""Why a trial refuses a model. The class's name is what the server and the operator see.

TrialError
├── GoldenMismatchError    this device does not compute what the builder computed
├── GoldenAgreementError   the build does not see what the float model sees
├── LatencyError           it is much slower than the model that runs now
├── MemoryLimitError       it needs more memory than it may have
├── TrialCrashError        the trial died of a signal
├── TrialTimeoutError      the trial did not end in time
└── TrialOutputError       the trial ended without a verdict
"""

from ommatid.errors import OmmatidError


class TrialError(OmmatidError):
    """A model is refused before it meets the camera."""


class GoldenMismatchError(TrialError):
    """This device does not compute what the builder computed."""


class GoldenAgreementError(TrialError):
    """The build does not see what the float model sees."""


class LatencyError(TrialError):
    """The model is much slower than the one that runs now."""


class MemoryLimitError(TrialError):
    """The model needs more memory than it may have."""


class TrialCrashError(TrialError):
    """The trial died of a signal: the model crashes the runtime."""


class TrialTimeoutError(TrialError):
    """The trial did not end in time."""


class TrialOutputError(TrialError):
    """The trial ended without a verdict."""
