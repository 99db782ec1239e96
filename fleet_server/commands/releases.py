"""`fleet releases`: what was pushed."""

import click

from fleet_server.client import FleetClient
from fleet_server.commands.tables import figure, print_table, when
from fleet_server.profile import Station
from ommatid.cli import echo_json, examples


@click.command(epilog=examples("fleet releases"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def releases(station: Station, *, as_json: bool) -> None:
    """List the signed releases, the newest first."""
    with FleetClient(station.profile()) as client:
        answer = client.get("/v1/releases")
    if as_json:
        echo_json(answer)
        return
    columns = ("model", "version", "target", "counter", "KB", "hardware", "agent from", "digest", "pushed")
    rows = [
        (
            one["model"],
            one["version"],
            one["target"],
            str(one["release_counter"]),
            figure(one["size_bytes"] / 1000),
            ", ".join(one["hardware"]),
            one["minimum_agent"],
            one["digest"][:12],
            when(one["pushed_at"]),
        )
        for one in answer
    ]
    print_table(columns, rows, numbers=("counter", "KB"), spare=("agent from", "digest", "hardware"))
    if not rows:
        click.echo("nothing was pushed yet: `fleet push BUNDLE --keys KEYDIR`", err=True)
