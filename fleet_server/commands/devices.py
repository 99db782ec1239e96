"""`fleet devices`: who is there, what runs, and how well."""

from datetime import UTC, datetime

import click
from pydantic import TypeAdapter
from rich.text import Text

from fleet_server.client import FleetClient
from fleet_server.commands.tables import figure, print_table, state
from fleet_server.inventory import DeviceView
from fleet_server.profile import Station
from fleet_server.web.formats import ago, tone
from ommatid.cli import echo_json, examples


@click.command(epilog=examples("fleet devices", "fleet devices --json | jq '.[].id'"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def devices(station: Station, *, as_json: bool) -> None:
    """List the devices with model, update, frame rate and quality."""
    with FleetClient(station.profile()) as client:
        answer = client.get("/v1/devices")
    if as_json:
        echo_json(answer)
        return
    fleet = TypeAdapter(list[DeviceView]).validate_python(answer)
    columns = ("device", "state", "model", "update", "fps", "p99 ms", "dropped", "quality", "last seen")
    print_table(
        columns,
        [_row(device) for device in fleet],
        numbers=("fps", "p99 ms", "dropped"),
        spare=("dropped", "last seen", "p99 ms"),
    )
    if not fleet:
        click.echo("no device has joined yet: `fleet token` makes a token, `edge-agent enroll` uses it", err=True)


def _row(device: DeviceView) -> tuple[str | Text, ...]:
    update = device.failure.state if device.failure else device.update
    reasons = ", ".join((*device.quality_reasons, *(one for one in device.alarms if one.startswith("source"))))
    return (
        device.id,
        state("online", "good") if device.online else state("offline", "idle"),
        f"{device.model.name} {device.model.version} ({device.model.target})" if device.model else "-",
        state(update, tone(update)),
        figure(device.fps, 1),
        figure(device.p99_ms, 1),
        figure(device.dropped) if device.sources else "-",
        state(f"{device.quality}: {reasons}" if reasons else device.quality, tone(device.quality)),
        ago(device.last_seen, datetime.now(UTC)),
    )
