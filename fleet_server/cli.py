"""The `fleet` command: make a server, run it, and steer it."""

from pathlib import Path

import click

from fleet_server.commands.devices import devices
from fleet_server.commands.init import init
from fleet_server.commands.page import page
from fleet_server.commands.push import push
from fleet_server.commands.releases import releases
from fleet_server.commands.revoke import revoke
from fleet_server.commands.rollout import rollout
from fleet_server.commands.serve import serve
from fleet_server.commands.telemetry import telemetry
from fleet_server.commands.token import token
from fleet_server.profile import Station
from ommatid.cli import Group, run_cli, version_option


@click.group(cls=Group)
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


for command in (init, serve, token, push, rollout, devices, releases, telemetry, page, revoke):
    fleet.add_command(command)


def main() -> None:
    """Run the program."""
    run_cli(fleet)
