import socket
from pathlib import Path

import pytest

from agent.sdnotify import notify


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_hears_us(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = str(tmp_path_factory.mktemp("n") / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{path}" if kind == "abstract" else path)
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{path}" if kind == "abstract" else path)

        notify("READY=1")

        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nowhere"])
def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)

    notify("READY=1")

    assert Path("/nowhere").exists() is False
