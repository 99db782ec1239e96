"""`fleet token`: let devices join."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Final

import click

from fleet_server.authority import write_secret
from fleet_server.client import FleetClient
from fleet_server.profile import Station
from ommatid.cli import examples
from ommatid.contract.enrolment import check_tag
from ommatid.errors import BadInputError

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SPAN: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])")
LONGEST: Final = timedelta(days=366)


class Span(click.ParamType[float]):
    """A length of time such as 30m, 24h or 7d."""

    name = "span"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        match = SPAN.fullmatch(str(value))
        seconds = int(match[1]) * UNITS[match[2]] if match else 0
        if not 0 < seconds <= LONGEST.total_seconds():
            self.fail(f"{value!r} is not a time such as 30m, 24h or 7d (at most 366d)", param, ctx)
        return float(seconds)


@click.command(
    epilog=examples(
        "fleet token -o token.txt",
        "fleet token --uses 20 --tag north --expires 7d | ssh camera-7 \\",
        "    edge-agent enroll --token-file -",
    )
)
@click.option("--expires", type=Span(), default="24h", show_default=True, help="How long it may be used.")
@click.option("--uses", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="For how many devices.")
@click.option("--tag", "tags", multiple=True, help="Tag of the devices that join with it; repeat.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write it to a new file, mode 0600, not to stdout."
)
@click.pass_obj
def token(station: Station, expires: float, uses: int, tags: tuple[str, ...], output: Path | None) -> None:
    """Print a token that lets devices join; it is a secret."""
    for tag in tags:
        check_tag(tag)
    if output is not None and os.path.lexists(output):
        raise BadInputError(f"{output}: there is something already", hint="nothing is overwritten: name a new file")
    with FleetClient(station.profile()) as client:
        text = client.new_token(expires_s=expires, uses=uses, tags=tags)
    if output is None:
        click.echo(text)
    else:
        write_secret(output, f"{text}\n".encode())
        click.echo(f"{output}: a token for {uses} device{'s' if uses > 1 else ''}", err=True)
