"""Tables for people, on stdout; programs take --json."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import compress

import click
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ommatid.text import printable

STYLES = {
    "good": "green",
    "busy": "blue",
    "bad": "bold red",
    "warn": "yellow",
    "idle": "dim",
}


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    numbers: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Print rows under a header; columns named in `numbers` are set right.

    On a terminal that is too narrow the columns named in `spare` are left out, the first one first, and it is said
    which. Nothing is ever cut; off a terminal nothing is folded either.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=1000)
    all_rows = list(rows)
    if not all_rows:
        return
    hidden = [name for name in spare if name in columns]
    for count in range(len(hidden) + 1):
        table = _table(columns, all_rows, numbers, hidden[:count])
        if Measurement.get(console, console.options.update(width=1000), table).maximum <= console.width:
            break
    console.print(table)
    if count:
        left_out = ", ".join(name for name in columns if name in hidden[:count])
        click.echo(f"not shown for want of width: {left_out} (--json has everything)", err=True)


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], numbers: Sequence[str], hidden: Sequence[str]
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", collapse_padding=True)
    shown = [name not in hidden for name in columns]
    for column in compress(columns, shown):
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        # As Text: a string would be read as markup, and what a device says is none.
        cells = (Text(printable(cell)) if isinstance(cell, str) else cell for cell in row)
        table.add_row(*compress(cells, shown))
    return table


def state(text: str, tone: str) -> Text:
    """Return a state in its colour."""
    return Text(printable(text.replace("_", " ")), STYLES.get(tone, ""))


def figure(value: float | None, digits: int = 0) -> str:
    """Return a number with a fixed count of decimals."""
    return "-" if value is None else f"{value:,.{digits}f}"


def when(text: str | None) -> str:
    """Return a moment of the API in UTC, to the second."""
    return "-" if text is None else f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
