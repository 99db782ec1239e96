"""`fleet init`: make a new fleet."""

from datetime import UTC, datetime
from pathlib import Path

import click

from fleet_server.founding import found
from fleet_server.settings import Settings
from ommatid.cli import examples, read_secret
from ommatid.contract.topics import IDENTIFIER
from ommatid.errors import BadInputError

PORT = click.IntRange(1, 65535)


@click.command(
    epilog=examples(
        "fleet init /srv/fleet --keys /media/usb/release-keys \\", "    --name fleet.example --host 0.0.0.0"
    )
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--keys",
    required=True,
    type=click.Path(path_type=Path),
    help="New folder for the release keys. Not on the server: best on a medium that is put away.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is everywhere.")
@click.option("--name", default="localhost", show_default=True, help="Name under which devices reach the server.")
@click.option("--more-names", "more_names", multiple=True, help="Further names in the certificate; repeat.")
@click.option("--http-port", default=8443, show_default=True, type=PORT, help="Port of API and page.")
@click.option("--mqtt-port", default=8883, show_default=True, type=PORT, help="Port of the MQTT broker.")
@click.option("--tenant", default="default", show_default=True, help="Whose fleet it is: a-z, 0-9 and '-'.")
@click.option("--passphrase-file", help="File with a passphrase for the release keys, or - for standard input.")
def init(
    folder: Path,
    keys: Path,
    host: str,
    name: str,
    more_names: tuple[str, ...],
    http_port: int,
    mqtt_port: int,
    tenant: str,
    passphrase_file: str | None,
) -> None:
    """Make keys, database, CA and settings of a new fleet in DIR."""
    if not IDENTIFIER.match(tenant):
        raise BadInputError(f"tenant {tenant!r} is not a name", hint="a-z, 0-9 and '-', at most 63 characters")
    if http_port == mqtt_port:
        raise BadInputError(f"port {http_port} cannot serve HTTP and MQTT", hint="choose two ports")
    settings = Settings.checked(
        tenant=tenant, host=host, name=name, more_names=more_names, http_port=http_port, mqtt_port=mqtt_port
    )
    passphrase = read_secret(passphrase_file, "passphrase").encode() if passphrase_file else None
    founded = found(folder, keys, settings, passphrase, datetime.now(UTC))
    click.echo(f"{founded.places.root}: a new fleet server for tenant {tenant}", err=True)
    click.echo(f"{founded.keys.folder}: the release keys. Carry them away; they never belong on the server.", err=True)
    click.echo(f"{founded.places.operator_token}: the first operator's token, a secret.", err=True)
    click.echo(f"next: fleet --dir {folder} serve", err=True)
