"""A server that is not the one it says it is, and does what it can to hold a device or to fill its memory."""

import time
from pathlib import Path
from threading import Event

import pytest

from agent import stranger
from agent.clock import SystemClock
from agent.enroll import enroll
from agent.identity import Identity
from ommatid.contract.enrolment import EnrolmentToken
from ommatid.disk import RealDisk
from ommatid.errors import LinkError
from tests.support.tls_server import Behaviour, Send, tls_server

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-pem-file\r\n"


def endless(send: Send, _over: Event) -> None:
    send(HEAD + b"\r\n")
    while True:
        send(bytes(65536))


def packed(send: Send, _over: Event) -> None:
    send(HEAD + b"Content-Encoding: gzip\r\n\r\n")
    while True:
        send(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + bytes(65536))


def trickle_body(send: Send, over: Event) -> None:
    send(HEAD + b"\r\n")
    while not over.wait(0.05):
        send(b"-")


def trickle_head(send: Send, over: Event) -> None:
    send(HEAD + b"X: ")
    while not over.wait(0.05):
        send(b"-")


def silent(_send: Send, over: Event) -> None:
    over.wait()


def join(folder: Path, url: str) -> Identity:
    digest = "0" * 64
    token = EnrolmentToken(
        url=url, secret="s" * 16, ca_sha256=digest, release_root_sha256=digest, director_root_sha256=digest
    )
    return enroll(folder / "state", token, RealDisk(), SystemClock(), device="cam", tags=())


@pytest.mark.parametrize("behave", [endless, packed])
def test_a_server_that_never_ends_is_left(tmp_path: Path, behave: Behaviour) -> None:
    with tls_server(tmp_path, behave) as url, pytest.raises(LinkError, match="more than 1048576 bytes"):
        join(tmp_path, url)


@pytest.mark.parametrize("behave", [trickle_body, trickle_head, silent])
def test_a_server_that_trickles_is_left(tmp_path: Path, behave: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stranger, "MAX_S", 1.0)
    began_s = time.monotonic()

    with tls_server(tmp_path, behave) as url, pytest.raises(LinkError, match="no whole answer in 1 s"):
        join(tmp_path, url)

    assert time.monotonic() - began_s < 10
