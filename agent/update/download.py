"""Fetch one bundle over HTTP: go on where the last attempt ended, give up in the end, believe only the digest.

What was fetched lies in a `.part` file, fsynced every few MiB. A power cut may still leave zeros in it, so a wrong
digest counts against the server only when every byte came from it in one go; else the download starts over once.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from agent.update.errors import DownloadRefusedError, DownloadStoppedError, LengthMismatchError
from agent.update.ports import Clock, Fetched
from agent.update.release import Release
from ommatid.contract.digests import sha256_file
from ommatid.disk import Disk
from ommatid.errors import DigestMismatchError, LinkError, StorageError

RETRY_STATUSES: Final = frozenset({408, 425, 429})
"""The client errors that say "later", beside every 5xx."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """How patient a download is.

    tries: in a row without `progress_bytes` of progress; then the download ends with an error.
    first_pause_s, longest_pause_s: the pause before try n is random between 0 and first * 2**n, at most the longest
        (full jitter, as in "Exponential Backoff And Jitter", AWS architecture blog, 2015).
    slowest_bytes_s: a try slower than this over `rate_window_s` counts as hung.
    sync_bytes: at most so much is fetched again after a power cut.
    """

    tries: int = 8
    progress_bytes: int = 64 * 1024
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    connect_timeout_s: float = 15.0
    read_timeout_s: float = 30.0
    slowest_bytes_s: float = 128.0
    rate_window_s: float = 60.0
    sync_bytes: int = 4 * 1024 * 1024


class _TryFailedError(Exception):
    """One try failed; another may do."""


class Download:
    """The `Fetch` port over httpx. One thread at a time calls an instance."""

    def __init__(
        self,
        client: httpx.Client,
        url: Callable[[Release], str],
        headers: Callable[[], Mapping[str, str]],
        disk: Disk,
        clock: Clock,
        policy: DownloadPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the client with the pinned CA; `headers` gives the bearer token, anew for each try, never logged."""
        self._client = client
        self._url = url
        self._headers = headers
        self._disk = disk
        self._clock = clock
        self._sleep = sleep
        self._policy = policy or DownloadPolicy()

    def __call__(self, release: Release, part: Path, stopped: Callable[[], bool]) -> Fetched:
        """See `Fetch`."""
        attempt = _Attempt(release, part, stopped, before=_size(part))
        while True:
            self._complete(attempt)
            actual = sha256_file(part)
            if actual == release.sha256:
                self._disk.sync(part)
                return Fetched(attempt.before, attempt.fetched)
            self._disk.unlink(part)
            if attempt.from_zero:
                raise DigestMismatchError(release.path, release.sha256, actual)
            logger.warning("%s: what was on disk is damaged; starting over", release.path)
            attempt.start_over()

    def _complete(self, attempt: "_Attempt") -> None:
        failures = 0
        while (start := _size(attempt.part)) != attempt.release.length:
            attempt.check_stopped()
            try:
                self._try(attempt, start)
            except (_TryFailedError, httpx.HTTPError) as error:
                progressed = _size(attempt.part) >= start + self._policy.progress_bytes
                failures = 1 if progressed else failures + 1
                reason = str(error) or type(error).__name__
                logger.info("%s: try %d: %s", attempt.release.path, failures, reason)
                if failures >= self._policy.tries:
                    raise LinkError(
                        f"{attempt.release.path}: {reason}, after {failures} tries",
                        hint="is the server reachable from this device?",
                    ) from error
                self._pause(attempt, failures)

    def _try(self, attempt: "_Attempt", start: int) -> None:
        """Make one request, and append what it gives."""
        headers = {**self._headers(), "Accept-Encoding": "identity"}
        if start > attempt.release.length:
            self._disk.unlink(attempt.part)
            attempt.start_over()
            start = 0
        if start and not attempt.ignore_part:
            headers["Range"] = f"bytes={start}-"
        policy = self._policy
        timeout = httpx.Timeout(policy.read_timeout_s, connect=policy.connect_timeout_s)
        with self._client.stream("GET", self._url(attempt.release), headers=headers, timeout=timeout) as response:
            _check_answer(response, attempt, start)
            if response.status_code == httpx.codes.OK and start:
                self._disk.unlink(attempt.part)
                attempt.start_over()
                start = 0
            self._append(attempt, start, response.iter_raw())

    def _append(self, attempt: "_Attempt", start: int, chunks: Iterator[bytes]) -> None:
        length, end, synced = attempt.release.length, start, start
        rate = _Rate(self._clock, self._policy)
        for chunk in chunks:
            if end + len(chunk) > length:
                self._disk.unlink(attempt.part)
                raise LengthMismatchError(attempt.release.path, length, f"more than {length}")
            self._disk.append(attempt.part, chunk)
            end += len(chunk)
            attempt.fetched += len(chunk)
            if end - synced >= self._policy.sync_bytes:
                self._disk.sync(attempt.part)
                synced = end
            attempt.check_stopped()
            rate.check(len(chunk))
        if end < length:
            raise _TryFailedError(f"the connection ended at byte {end} of {length}")

    def _pause(self, attempt: "_Attempt", failures: int) -> None:
        longest_s = min(self._policy.longest_pause_s, self._policy.first_pause_s * 2 ** (failures - 1))
        remaining_s = random.uniform(0, longest_s)  # noqa: S311 (jitter, not a secret)
        while remaining_s > 0:
            attempt.check_stopped()
            self._sleep(min(1.0, remaining_s))
            remaining_s -= 1.0


@dataclass(slots=True)
class _Attempt:
    """One call of `Download`, over all its tries."""

    release: Release
    part: Path
    stopped: Callable[[], bool]
    before: int
    fetched: int = 0
    ignore_part: bool = False

    @property
    def from_zero(self) -> bool:
        """Tell whether every byte in the part came over the network in this call."""
        return self.before == 0

    def start_over(self) -> None:
        """Count what was found on disk as useless."""
        self.before = 0
        self.ignore_part = False

    def check_stopped(self) -> None:
        """Raise if the download shall end."""
        if self.stopped():
            raise DownloadStoppedError(f"{self.release.path}: download stopped")


class _Rate:
    """Notice a connection that lives, and carries nothing."""

    def __init__(self, clock: Clock, policy: DownloadPolicy) -> None:
        self._clock = clock
        self._policy = policy
        self._since_s = clock.monotonic_s()
        self._bytes = 0

    def check(self, size: int) -> None:
        """Count bytes; raise when a whole window was too slow."""
        self._bytes += size
        elapsed_s = self._clock.monotonic_s() - self._since_s
        if elapsed_s < self._policy.rate_window_s:
            return
        if self._bytes < self._policy.slowest_bytes_s * elapsed_s:
            raise _TryFailedError(f"only {self._bytes} bytes in {elapsed_s:.0f} s")
        self._since_s += elapsed_s
        self._bytes = 0


def _check_answer(response: httpx.Response, attempt: _Attempt, start: int) -> None:
    """Raise unless the body can be appended at `start`, or is the whole bundle."""
    release, status = attempt.release, response.status_code
    if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and start:
        attempt.ignore_part = True
        raise _TryFailedError("the server cannot go on from here")
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in RETRY_STATUSES:
        raise _TryFailedError(f"the server answers {status}")
    if status not in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
        raise DownloadRefusedError(
            f"{release.path}: the server answers {status} {response.reason_phrase}",
            hint="is this release still on the server, and this device still enrolled?",
        )
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _TryFailedError("the server or a proxy encodes the bundle")
    if status == httpx.codes.PARTIAL_CONTENT:
        expected = f"bytes {start}-{release.length - 1}/{release.length}"
        if not start or response.headers.get("Content-Range") != expected:
            attempt.ignore_part = True
            raise _TryFailedError("the server sends another part than it was asked for")
        return
    said = response.headers.get("Content-Length")
    if said is not None and said != str(release.length):
        raise LengthMismatchError(release.path, release.length, said)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", hint="check this disk") from error
