"""Releases on their way to a running server: signed here, checked there, fetched in ranges."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from fleet_server.client import FleetClient
from fleet_server.keyring import Keyring
from fleet_server.push import push
from fleet_server.signing.errors import VersionBackError
from fleet_server.signing.keys import create_key
from fleet_server.signing.release import add_target
from ommatid.contract.bundle import write_bundle
from ommatid.contract.digests import sha256_bytes, sha256_file
from ommatid.contract.trust.facts import ReleaseFacts, release_path
from tests.support.fake_device import FakeDevice
from tests.support.fleet_server import FleetServer
from tests.support.small_bundle import CONTENT, small_manifest

NOBODY_LISTENS = "https://localhost:1"


def make_bundle(folder: Path, name: str, version: str = "1", size: int = 1000) -> Path:
    content = {**CONTENT, "model.onnx": f"{name} {version} ".encode().ljust(size, b"\xa5")}
    manifest = small_manifest(content).model_copy(update={"name": name, "version": version})
    sources = {}
    for path, data in content.items():
        sources[path] = folder / "content" / path
        sources[path].parent.mkdir(parents=True, exist_ok=True)
        sources[path].write_bytes(data)
    bundle = folder / manifest.bundle_name
    write_bundle(bundle, manifest, sources)
    return bundle


def pushed(server: FleetServer, bundle: Path) -> dict[str, object]:
    return dict(json.loads(server.call("push", bundle, "--keys", server.keys, "--json").stdout))


def current_targets(client: FleetClient) -> bytes:
    timestamp = Metadata[Timestamp].from_bytes(client.release_document("timestamp.json")).signed
    name = f"{timestamp.snapshot_meta.version}.snapshot.json"
    snapshot = Metadata[Snapshot].from_bytes(client.release_document(name)).signed
    return client.release_document(f"{snapshot.meta['targets.json'].version}.targets.json")


def release_names(server: FleetServer) -> list[str]:
    with server.client() as client:
        return [release["path"] for release in client.get("/v1/releases")]


def test_a_push_says_path_and_counter_and_devices_can_verify_it(server: FleetServer, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, "first")

    release = pushed(server, bundle)

    assert release["path"] == "first/first-1-int8-arm.bundle"
    assert (release["release_counter"], release["uploaded"]) == (1, True)
    assert (release["digest"], release["size_bytes"]) == (sha256_file(bundle), bundle.stat().st_size)
    with server.client() as client:
        root = Metadata[Root].from_bytes(client.release_document("1.root.json"))
        for role, document in (
            ("timestamp", client.release_document("timestamp.json")),
            ("targets", current_targets(client)),
        ):
            metadata = Metadata[Root].from_bytes(document)
            root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)


def test_each_version_of_a_model_counts_on(server: FleetServer, tmp_path: Path) -> None:
    counters = [pushed(server, make_bundle(tmp_path, "counted", version))["release_counter"] for version in "123"]

    assert counters == [1, 2, 3]


def test_pushing_the_same_bundle_again_changes_nothing(server: FleetServer, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, "twice")
    first = pushed(server, bundle)

    second = pushed(server, bundle)

    assert second == {**first, "uploaded": False}
    assert release_names(server).count("twice/twice-1-int8-arm.bundle") == 1


def test_a_version_never_changes_its_content(server: FleetServer, tmp_path: Path) -> None:
    pushed(server, make_bundle(tmp_path, "fixed"))

    done = server.call("push", make_bundle(tmp_path, "fixed", size=2000), "--keys", server.keys, expect=1)

    assert "already released" in done.stderr
    assert "hint: a release never changes" in done.stderr


def test_a_push_with_a_strangers_keys_is_refused_before_anything_is_uploaded(
    server: FleetServer, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path, "stranger")
    stranger = FleetServer(tmp_path / "stranger")

    done = server.call("push", bundle, "--keys", stranger.keys, "--json", expect=1)

    assert json.loads(done.stdout)["error"]["class"] == "NotSignedError"
    assert "not signed by these keys" in done.stderr
    with server.client() as client:
        assert not client.has_bundle(sha256_file(bundle))


def test_releases_can_be_signed_again_before_they_expire(server: FleetServer) -> None:
    with server.client() as client:
        before = Metadata[Targets].from_bytes(current_targets(client)).signed

    done = server.call("extend", "--keys", server.keys)

    with server.client() as client:
        after = Metadata[Targets].from_bytes(current_targets(client)).signed
    assert after.version == before.version + 1
    assert after.targets == before.targets
    assert f"good until {after.expires:%F}" in done.stdout


class TestSignedElsewhere:
    """What a stranger, or a careless colleague, sends to the API directly."""

    def send(self, server: FleetServer, tmp_path: Path, counter: int, *, name: str, own_key: bool) -> httpx.Response:
        bundle = make_bundle(tmp_path, name, "9")
        digest = sha256_file(bundle)
        signer = Keyring(server.keys).targets_signer(None) if own_key else create_key(tmp_path / "stranger.key")
        facts = ReleaseFacts(
            model=name, version="9", target="int8-arm", hardware=("aarch64", "x86_64"), release_counter=counter
        )
        with server.client() as client:
            client.upload(bundle, digest, lambda _count: None)
            document = add_target(
                current_targets(client),
                [signer],
                release_path(facts),
                length=bundle.stat().st_size,
                sha256=digest,
                facts=facts,
                now=datetime.now(UTC),
            )
        token = (server.folder / "operator.token").read_text().strip()
        with server.http(token) as http:
            return http.post("/v1/releases", content=document)

    def test_a_strangers_signature_is_refused(self, server: FleetServer, tmp_path: Path) -> None:
        before = release_names(server)

        answer = self.send(server, tmp_path, 1, name="forged", own_key=False)

        assert (answer.status_code, answer.json()["title"]) == (403, "NotSignedError")
        assert release_names(server) == before

    def test_a_counter_that_goes_back_is_refused(self, server: FleetServer, tmp_path: Path) -> None:
        pushed(server, make_bundle(tmp_path, "back", "1"))
        pushed(server, make_bundle(tmp_path, "back", "2"))

        answer = self.send(server, tmp_path, 1, name="back", own_key=True)

        assert (answer.status_code, answer.json()["title"]) == (409, "CounterBackError")
        assert "goes back" in answer.json()["detail"]

    @pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"not JSON", b"\xff" * 100])
    def test_garbage_is_refused(self, server: FleetServer, document: bytes) -> None:
        token = (server.folder / "operator.token").read_text().strip()
        with server.http(token) as http:
            answer = http.post("/v1/releases", content=document)

        assert answer.status_code == 422


def test_an_old_state_shown_by_the_server_is_refused(server: FleetServer, tmp_path: Path) -> None:
    # given: a keyring that remembers more than the server shows
    pushed(server, make_bundle(tmp_path, "remembered"))
    keys = Keyring(server.keys)
    newest = keys.read_last_targets()
    assert newest is not None
    ahead = Metadata[Targets].from_bytes(newest)
    ahead.signed.version += 1
    keys.remember(ahead.to_bytes())

    try:
        with server.client() as client, pytest.raises(VersionBackError, match="was pushed from here"):
            push(client, make_bundle(tmp_path, "old"), keys, None, datetime.now(UTC), lambda _count: None)
    finally:
        keys.remember(newest)


@pytest.fixture(scope="module")
def bundle(server: FleetServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = make_bundle(tmp_path_factory.mktemp("fetched"), "fetched", size=300_000)
    pushed(server, bundle)
    return bundle


@pytest.fixture(scope="module")
def http(server: FleetServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    device = FakeDevice.enrol(server, tmp_path_factory.mktemp("fetcher"), "fetcher")
    with server.http(device.answer.http_token) as http:
        yield http


class TestFetching:
    def test_a_device_fetches_it_whole(self, bundle: Path, http: httpx.Client) -> None:
        answer = http.get(f"/v1/bundles/{sha256_file(bundle)}")

        assert answer.content == bundle.read_bytes()
        assert answer.headers["etag"] == f'"{sha256_file(bundle)}"'

    @pytest.mark.parametrize(("asked", "start", "end"), [("0-99", 0, 100), ("1000-", 1000, None), ("-7", -7, None)])
    def test_or_a_range_of_it(self, bundle: Path, http: httpx.Client, asked: str, start: int, end: int | None) -> None:
        answer = http.get(f"/v1/bundles/{sha256_file(bundle)}", headers={"Range": f"bytes={asked}"})

        assert answer.status_code == 206
        assert answer.content == bundle.read_bytes()[start:end]
        assert answer.headers["content-range"].endswith(f"/{bundle.stat().st_size}")

    def test_a_range_beyond_the_end_is_416(self, bundle: Path, http: httpx.Client) -> None:
        answer = http.get(f"/v1/bundles/{sha256_file(bundle)}", headers={"Range": f"bytes={bundle.stat().st_size}-"})

        assert answer.status_code == 416

    def test_if_range_of_another_content_gives_the_whole(self, bundle: Path, http: httpx.Client) -> None:
        headers = {"Range": "bytes=10-", "If-Range": '"another"'}

        assert http.get(f"/v1/bundles/{sha256_file(bundle)}", headers=headers).status_code == 200

    def test_nobody_else_fetches_it(self, bundle: Path, server: FleetServer) -> None:
        with server.http() as http:
            assert http.get(f"/v1/bundles/{sha256_file(bundle)}").status_code == 401

    @pytest.mark.parametrize(
        ("name", "status"), [("0" * 64, 404), ("..%2f..%2ffleet.db", 404), ("fleet.db", 400), ("0" * 63, 400)]
    )
    def test_what_is_no_bundle_is_not_there(self, http: httpx.Client, name: str, status: int) -> None:
        assert http.get(f"/v1/bundles/{name}").status_code == status

    def test_a_device_may_not_upload(self, http: httpx.Client) -> None:
        assert http.put(f"/v1/bundles/{'0' * 64}", content=b"x").status_code == 401


def test_an_upload_that_is_not_what_it_says_leaves_nothing(server: FleetServer) -> None:
    token = (server.folder / "operator.token").read_text().strip()
    before = sorted((server.folder / "bundles").iterdir())

    with server.http(token) as http:
        answer = http.put(f"/v1/bundles/{sha256_bytes(b'promised')}", content=b"delivered")

    assert (answer.status_code, answer.json()["title"]) == (422, "DigestMismatchError")
    assert sorted((server.folder / "bundles").iterdir()) == before


def test_a_damaged_bundle_is_refused_before_anything_is_uploaded(server: FleetServer, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, "damaged")
    content = bytearray(bundle.read_bytes())
    content[-2000] ^= 1
    bundle.write_bytes(content)

    done = server.call("push", bundle, "--keys", server.keys, expect=1)

    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_one_clear_error(server: FleetServer, tmp_path: Path) -> None:
    profile = tmp_path / "operator.toml"
    ca, token = server.folder / "authority" / "ca.crt", server.folder / "operator.token"
    profile.write_text(f'server = "{NOBODY_LISTENS}"\nca = "{ca}"\ntoken_file = "{token}"\n')

    bundle = make_bundle(tmp_path, "lost")
    done = server.call("--profile", profile, "push", bundle, "--keys", server.keys, expect=1)

    assert "cannot be reached" in done.stderr
    assert "hint: is `fleet serve` running there?" in done.stderr


def test_downloads_keep_to_the_rate_limit(tmp_path: Path) -> None:
    server = FleetServer(tmp_path, "--bundle-rate-limit", "200000")
    try:
        server.start()
        bundle = make_bundle(tmp_path, "slow", size=300_000)
        pushed(server, bundle)
        token = (server.folder / "operator.token").read_text().strip()

        began = time.monotonic()
        with server.http(token) as http:
            answer = http.get(f"/v1/bundles/{sha256_file(bundle)}")
            took_s = time.monotonic() - began
            rest = http.get(f"/v1/bundles/{sha256_file(bundle)}", headers={"Range": "bytes=300000-"})
    finally:
        server.close()

    assert answer.content == bundle.read_bytes()
    assert took_s > 1.0  # 1.5 s, less the quarter of a second that may go at once
    assert rest.content == bundle.read_bytes()[300_000:]
