"""What the engine knows of the update under way: one small file, fsynced before each act."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator

from agent.update.release import Release
from ommatid.contract.digests import Sha256
from ommatid.contract.messages import UpdateState
from ommatid.disk import Disk, replace_file
from ommatid.errors import StorageError

KEPT_FAILURES: Final = 64
"""Digests that are remembered as failed; the oldest are forgotten first."""

logger = logging.getLogger(__name__)


class Record(BaseModel):
    """One update, from offer to end; the last one stays until the next offer.

    The fields that outlive one update are `desired_rev` and `failed`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    state: UpdateState = UpdateState.IDLE
    desired_rev: NonNegativeInt = Field(0, description="the newest director document accepted")
    failed: dict[Sha256, NonNegativeInt] = Field(
        default_factory=dict, description="digest -> release counter at which it failed by its own fault"
    )
    reported: bool = Field(True, description="the reporter has this state")
    release: Release | None = None
    base: Sha256 | None = Field(None, description="what the model's `current` named when the offer came")
    by_order: bool = Field(False, description="back to the previous bundle: no download, no trial")
    trial_passed: bool = False
    attempts: dict[UpdateState, NonNegativeInt] = Field(default_factory=dict)
    part_bytes: NonNegativeInt = Field(0, description="size of the download at the last attempt")
    restarts: NonNegativeInt = Field(0, description="of the agent, during this probation")
    error: str | None = Field(None, description="class of what went wrong")
    reason: str | None = None
    remember: bool = Field(False, description="the model itself is at fault")
    retriable: bool = Field(False, description="the same document may be tried again")
    figures: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _an_update_has_a_release(self) -> Self:
        if self.state is not UpdateState.IDLE and self.release is None:
            raise ValueError("an update of no release")
        return self

    def offered(self, release: Release, rev: int, base: str | None) -> Self:
        """Return the record of a new update."""
        fresh = type(self)(desired_rev=rev, failed=self.failed, release=release, base=base)
        return fresh.entered(UpdateState.OFFERED)

    def entered(self, state: UpdateState, **changes: object) -> Self:
        """Return the record in another state, to be reported."""
        return self.model_copy(update={"state": state, "reported": False, **changes})

    def tried(self, state: UpdateState) -> Self:
        """Return the record with one attempt more at what `state` does."""
        return self.model_copy(update={"attempts": {**self.attempts, state: self.attempts.get(state, 0) + 1}})

    def untried(self, state: UpdateState) -> Self:
        """Return the record with one attempt less: it was called off, and did not fail."""
        return self.model_copy(update={"attempts": {**self.attempts, state: max(0, self.attempts.get(state, 0) - 1)}})

    def tried_download(self, part_bytes: int) -> Self:
        """Return the record with one attempt more to download; the first one, if the last got us further."""
        before = 0 if part_bytes > self.part_bytes else self.attempts.get(UpdateState.DOWNLOADING, 0)
        attempts = {**self.attempts, UpdateState.DOWNLOADING: before + 1}
        return self.model_copy(update={"attempts": attempts, "part_bytes": part_bytes})

    def measured(self, figures: Mapping[str, float]) -> Self:
        """Return the record with figures added."""
        return self.model_copy(update={"figures": {**self.figures, **figures}})

    def blamed(self, error: str, reason: str, *, remember: bool, retriable: bool) -> Self:
        """Return the record with what went wrong, still in its state."""
        return self.model_copy(update={"error": error, "reason": reason, "remember": remember, "retriable": retriable})

    def cleared(self) -> Self:
        """Return the record with nothing wrong."""
        return self.model_copy(update={"error": None, "reason": None, "remember": False, "retriable": False})

    def ended(self, state: UpdateState) -> Self:
        """Return the record in a final state; a model at fault is remembered."""
        failed = self.failed
        if self.remember and self.release is not None:
            failed = {**failed, self.release.sha256: self.release.release_counter}
            failed = dict(list(failed.items())[-KEPT_FAILURES:])
        return self.entered(state, failed=failed)


class RecordFile:
    """`update.json` of one state directory."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk

    def load(self) -> tuple[Record, str | None]:
        """Return the record, and what was wrong with it: a damaged one counts as idle.

        Raises:
            StorageError: The disk cannot be read.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return Record(), None
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}", hint="check this disk") from error
        try:
            return Record.model_validate_json(content), None
        except ValidationError as error:
            first = error.errors()[0]["msg"]
            logger.warning("%s: damaged, starting afresh: %s", self._path, first)
            return Record(), f"{self._path}: {len(content)} bytes that are no record: {first}"

    def save(self, record: Record) -> None:
        """Make the record durable.

        Raises:
            StorageError: The disk is full, read-only or broken; the old record is still there.
        """
        replace_file(self._disk, self._path, record.model_dump_json(exclude_defaults=True).encode())
