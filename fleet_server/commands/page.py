"""`fleet page`: where the page is."""

import click

from fleet_server.profile import Station
from ommatid.cli import examples


@click.command(short_help="Print the address of the page.", epilog=examples("fleet page"))
@click.pass_obj
def page(station: Station) -> None:
    """Print the address of the page, and where the token to log in with lies."""
    profile = station.profile()
    click.echo(f"{profile.server}/")
    click.echo(f"log in with the token in {profile.token_file}", err=True)
