import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from agent.clock import SystemClock
from agent.enroll import WrongServerError, default_device, enroll
from agent.identity import Identity
from agent.renew import due, renew_if_due
from agent.server_errors import ServerRefusedError
from ommatid.contract.enrolment import EnrolmentToken
from ommatid.contract.topics import IDENTIFIER
from ommatid.contract.trust.clock import BUILD_DATE
from ommatid.disk import RealDisk
from ommatid.errors import BadInputError, LinkError
from tests.support.broker import free_port
from tests.support.clock import HandClock
from tests.support.fleet_server import FleetServer
from tests.support.programs import call


def join(state_dir: Path, token: EnrolmentToken, device: str | None = None) -> Identity:
    return enroll(state_dir, token, RealDisk(), SystemClock(), device=device, tags=("lab",))


@pytest.fixture(scope="session")
def token(fleet: FleetServer) -> EnrolmentToken:
    return fleet.token(uses=1000)


def test_a_device_becomes_a_member_and_its_secrets_are_its_own(state_dir: Path, token: EnrolmentToken) -> None:
    made = join(state_dir, token, "cam-first")

    assert Identity.load(state_dir) == made
    assert made.enrolment.device == "cam-first"
    assert made.enrolment.tags == ("lab",)
    files = made.files
    assert {path.stat().st_mode & 0o777 for path in (files.key, files.enrolment)} == {0o600}
    assert files.path.stat().st_mode & 0o777 == 0o700
    assert not list(files.path.glob(".*"))


def test_enrolling_again_with_the_same_server_changes_nothing(state_dir: Path, token: EnrolmentToken) -> None:
    first = join(state_dir, token, "cam-again")

    assert join(state_dir, token) == first
    assert join(state_dir, token, "cam-again") == first


def test_a_member_of_another_fleet_or_name_is_told_how_to_start_anew(state_dir: Path, token: EnrolmentToken) -> None:
    join(state_dir, token, "cam-known")

    with pytest.raises(BadInputError, match="enrolled already, as cam-known") as caught:
        join(state_dir, token, "cam-other")

    assert "identity" in str(caught.value.hint)


def test_a_used_token_is_refused_in_the_servers_words(tmp_path: Path, fleet: FleetServer) -> None:
    token = fleet.token()
    join(tmp_path / "a", token)

    with pytest.raises(ServerRefusedError, match="used up") as caught:
        join(tmp_path / "b", token)

    assert caught.value.hint
    assert Identity.load(tmp_path / "b") is None


def test_a_device_id_that_is_taken_is_refused(tmp_path: Path, token: EnrolmentToken) -> None:
    join(tmp_path / "a", token, "cam-taken")

    with pytest.raises(ServerRefusedError, match="cam-taken"):
        join(tmp_path / "b", token, "cam-taken")


@pytest.mark.parametrize(
    ("field", "what"),
    [("ca_sha256", "CA"), ("release_root_sha256", "release root"), ("director_root_sha256", "director")],
)
def test_a_server_that_is_not_the_one_of_the_token_gets_nothing(
    state_dir: Path, token: EnrolmentToken, field: str, what: str
) -> None:
    other = token.model_copy(update={field: "0" * 64})

    with pytest.raises(WrongServerError, match=what):
        join(state_dir, other)

    assert join(state_dir, token)


def test_a_server_that_is_not_there_is_named(state_dir: Path, token: EnrolmentToken) -> None:
    url = f"https://127.0.0.1:{free_port()}"

    with pytest.raises(LinkError, match=url) as caught:
        join(state_dir, token.model_copy(update={"url": url}))

    assert "fleet serve" in str(caught.value.hint)


def test_a_tag_that_is_none_is_one_clear_error(state_dir: Path, token: EnrolmentToken) -> None:
    with pytest.raises(BadInputError, match="--tag North Gate: not a tag"):
        enroll(state_dir, token, RealDisk(), SystemClock(), device="cam-1", tags=("North Gate",))

    assert not (state_dir / "identity").exists()


def test_a_state_directory_that_cannot_be_made_is_one_clear_error(state_dir: Path, token: EnrolmentToken) -> None:
    (state_dir / "file").write_text("")

    result = call(
        "edge-agent", "enroll", "--token-file", "-", "--state-dir", state_dir / "file", stdin=token.encode(), expect=1
    )

    assert "error: " in result.stderr
    assert join(state_dir, token)


@pytest.mark.parametrize("text", ["", "om1.", "om1.AAAA", "hello", "om1." + base64.b64encode(b"{}").decode()])
def test_what_is_no_token_is_one_clear_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)

    result = call("edge-agent", "enroll", "--token-file", file, "--state-dir", tmp_path / "state", expect=1)

    assert result.stderr.startswith("error: ")
    assert "hint: " in result.stderr
    assert not (tmp_path / "state").exists()


def test_the_token_never_stands_in_the_output(state_dir: Path, token: EnrolmentToken) -> None:
    arguments = ("--token-file", "-", "--state-dir", state_dir, "--json")

    result = call("edge-agent", "enroll", *arguments, stdin=token.encode())

    assert set(json.loads(result.stdout)) == {"device", "tenant", "url"}
    assert token.secret not in result.stdout + result.stderr


def test_the_line_that_starts_it_can_be_copied(
    state_dir: Path, token: EnrolmentToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("edge-agent", "enroll", "--token-file", "-", "--state-dir", state_dir)
    first = call(*command, stdin=token.encode()).stdout.splitlines()
    monkeypatch.setenv("EDGE_AGENT_SOURCE", "street.avi")
    again = call(*command, stdin=token.encode()).stdout.splitlines()

    assert first[1:] == [f"  edge-agent run --state-dir {state_dir} --source VIDEO"]
    assert again[1:] == [f"  edge-agent run --state-dir {state_dir}"]


def test_a_device_without_a_clock_can_verify_its_server(state_dir: Path, token: EnrolmentToken) -> None:
    made = enroll(state_dir, token, RealDisk(), HandClock(wall=10.0), device=None, tags=())
    ca = x509.load_pem_x509_certificate(made.files.ca.read_bytes())

    server = x509.load_pem_x509_certificate(served_certificate(token.url).encode())
    in_1970 = PolicyBuilder().store(Store([ca])).time(datetime(1970, 1, 2, tzinfo=UTC).replace(tzinfo=None))

    in_1970.build_server_verifier(x509.DNSName("localhost")).verify(server, [])
    device = x509.load_pem_x509_certificate(made.files.certificate.read_bytes())
    assert device.not_valid_before_utc.year == 1970
    assert made.enrolment.certified_at == BUILD_DATE


def served_certificate(url: str) -> str:
    import ssl  # noqa: PLC0415 - only here
    from urllib.parse import urlsplit  # noqa: PLC0415 - only here

    parts = urlsplit(url)
    return ssl.get_server_certificate((str(parts.hostname), int(parts.port or 443)))


def test_a_certificate_is_renewed_with_the_proof_of_its_key(state_dir: Path, token: EnrolmentToken) -> None:
    made = join(state_dir, token)
    before = made.files.certificate.read_text()

    early = renew_if_due(made, RealDisk(), SystemClock())
    renewed = renew_if_due(made, RealDisk(), SystemClock(), force=True)

    assert early is None
    assert renewed is not None
    after = made.files.certificate.read_text()
    assert after != before
    keys = [x509.load_pem_x509_certificate(pem.encode()).public_key() for pem in (before, after)]
    assert keys[0] == keys[1]
    assert Identity.load(state_dir) == renewed


def test_a_certificate_is_due_after_two_thirds_of_its_life() -> None:
    came, ends = datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 4, 1, tzinfo=UTC)

    assert not due(came, ends, datetime(2027, 2, 28, tzinfo=UTC))
    assert due(came, ends, datetime(2027, 3, 3, tzinfo=UTC))
    assert due(came, ends, datetime(2030, 1, 1, tzinfo=UTC))


def test_a_default_id_is_an_identifier_and_never_the_same() -> None:
    names = {default_device() for _ in range(10)}

    assert len(names) == 10
    assert all(IDENTIFIER.match(name) for name in names)
