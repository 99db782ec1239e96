"""`fleet revoke`: put a device out."""

import click

from fleet_server.client import FleetClient
from fleet_server.profile import Station
from ommatid.cli import examples
from ommatid.contract.topics import IDENTIFIER
from ommatid.errors import BadInputError


@click.command(short_help="Put a device out of the fleet.", epilog=examples("fleet revoke cam-north"))
@click.argument("device")
@click.pass_obj
def revoke(station: Station, device: str) -> None:
    """Put DEVICE out of the fleet: its certificate and token are void, its session is cut."""
    if not IDENTIFIER.match(device):
        raise BadInputError(f"{device!r} is not the name of a device", hint="`fleet devices` lists them")
    with FleetClient(station.profile()) as client:
        client.revoke(device)
    click.echo(f"{device}: revoked", err=True)
