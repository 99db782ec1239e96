"""The command line of edge-agent."""

import fcntl
import json
import logging
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from agent.processes import LOOP_ENVIRONMENT, Program, encode_programs, run_programs
from agent.settings import DEFAULT_STATE_DIR, Settings, load_settings
from agent.trust_cli import trust
from ommatid.cli import Group, configure_logging, echo_json, examples, read_secret, run_cli, version_option
from ommatid.disk import RealDisk
from ommatid.errors import BadInputError
from ommatid.text import printable

# What a command needs is imported in it: `edge-agent --help` and the small parent of `run` stay small.
# ruff: noqa: PLC0415

F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_STATE_DIR = click.option("--state-dir", type=_PATH, help=f"Folder of the agent's state [{DEFAULT_STATE_DIR}].")
_CONFIG = click.option("--config", type=_PATH, help="TOML file of settings [/etc/edge-agent/agent.toml].")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_VERBOSE = click.option("--verbose", is_flag=True, default=None, help="Log details.")
_SOURCE = click.option("--source", help="Video or image folder, such as `video.avi#t=10,30&loop` or `photos#fps=2`.")


def _running_options(command: F) -> F:
    """Add the options of everything that runs."""
    for option in (
        _VERBOSE,
        click.option("--threads", type=click.IntRange(1, 64), help="Threads of one inference [1]."),
        click.option(
            "--http-port",
            type=click.IntRange(0, 65535),
            help="Port of /metrics, /healthz, /readyz, /status; 0 is any [9477].",
        ),
        click.option("--results", help="File that results are appended to as JSON lines; `-` is stdout."),
        click.option(
            "--as-fast-as-possible", is_flag=True, default=None, help="Infer every frame of a file; drop none."
        ),
        click.option("--source-name", help="Name of the source in results and telemetry [camera]."),
        _SOURCE,
        _STATE_DIR,
        _CONFIG,
    ):
        command = option(command)
    return command


@click.group(cls=Group)
@version_option("edge-agent")
def cli() -> None:
    """Run a vision model at a camera, and keep it up to date."""


cli.add_command(trust)


@cli.command(
    short_help="Join a fleet, with a one-time token.",
    epilog=examples(
        "edge-agent enroll --token-file token.txt --device cam-north",
        "ssh server fleet token | edge-agent enroll --token-file - --tag entrance",
    ),
)
@click.option("--token-file", required=True, help="File with the token of `fleet token`; `-` is standard input.")
@click.option("--device", help="Id of this device: a-z, 0-9 and '-' [host name and six random digits].")
@click.option("--tag", "tags", multiple=True, help="Tag that rollouts may select on; may be given again.")
@_STATE_DIR
@_CONFIG
@_JSON
def enroll(
    token_file: str,
    device: str | None,
    tags: tuple[str, ...],
    state_dir: Path | None,
    config: Path | None,
    *,
    as_json: bool,
) -> None:
    """Make this device a member of a fleet, with a one-time token."""
    from agent.clock import SystemClock
    from agent.enroll import enroll as join
    from ommatid.contract.enrolment import EnrolmentToken

    settings = load_settings(config, {"state_dir": state_dir})
    token = EnrolmentToken.decode(read_secret(token_file, "enrolment token"))
    identity = join(settings.state_dir, token, RealDisk(), SystemClock(), device=device, tags=tags)
    member = {name: getattr(identity.enrolment, name) for name in ("device", "tenant", "url")}
    if as_json:
        echo_json(member)
    else:
        click.echo(
            f"{member['device']} is enrolled at {member['url']}; start it with:\n{_start_line(settings, config)}"
        )


@cli.command(
    epilog=examples(
        "edge-agent run --source 'street.avi#loop'",
        "edge-agent run --bundle street-2-int8-x86.bundle --source photos/ --results -",
    )
)
@_running_options
@click.option("--bundle", type=_PATH, help="Run this bundle, without any server, until the source ends.")
def run(config: Path | None, bundle: Path | None, **flags: Any) -> None:  # noqa: ANN401 - the settings validate them
    """Run loop and supervisor, and start each again when it dies."""
    settings = load_settings(config, flags)
    configure_logging(verbose=settings.verbose)
    if bundle is not None:
        sys.exit(_run_bundle(settings, bundle))
    from agent.app import enrolled, loop_config

    enrolled(settings.state_dir)
    programs = [_loop(loop_config(settings).encode()), _supervisor(settings, serverless=False)]
    with _only_one(settings.state_dir) as lock:
        os.set_inheritable(lock, True)
        _become("agent.processes", encode_programs(programs), {})


@cli.command(epilog=examples("edge-agent loop --source 'street.avi#loop'"))
@_running_options
def loop(config: Path | None, **flags: Any) -> NoReturn:  # noqa: ANN401 - the settings validate them
    """Run the camera loop alone, as its systemd unit does."""
    from agent.app import loop_config

    document = loop_config(load_settings(config, flags)).encode()
    _become("agent.loop", document, LOOP_ENVIRONMENT)


@cli.command(epilog=examples("edge-agent supervise --http-port 9477"))
@_running_options
def supervise(config: Path | None, **flags: Any) -> NoReturn:  # noqa: ANN401 - the settings validate them
    """Run the supervisor alone, as its systemd unit does."""
    settings = load_settings(config, flags)
    _become("agent.supervisor", _supervisor(settings, serverless=False).config, {})


@cli.command(epilog=examples("edge-agent status", "edge-agent status --json | jq .model"))
@_STATE_DIR
@_CONFIG
@_JSON
def status(state_dir: Path | None, config: Path | None, *, as_json: bool) -> None:
    """Say what this device does, or did last."""
    from agent.status import as_document, read_status, table

    found = read_status(load_settings(config, {"state_dir": state_dir}).state_dir, RealDisk())
    if as_json:
        echo_json(as_document(found))
    else:
        click.echo(table(found))


@cli.command(epilog=examples("edge-agent doctor --source street.avi"), short_help="Check all that a device needs.")
@_STATE_DIR
@_CONFIG
@_SOURCE
@_JSON
def doctor(state_dir: Path | None, config: Path | None, source: str | None, *, as_json: bool) -> None:
    """Look at everything that a device needs; exit 1 if something is broken."""
    from agent.clock import SystemClock
    from agent.doctor import examine

    # What a check meets is in its line; the library's own words beside it would be said twice.
    logging.getLogger().addHandler(logging.NullHandler())
    settings = load_settings(config, {"state_dir": state_dir, "source": source})
    checks = []
    for check in examine(settings, RealDisk(), SystemClock()):
        checks.append(check)
        if not as_json:
            click.echo(f"{check.verdict:<4}  {check.name}: {printable(check.text)}")
            if check.hint:
                click.echo(f"      {check.hint}")
    if as_json:
        echo_json(checks)
    sys.exit(any(check.verdict == "fail" for check in checks))


def _start_line(settings: Settings, config: Path | None) -> str:
    """Return the command that runs with these settings."""
    line = ["edge-agent", "run"]
    if config is not None:
        line += ["--config", str(config)]
    if settings.state_dir != DEFAULT_STATE_DIR:
        line += ["--state-dir", str(settings.state_dir)]
    if settings.source is None:
        line += ["--source", "VIDEO"]
    return f"  {shlex.join(line)}"


def _run_bundle(settings: Settings, bundle: Path) -> int:
    """Run one bundle in a state directory of its own, which is removed afterwards unless it was named."""
    from agent.app import loop_config
    from agent.standalone import check_source, install_bundle

    temporary = settings.state_dir == DEFAULT_STATE_DIR
    folder = Path(tempfile.mkdtemp(prefix="edge-agent-")) if temporary else settings.state_dir
    default_port = Settings.model_fields["http_port"].default
    changes = {"state_dir": folder, "http_port": 0 if settings.http_port == default_port else settings.http_port}
    settings = settings.model_copy(update=changes)
    try:
        config = loop_config(settings)
        check_source(config.sources[0].source)
        install_bundle(bundle, settings, RealDisk())
        with _only_one(folder):
            supervisor = _supervisor(settings, serverless=True)
            return run_programs([supervisor, _loop(config.encode(), after=folder / "run" / "supervisor.json")])
    finally:
        if temporary:
            shutil.rmtree(folder, ignore_errors=True)


def _loop(config: str, after: Path | None = None) -> Program:
    return Program("loop", "agent.loop", config, LOOP_ENVIRONMENT, starts_after=after)


def _supervisor(settings: Settings, *, serverless: bool) -> Program:
    document = {"settings": settings.model_dump(mode="json"), "serverless": serverless}
    return Program("supervisor", "agent.supervisor", json.dumps(document), ends_all=serverless, keeps_stdout=True)


def _become(module: str, config: str, environment: dict[str, str]) -> NoReturn:
    """Replace this process by one of our modules, with `config` on its standard input."""
    descriptor = os.memfd_create("config")
    os.write(descriptor, config.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.dup2(descriptor, sys.stdin.fileno())
    os.execve(sys.executable, [sys.executable, "-m", module], {**os.environ, **environment})  # noqa: S606 - our own module


@contextmanager
def _only_one(state_dir: Path) -> Iterator[int]:
    """Let no second agent work in a state directory, and sweep what a killed one left; gives the lock's descriptor.

    Raises:
        BadInputError: Another agent runs here.
    """
    run_folder = state_dir / "run"
    RealDisk().mkdir(run_folder)
    with (run_folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInputError(
                f"{state_dir}: another edge-agent runs here", hint="stop it first, or name another --state-dir"
            ) from error
        for stale in (state_dir / "loop.sock", run_folder / "supervisor.json"):
            stale.unlink(missing_ok=True)
        yield lock.fileno()


def main() -> NoReturn:
    """Run the command line."""
    run_cli(cli)
