"""`fleet telemetry`: what the devices measured."""

import click
from pydantic import TypeAdapter

from fleet_server.client import FleetClient
from fleet_server.commands.tables import figure, print_table
from fleet_server.profile import Station
from fleet_server.telemetry import TelemetryView
from ommatid.cli import echo_json, examples

SHOWN = ("brightness", "contrast", "sharpness_fine", "confidence", "objects")
SPARE = ("contrast", "sharpness_fine", "windows", "brightness", "confidence", "seen most", "p50 ms")


@click.command(short_help="Show what the devices measured.", epilog=examples("fleet telemetry --minutes 1440"))
@click.option(
    "--minutes",
    type=click.FloatRange(0, 366 * 1440, min_open=True),
    default=60,
    show_default=True,
    help="How far back.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every signal.")
@click.pass_obj
def telemetry(station: Station, minutes: float, *, as_json: bool) -> None:
    """Add up the telemetry windows of the last MINUTES per device; for each signal its mean is shown."""
    with FleetClient(station.profile()) as client:
        answer = client.get("/v1/telemetry", {"minutes": str(minutes)})
    if as_json:
        echo_json(answer)
        return
    measured = TypeAdapter(list[TelemetryView]).validate_python(answer)
    columns = ("device", "windows", "frames", "dropped", "flagged", "fps", "p50 ms", "p99 ms", *SHOWN, "seen most")
    print_table(columns, [_row(one) for one in measured], numbers=columns[1:-1], spare=SPARE)
    if not measured:
        click.echo(f"no telemetry window arrived in the last {minutes:g} minutes", err=True)


def _row(one: TelemetryView) -> tuple[str, ...]:
    means = (one.signals[name].mean if name in one.signals else None for name in SHOWN)
    return (
        one.id,
        str(one.windows),
        figure(one.frames),
        figure(one.dropped),
        figure(one.flagged),
        figure(one.fps, 1),
        figure(one.p50_ms, 1),
        figure(one.p99_ms, 1),
        *(figure(mean, 2) for mean in means),
        ", ".join(f"{label} {count:,}" for label, count in list(one.classes.items())[:3]),
    )
