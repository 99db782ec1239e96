"""The `fleet` command: make a server, run it, and steer it.

A command is imported when it is used: a client that asks one question need not load the server.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from fleet_server.profile import Station
from ommatid.cli import Group, run_cli, version_option

COMMANDS: Final = (
    "init",
    "serve",
    "token",
    "push",
    "extend",
    "rollout",
    "devices",
    "releases",
    "telemetry",
    "page",
    "revoke",
)


class Commands(Group):
    """The sub-commands, each in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        """Return the names, in the order in which a person meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - same
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"fleet_server.commands.{cmd_name}"), cmd_name)
        return command if isinstance(command, click.Command) else None


@click.group(cls=Commands)
@version_option("fleet")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("fleet"),
    envvar="FLEET_DIR",
    show_default=True,
    help="The server's folder (FLEET_DIR).",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    envvar="FLEET_PROFILE",
    help="How to reach a server elsewhere: a copy of its operator.toml (FLEET_PROFILE).  [default: DIR/operator.toml]",
)
@click.pass_context
def fleet(context: click.Context, folder: Path, profile: Path | None) -> None:
    """Bring models to a fleet of cameras, stage by stage, and see how they do."""
    context.obj = Station(folder, profile)


def main() -> None:
    """Run the program; whatever it writes is for its owner alone."""
    os.umask(0o077)
    run_cli(fleet)
