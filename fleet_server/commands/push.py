"""`fleet push`: sign a bundle and bring it to the server."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from fleet_server.client import FleetClient, ServerRefusedError
from fleet_server.keyring import Keyring
from fleet_server.profile import Station
from fleet_server.push import Pushed
from fleet_server.push import push as push_bundle
from ommatid.cli import echo_json, examples, read_secret
from ommatid.errors import OmmatidError


@click.command(
    short_help="Verify, sign and upload a bundle.",
    epilog=examples("fleet push street-2-int8-arm.bundle --keys /media/usb/release-keys"),
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--keys", required=True, type=click.Path(path_type=Path), help="Folder of the release keys, from `fleet init`."
)
@click.option("--passphrase-file", help="File with the keys' passphrase, or - for standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print the release, or the error, as JSON.")
@click.pass_obj
def push(
    station: Station,
    bundle: Path,
    keys: Path,
    passphrase_file: str | None,
    as_json: bool,  # noqa: FBT001 - click's flag
) -> None:
    """Verify BUNDLE, sign it as the next release of its model, and upload it."""
    passphrase = read_secret(passphrase_file, "passphrase").encode() if passphrase_file else None
    try:
        pushed = _push(station, bundle, Keyring(keys), passphrase)
    except OmmatidError as error:
        if as_json:
            kind = error.kind if isinstance(error, ServerRefusedError) else type(error).__name__
            echo_json({"error": {"class": kind, "message": str(error), "hint": error.hint}})
        raise
    if as_json:
        echo_json(pushed)
    else:
        click.echo(f"{pushed.path}  counter {pushed.release_counter}  sha256 {pushed.digest}")


def _push(station: Station, bundle: Path, keys: Keyring, passphrase: bytes | None) -> Pushed:
    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with FleetClient(station.profile()) as client, progress:
        task = progress.add_task("uploading", total=bundle.stat().st_size if bundle.is_file() else None)
        pushed = push_bundle(
            client, bundle, keys, passphrase, datetime.now(UTC), lambda count: progress.advance(task, count)
        )
    if not sys.stderr.isatty():
        how = "uploaded" if pushed.uploaded else "was there already"
        click.echo(f"{pushed.path}: {pushed.size_bytes:,} bytes {how}", err=True)
    return pushed
