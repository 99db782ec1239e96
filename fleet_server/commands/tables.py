"""Tables for people, on stdout; programs take --json."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich import box
from rich.console import Console
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


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, numbers: Sequence[str] = ()) -> None:
    """Print rows under a header; columns named in `numbers` are set right. Off a terminal nothing is cut or folded."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=1000)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    for row in rows:
        # As Text: a string would be read as markup, and what a device says is none.
        table.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in row))
    if table.row_count:
        console.print(table)


def state(text: str, tone: str) -> Text:
    """Return a state in its colour."""
    return Text(printable(text.replace("_", " ")), STYLES.get(tone, ""))


def figure(value: float | None, digits: int = 0) -> str:
    """Return a number with a fixed count of decimals."""
    return "-" if value is None else f"{value:,.{digits}f}"


def when(text: str | None) -> str:
    """Return a moment of the API in UTC, to the second."""
    return "-" if text is None else f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
