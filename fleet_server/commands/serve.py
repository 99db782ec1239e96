"""`fleet serve`: run the server."""

import click

from fleet_server.places import Places
from fleet_server.profile import Station
from fleet_server.settings import load_settings
from ommatid.cli import configure_logging, examples


@click.command(epilog=examples("fleet --dir /srv/fleet serve"))
@click.option(
    "--bundle-rate-limit",
    type=click.IntRange(min=1),
    metavar="BYTES/S",
    help="Send bundles no faster than this, all downloads together.  [default: from fleet.toml]",
)
@click.option("--verbose", is_flag=True, help="Log the details too.")
@click.pass_obj
def serve(station: Station, bundle_rate_limit: int | None, verbose: bool) -> None:  # noqa: FBT001 - click's flag
    """Serve HTTP and MQTT until told to stop."""
    from fleet_server.app import compose  # noqa: PLC0415 - the other commands start without the server's parts
    from fleet_server.serve import serve as run  # noqa: PLC0415 - same

    configure_logging(verbose=verbose)
    settings = load_settings(Places(station.folder).settings)
    if bundle_rate_limit is not None:
        settings = settings.model_copy(update={"bundle_rate_limit": bundle_rate_limit})
    run(compose(station.folder, settings))
