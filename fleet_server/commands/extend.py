"""`fleet extend`: let the releases expire later."""

from datetime import UTC, datetime
from pathlib import Path

import click

from fleet_server.client import FleetClient
from fleet_server.keyring import Keyring
from fleet_server.profile import Station
from fleet_server.push import extend as extend_releases
from ommatid.cli import examples, read_secret


@click.command(epilog=examples("fleet extend --keys /media/usb/release-keys"))
@click.option(
    "--keys", required=True, type=click.Path(path_type=Path), help="Folder of the release keys, from `fleet init`."
)
@click.option("--passphrase-file", help="File with the keys' passphrase, or - for standard input.")
@click.pass_obj
def extend(station: Station, keys: Path, passphrase_file: str | None) -> None:
    """Sign the releases again for another year; a push does so too."""
    passphrase = read_secret(passphrase_file, "passphrase").encode() if passphrase_file else None
    with FleetClient(station.profile()) as client:
        expires = extend_releases(client, Keyring(keys), passphrase, datetime.now(UTC))
    click.echo(f"the releases are good until {expires:%F}")
