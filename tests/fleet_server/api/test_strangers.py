"""What somebody without any token can do to the HTTP API: nothing but read what is public."""

import re
import subprocess

import pytest

from fleet_server.api.limits import MAX_BODY_BYTES
from tests.support.fleet_server import FleetServer

WITHOUT_LENGTH = ("--http2", "-X", "POST", "-H", "Content-Type: application/json", "-T", "-")


def curl(server: FleetServer, path: str, body: bytes, *options: str) -> list[str]:
    """Return version, status and bytes sent of one request."""
    line = ["curl", "--silent", "--cacert", str(server.folder / "authority" / "ca.crt"), *options]
    line += ["--output", "-", "--write-out", "\n%{http_version} %{http_code}", f"{server.url}{path}"]
    said = subprocess.run(line, input=body, capture_output=True, timeout=60, check=False).stdout.decode()
    return said.rpartition("\n")[2].split()


@pytest.mark.parametrize("path", ["/v1/enrol", "/v1/renew"])
def test_a_body_that_does_not_say_its_length_is_bounded_in_http2_too(server: FleetServer, path: str) -> None:
    answer = curl(server, path, b" " * (MAX_BODY_BYTES + 1), *WITHOUT_LENGTH)

    # The refusal may overtake the upload: then the stream is reset before curl has read the answer.
    assert answer in (["2", "413"], ["0", "000"])


def test_a_small_body_without_length_is_read(server: FleetServer) -> None:
    assert curl(server, "/v1/enrol", b"{}", *WITHOUT_LENGTH) == ["2", "422"]


def test_a_body_of_unknown_or_too_great_length_is_refused(server: FleetServer) -> None:
    with server.http() as http:
        assert http.post("/v1/enrol", content=iter([b"{}"])).status_code == 411
        assert http.post("/v1/enrol", content=b" " * (MAX_BODY_BYTES + 1)).status_code == 413


@pytest.mark.parametrize("path", ["/", "/login", "/docs", "/redoc"])
def test_no_page_loads_anything_from_elsewhere(server: FleetServer, path: str) -> None:
    with server.http() as http:
        answer = http.get(path)

    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", answer.text)
