import errno
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ommatid import __version__
from ommatid.cli import Group, configure_logging, echo_json, explain, read_secret, run_cli, version_option
from ommatid.errors import BadInputError, StorageError, TrustError


def run(error: BaseException | None, *arguments: str) -> Result:
    @click.group(cls=Group)
    @version_option("program")
    def program() -> None:
        """Do nothing."""

    @program.command()
    def act() -> None:
        click.echo("data")
        if error is not None:
            raise error

    return CliRunner().invoke(program, arguments or ["act"])


def test_success_is_zero() -> None:
    result = run(None)

    assert (result.exit_code, result.stdout, result.stderr) == (0, "data\n", "")


def test_an_expected_error_is_an_error_and_a_hint_on_stderr() -> None:
    result = run(TrustError("this happened", hint="do that"))

    assert (result.exit_code, result.stdout) == (1, "data\n")
    assert result.stderr == "error: this happened\n\nhint: do that\n"


def test_an_error_that_repeats_what_a_stranger_said_steers_no_terminal() -> None:
    result = run(TrustError("it said \x1b]0;owned\x07\x9b2J\u202e\nerror: all is well", hint="\x1b[2J"))

    assert result.stderr == (
        "error: it said \\x1b]0;owned\\x07\\x9b2J\\x202e\n    error: all is well\n\nhint: \\x1b[2J\n"
    )


def test_json_of_what_a_stranger_said_steers_no_terminal_and_stays_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    said = {"reason": "\x1b[2J\x9b2J\x7f\u202e ümlaut\n"}

    echo_json(said)

    printed = capsys.readouterr().out
    assert json.loads(printed) == said
    assert not set(printed) & set("\x1b\x9b\x7f\u202e")
    assert "ümlaut" in printed


def test_a_log_line_of_what_a_stranger_said_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()

    logging.getLogger("fleet_server").warning("refused: %s", "\x1b[2J\n2027-01-01T00:00:00 INFO all is well")

    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert [line.startswith(" ") for line in told.splitlines()] == [False, True]


def test_an_error_without_a_hint_is_one_line() -> None:
    assert run(BadInputError("this happened")).stderr == "error: this happened\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.ENOENT, "no such file"),
        (errno.EADDRINUSE, "port is in use"),
    ],
)
def test_what_the_system_refuses_is_said_in_clear_words(number: int, text: str) -> None:
    result = run(OSError(number, "sys", "/some/where"))

    assert result.exit_code == 1
    assert result.stderr.startswith("error: /some/where: ")
    assert text in result.stderr
    assert "\nhint: " in result.stderr


def test_an_unknown_system_error_keeps_its_text() -> None:
    assert str(explain(OSError(errno.ELOOP, "too many links", "/x"))) == "/x: too many links"
    assert str(explain(OSError("strange"))) == "strange"
    assert isinstance(explain(OSError(errno.ENOSPC, "")), StorageError)


def test_a_bug_is_not_hidden() -> None:
    assert isinstance(run(ZeroDivisionError()).exception, ZeroDivisionError)


def test_an_interrupt_is_one_line_and_130() -> None:
    result = run(KeyboardInterrupt())

    assert result.exit_code == 130
    assert result.stderr == "interrupted\n"


def test_wrong_usage_is_two() -> None:
    assert run(None, "nonsense").exit_code == 2


def test_the_version_is_one_line() -> None:
    assert run(None, "--version").stdout == f"program {__version__}\n"


def test_run_cli_leaves_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["program", "--help"])

    with pytest.raises(SystemExit) as caught:
        run_cli(Group("program"))
    assert caught.value.code == 0


@dataclass
class Thing:
    path: Path
    at: datetime


def test_json_understands_what_we_use(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json({"thing": Thing(Path("a/b"), datetime(2026, 1, 2, tzinfo=UTC)), "tags": {"b", "a"}, "name": "ü"})

    assert json.loads(capsys.readouterr().out) == {
        "thing": {"path": "a/b", "at": "2026-01-02T00:00:00+00:00"},
        "tags": ["a", "b"],
        "name": "ü",
    }
    with pytest.raises(TypeError):
        echo_json(object())


@pytest.fixture
def quiet_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("quiet_logging")
def test_logs_go_to_stderr_alone(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logging.getLogger("agent.x").info("%s: changed", "slot")
    logging.getLogger("someone.else").info("chatter")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "INFO    agent.x: slot: changed" in captured.err


def test_a_secret_comes_from_a_file_or_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(" om1.abc\n", encoding="ascii")
    assert read_secret(str(tmp_path / "token"), "token") == "om1.abc"

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"om1.def\n")))
    assert read_secret("-", "token") == "om1.def"

    (tmp_path / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputError, match="not text"):
        read_secret(str(tmp_path / "token"), "token")
    (tmp_path / "token").write_bytes(b"\n")
    with pytest.raises(BadInputError, match="no token in it"):
        read_secret(str(tmp_path / "token"), "token")
