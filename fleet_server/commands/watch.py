"""Follow a rollout to its end: one live block on a terminal, one line a change elsewhere; all on stderr."""

import time
from typing import Final

import click
import httpx
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fleet_server.client import FleetClient, ServerRefusedError
from fleet_server.commands.tables import state
from fleet_server.rollouts.views import RolloutView
from fleet_server.web.formats import tone
from ommatid.errors import LinkError
from ommatid.text import printable

ASK_S: Final = 0.5
PATIENCE_S: Final = 120.0
"""How long the server may be away, such as for its restart, before we stop waiting."""
BAR_WIDTH: Final = 40
DEVICES_SHOWN: Final = 12


def watch(client: FleetClient, view: RolloutView) -> RolloutView:
    """Return the rollout once it has ended; it goes on by itself when this is interrupted.

    Raises:
        LinkError: The server stays away, or refuses.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        return _watch_lines(client, view)
    with Live(_block(view), console=console, transient=True) as live:
        while view.state.active:
            time.sleep(ASK_S)
            view = _ask(client, view)
            live.update(_block(view))
    return view


def _watch_lines(client: FleetClient, view: RolloutView) -> RolloutView:
    told: dict[str, str] = {}
    while True:
        for subject, text in _lines(view).items():
            if told.get(subject) != text:
                told[subject] = text
                click.echo(f"{subject}: {printable(text)}", err=True)
        if not view.state.active:
            return view
        time.sleep(ASK_S)
        view = _ask(client, view)


def _lines(view: RolloutView) -> dict[str, str]:
    """Return what there is to say of the rollout and of each device."""
    reason = f": {view.reason}" if view.reason else ""
    lines = {f"rollout {view.id}": f"{view.state}, stage {view.stage} of {len(view.stages)}{reason}"}
    for part in view.devices:
        why = f" ({part.error}: {part.reason})" if part.error else ""
        lines[part.id] = f"{part.state.replace('_', ' ')}{why}"
    return lines


def _ask(client: FleetClient, view: RolloutView) -> RolloutView:
    """Ask for the rollout again, waiting for a server that is away for a while."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return RolloutView.model_validate(client.get(f"/v1/rollouts/{view.id}"))
        except LinkError as error:
            answered = isinstance(error, ServerRefusedError) and error.status < httpx.codes.INTERNAL_SERVER_ERROR
            if answered or time.monotonic() > deadline:
                raise
        time.sleep(ASK_S)


def _block(view: RolloutView) -> Group:
    """Return the rollout as a few lines: each stage with its bar, and the devices of the current one."""
    head = Text.assemble(
        (f"{view.model} {view.version} ", "bold"),
        state(view.state, tone(view.state)),
        f"  {printable(view.reason or '')}",
    )
    bars = Table.grid(padding=(0, 2))
    for stage in view.stages:
        done = stage.committed + stage.failed
        style = "red" if stage.failed else "green"
        bars.add_row(
            f"stage {stage.number} ({stage.amount})",
            ProgressBar(max(1, stage.planned), done, BAR_WIDTH, complete_style=style, finished_style=style),
            f"{stage.committed} of {stage.planned}",
            Text(stage.state, "dim"),
        )
    parts = Table.grid(padding=(0, 2))
    for part in [part for part in view.devices if part.stage == view.stage][:DEVICES_SHOWN]:
        why = Text(printable(f"{part.error}: {part.reason}")) if part.error else ""
        parts.add_row(part.id, state(part.state, tone(part.state)), why)
    return Group(head, bars, parts)
