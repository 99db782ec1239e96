"""`fleet page`: where the page is."""

import click

from fleet_server.profile import Station


@click.command()
@click.pass_obj
def page(station: Station) -> None:
    """Print the address of the page, and where the token to log in with lies."""
    profile = station.profile()
    click.echo(f"{profile.server}/")
    click.echo(f"log in with the token in {profile.token_file}", err=True)
