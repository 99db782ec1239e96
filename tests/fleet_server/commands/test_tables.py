import pytest
from rich.console import Console

from fleet_server.commands import tables

COLUMNS = ("device", "model", "digest", "why")
ROW = ("cam-1", "street 2", "0123456789abcdef", "[red] is no markup, and this goes on")


def on_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(
        tables,
        "Console",
        lambda **options: Console(**{"force_terminal": True, "width": width, **options}),
    )


def test_off_a_terminal_everything_stands_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_table(COLUMNS, [ROW], spare=("digest",))

    out, err = capsys.readouterr()
    assert all(cell in out.splitlines()[2] for cell in ROW)
    assert err == ""


def test_a_narrow_terminal_loses_spare_columns_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_terminal(monkeypatch, 64)

    tables.print_table(COLUMNS, [ROW], spare=("digest", "model"))

    out, err = capsys.readouterr()
    assert "digest" not in out
    assert all(cell in out.splitlines()[2] for cell in (ROW[0], ROW[1], ROW[3]))
    assert "not shown for want of width: digest (" in err


def test_what_does_not_fit_is_folded_and_never_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_terminal(monkeypatch, 24)

    tables.print_table(("device", "why"), [("cam-1", "x" * 100)])

    out, _ = capsys.readouterr()
    assert out.count("x") == 100
    assert max(len(line) for line in out.splitlines()) < 60
