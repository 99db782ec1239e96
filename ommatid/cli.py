"""What the command lines of the three programs share: errors without tracebacks, JSON, logging, secrets.

Data goes to stdout, everything else to stderr. Exit 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""

import dataclasses
import errno
import json
import logging
import sys
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from ommatid import __version__
from ommatid.errors import BadInputError, OmmatidError, StorageError
from ommatid.text import printable, printable_json

MAX_SECRET_BYTES: Final = 64 * 1024
INTERRUPTED: Final = 130

F = TypeVar("F", bound=Callable[..., Any])

_OS_ERRORS: Final = {
    errno.ENOSPC: ("the disk is full", "free some space, or name a folder on another disk"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or name a folder on another disk"),
    errno.EROFS: ("the disk is read-only", "name a folder that can be written"),
    errno.EACCES: ("permission denied", "check owner and mode, or run as the user who owns it"),
    errno.EPERM: ("operation not permitted", "check owner and mode, or run as the user who owns it"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.EISDIR: ("is a folder, not a file", "check the path"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "check the path"),
    errno.EADDRINUSE: ("the port is in use", "stop what listens there, or choose another port"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter name"),
    errno.EMFILE: ("too many open files", "raise the limit (`ulimit -n`)"),
}


class Group(click.Group):
    """A click group that prints an expected error as `error:` and `hint:` on stderr, and exits with 1."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's own signature
        """Run the command line; expected errors end it without a traceback."""
        try:
            return super().main(*args, **extra)
        except OmmatidError as error:
            fail(error)
        except OSError as error:
            fail(explain(error))

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run the chosen sub-command; Ctrl-C ends it with one line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


def run_cli(group: click.Group) -> NoReturn:
    """Run a program's command line and leave the process; the whole body of a `main()`."""
    group.main()
    sys.exit(0)


def fail(error: OmmatidError) -> NoReturn:
    """Print an expected error and exit with 1."""
    report(error)
    sys.exit(1)


def report(error: OmmatidError) -> None:
    """Print an expected error on stderr: what happened and where, then what to do."""
    click.echo(f"error: {printable(str(error))}", err=True)
    if error.hint:
        click.echo(f"\nhint: {printable(error.hint)}", err=True)


def explain(error: OSError) -> OmmatidError:
    """Return an operating system's error in our words."""
    what, hint = _OS_ERRORS.get(error.errno or 0, (error.strerror or str(error), None))
    where = f"{error.filename}: " if error.filename is not None else ""
    kind = BadInputError if error.errno in {errno.ENOENT, errno.EISDIR, errno.ENOTDIR} else StorageError
    return kind(f"{where}{what}", hint=hint)


def version_option(program: str) -> Callable[[F], F]:
    """Return the `--version` option of a program: one line, `PROGRAM VERSION`."""
    return click.version_option(__version__, prog_name=program, message="%(prog)s %(version)s")


def examples(*lines: str) -> str:
    """Return the end of a command's `--help`: lines to copy."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def echo_json(document: object) -> None:
    """Print a document on stdout as JSON; dataclasses, pydantic models, paths and times are understood."""
    click.echo(printable_json(json.dumps(document, indent=2, ensure_ascii=False, default=_plain)))


class _PrintableFormatter(logging.Formatter):
    """Log what a device or a server said as text, whatever it said."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line of a record."""
        record.message = printable(record.message)
        return super().formatMessage(record)


def configure_logging(*, verbose: bool = False) -> None:
    """Log to stderr, one line a change of state; `verbose` adds the details of our own programs."""
    handler = logging.StreamHandler(sys.stderr)
    line = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter(_PrintableFormatter(line, "%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for program in ("ommatid", "agent", "optimizer", "fleet_server"):
        logging.getLogger(program).setLevel(logging.DEBUG if verbose else logging.INFO)


def read_secret(source: str, what: str) -> str:
    """Read a token or passphrase from a file, or from standard input when `source` is `-`.

    Raises:
        BadInputError: There is nothing in it, or it is no text.
    """
    try:
        content = sys.stdin.buffer.read(MAX_SECRET_BYTES) if source == "-" else _read_start(Path(source))
        secret = content.decode().strip()
    except UnicodeDecodeError as error:
        raise BadInputError(f"{source}: the {what} is not text", hint=f"name the file that holds the {what}") from error
    if not secret:
        raise BadInputError(f"{source}: no {what} in it", hint=f"name the file that holds the {what}, or `-` for stdin")
    return secret


def _read_start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_SECRET_BYTES)


def _plain(value: object) -> object:
    """Return what JSON can say of a value of ours."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, AbstractSet):
        return sorted(value)
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")
