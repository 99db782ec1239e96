"""Start the supervisor: `python -m agent.supervisor`; its settings come as JSON on standard input."""

import json
import logging
import signal
import sys
from typing import Any

import click

from agent.app import build_supervisor
from agent.processes import EX_CONFIG
from agent.settings import Settings
from agent.supervisor.supervisor import Supervisor
from ommatid.cli import configure_logging, report
from ommatid.errors import BadInputError, OmmatidError

logger = logging.getLogger(__name__)


def main() -> int:
    """Run until SIGTERM or SIGINT, or until the sources end where that was asked for."""
    document: dict[str, Any] = json.load(sys.stdin)
    settings = Settings.model_validate(document["settings"])
    serverless = bool(document["serverless"])
    configure_logging(verbose=settings.verbose)
    try:
        supervisor = build_supervisor(settings, serverless=serverless, ends_with_sources=serverless)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        supervisor.run()
    except OmmatidError as error:
        report(error)
        # A mistake stays one; a full disk or a broken link may be over at the next start.
        return EX_CONFIG if isinstance(error, BadInputError) else 1
    if serverless:
        _print_summary(supervisor)
    return 0


def _print_summary(supervisor: Supervisor) -> None:
    for source in supervisor.final.sources:
        latency = f", p50 {source.p50_ms:.1f} ms, p99 {source.p99_ms:.1f} ms" if source.p50_ms and source.p99_ms else ""
        click.echo(f"{source.name}: {source.frames} frames, {source.dropped} dropped{latency}", err=True)


if __name__ == "__main__":
    sys.exit(main())
