"""`edge-agent trust` against a plain TUF repository: other keys, delegations, no fields of ours, real HTTP."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner, Result
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from agent.trust_cli import trust
from tests.support.repository import served
from tests.support.tls_server import tls_server

TOMORROW = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
YESTERDAY = TOMORROW - timedelta(days=2)
FIRST_KEYS = {
    "root": CryptoSigner.generate_ecdsa(),
    "timestamp": CryptoSigner.generate_ed25519(),
    "snapshot": CryptoSigner.generate_rsa(),
    "targets": CryptoSigner.generate_ed25519(),
}
TOP = ("root", "timestamp", "snapshot", "targets")


@dataclass
class PlainRepository:
    """Every kind of key, consistent snapshots or not, delegations: what the TUF specification allows."""

    consistent: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = dict(FIRST_KEYS)
        self.root = Root(1, expires=TOMORROW, consistent_snapshot=self.consistent)
        self.timestamp = Timestamp(1, expires=TOMORROW)
        self.snapshot = Snapshot(1, expires=TOMORROW)
        self.targets = Targets(1, expires=TOMORROW)
        self.delegated: dict[str, Targets] = {}
        for role, key in self.keys.items():
            self.root.add_key(key.public_key, role)
        self.publish_root()
        self.initial_root = self.files["/metadata/1.root.json"]
        self.sign()

    def publish_root(self, *signers: CryptoSigner) -> None:
        metadata = Metadata(self.root)
        for signer in (*signers, self.keys["root"]):
            metadata.sign(signer, append=True)
        self.files[f"/metadata/{self.root.version}.root.json"] = metadata.to_bytes()

    def rotate(self, role: str) -> None:
        old = self.keys[role]
        self.root.revoke_key(old.public_key.keyid, role)
        self.keys[role] = CryptoSigner.generate_ed25519()
        self.root.add_key(self.keys[role].public_key, role)
        self.root.version += 1
        self.publish_root(*([old] if role == "root" else []))

    def publish(self) -> None:
        for role in (self.targets, self.snapshot, self.timestamp):
            role.version += 1
        self.sign()

    def sign(self) -> None:
        self.snapshot.meta = {"targets.json": MetaFile(self.targets.version)}
        for name, role in self.delegated.items():
            self.snapshot.meta[f"{name}.json"] = MetaFile(role.version)
            self.put(name, role, self.keys["targets"])
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        self.put("targets", self.targets, self.keys["targets"])
        self.put("snapshot", self.snapshot, self.keys["snapshot"])
        self.put("timestamp", self.timestamp, self.keys["timestamp"])

    def put(self, name: str, signed: Any, key: CryptoSigner) -> None:  # noqa: ANN401 - tuf's types are narrower
        metadata = Metadata(signed)
        metadata.sign(key)
        prefix = f"{signed.version}." if self.consistent and name != "timestamp" else ""
        self.files[f"/metadata/{prefix}{quote(name, '')}.json"] = metadata.to_bytes()

    def add(self, path: str, content: bytes, role: str | None = None) -> None:
        targets = self.delegated[role] if role else self.targets
        targets.targets[path] = TargetFile.from_data(path, content, ["sha256"])
        folder, slash, name = path.rpartition("/")
        prefix = f"{sha256(content).hexdigest()}." if self.consistent else ""
        self.files[f"/targets/{folder}{slash}{prefix}{name}"] = content

    def delegate(self, role: str) -> None:
        key = self.keys["targets"].public_key
        roles = {role: DelegatedRole(role, [key.keyid], 1, False, paths=["*", "*/*"])}
        self.targets.delegations = Delegations({key.keyid: key}, roles)
        self.delegated[role] = Targets(1, expires=TOMORROW)


@pytest.fixture(params=[True, False], ids=["consistent", "plain"])
def repository(request: pytest.FixtureRequest) -> PlainRepository:
    return PlainRepository(consistent=request.param)


class Client:
    """The command line, as an operator types it."""

    def __init__(self, folder: Path, repository: PlainRepository, url: str) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self.url = url
        self.root = folder / "initial.json"
        self.root.write_bytes(repository.initial_root)

    def init(self) -> Result:
        return run("--metadata-dir", self.metadata, "init", self.root)

    def refresh(self) -> Result:
        return run("--metadata-dir", self.metadata, "--metadata-url", f"{self.url}/metadata", "refresh")

    def download(self, *names: str) -> Result:
        options = [part for name in names for part in ("--target-name", name)]
        return run(
            *("--metadata-dir", self.metadata, "--metadata-url", f"{self.url}/metadata", *options),
            *("--target-base-url", f"{self.url}/targets", "--target-dir", self.targets, "download"),
        )

    def versions(self) -> dict[str, int]:
        return {path.stem: json.loads(path.read_bytes())["signed"]["version"] for path in self.metadata.glob("*.json")}

    def downloaded(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in self.targets.rglob("*") if path.is_file())


def run(*arguments: object) -> Result:
    return CliRunner().invoke(trust, [str(argument) for argument in arguments])


def failed(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture
def client(tmp_path: Path, repository: PlainRepository) -> Iterator[Client]:
    with served(repository.files, repository.asked) as url:
        yield Client(tmp_path, repository, url)


def test_init_asks_the_server_nothing_and_can_be_repeated(client: Client, repository: PlainRepository) -> None:
    assert client.init().exit_code == 0
    assert client.init().exit_code == 0

    assert client.versions() == {"root": 1}
    assert repository.asked == []


def test_refresh_makes_the_requests_of_the_specification(client: Client, repository: PlainRepository) -> None:
    client.init()

    assert client.refresh().exit_code == 0

    names = ["2.root", "timestamp", "1.snapshot", "1.targets"] if repository.consistent else [
        "2.root", "timestamp", "snapshot", "targets",
    ]  # fmt: skip
    assert repository.asked == [f"/metadata/{name}.json" for name in names]
    assert client.versions() == dict.fromkeys(TOP, 1)


def test_refresh_without_news_asks_twice(client: Client, repository: PlainRepository) -> None:
    client.init()
    client.refresh()
    repository.asked.clear()

    assert client.refresh().exit_code == 0

    assert repository.asked == ["/metadata/2.root.json", "/metadata/timestamp.json"]


def test_versions_can_be_had_as_json(client: Client) -> None:
    client.init()

    result = run("--metadata-dir", client.metadata, "--metadata-url", f"{client.url}/metadata", "refresh", "--json")

    assert json.loads(result.stdout) == dict.fromkeys(TOP, 1)


@pytest.mark.parametrize("role", TOP)
def test_rotated_keys_are_followed(client: Client, repository: PlainRepository, role: str) -> None:
    client.init()
    client.refresh()
    for _ in range(3):
        repository.rotate(role)
    repository.publish()

    assert client.refresh().exit_code == 0

    assert client.versions() == {"root": 4, "timestamp": 2, "snapshot": 2, "targets": 2}


def test_newer_roots_are_kept_when_the_last_has_expired(client: Client, repository: PlainRepository) -> None:
    client.init()
    client.refresh()
    repository.rotate("timestamp")
    repository.root.expires = YESTERDAY
    repository.rotate("timestamp")
    repository.publish()

    assert "expired" in failed(client.refresh())

    assert client.versions() == {"root": 3, "timestamp": 1, "snapshot": 1, "targets": 1}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_expired_metadata_is_refused(client: Client, repository: PlainRepository, role: str) -> None:
    client.init()
    client.refresh()
    getattr(repository, role).expires = YESTERDAY
    repository.publish()

    assert "expired" in failed(client.refresh())

    assert client.versions()[role] == 1


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_rollback_is_refused(client: Client, repository: PlainRepository, role: str) -> None:
    client.init()
    repository.publish()
    client.refresh()
    getattr(repository, role).version = 0
    repository.publish()

    assert "older than one accepted before" in failed(client.refresh())

    assert client.versions()[role] == 2


def test_a_strangers_signature_is_refused(client: Client, repository: PlainRepository) -> None:
    client.init()
    repository.keys["timestamp"] = CryptoSigner.generate_ed25519()
    repository.publish()

    assert "not signed by the keys" in failed(client.refresh())

    assert client.versions() == {"root": 1}


def test_a_root_that_is_none_is_refused(client: Client, repository: PlainRepository) -> None:
    for good, bad in ((b'"version"', b'"v"'), (b'"expires":"2', b'"expires":"3'), (b"{", b"")):
        client.root.write_bytes(repository.initial_root.replace(good, bad))

        said = failed(client.init())

        assert str(client.root) in said
        assert "get root.json again" in said
    assert "begin with `init ROOT`" in failed(client.refresh())

    client.root.unlink()
    assert "no such file" in failed(client.init())
    assert repository.asked == []


def test_a_second_fleet_in_one_folder_is_refused(client: Client) -> None:
    client.init()
    stranger = PlainRepository()
    stranger.rotate("timestamp")
    client.root.write_bytes(stranger.files["/metadata/2.root.json"])

    assert "another" in failed(client.init())


@pytest.mark.parametrize("path", ["file.txt", "path/to/a/file.txt", "a b.txt", "ünï.txt", "a%20b", "..hidden"])
def test_a_target_is_fetched_once_and_stays_in_its_folder(
    client: Client, repository: PlainRepository, path: str
) -> None:
    repository.add(path, b"content")
    repository.publish()
    client.init()

    assert client.download(path).exit_code == 0
    repository.asked.clear()
    assert client.download(path).exit_code == 0

    assert not any(asked.startswith("/targets") for asked in repository.asked)
    assert client.downloaded() == [b"content"]
    assert len(list(client.targets.iterdir())) == 1


def test_several_targets_can_be_named(client: Client, repository: PlainRepository) -> None:
    repository.add("a", b"1")
    repository.add("b", b"2")
    repository.publish()
    client.init()

    assert client.download("a", "b").exit_code == 0

    assert client.downloaded() == [b"1", b"2"]


def test_a_changed_target_replaces_the_old_one(client: Client, repository: PlainRepository) -> None:
    client.init()
    for content in (b"1", b"22", b"333"):
        repository.add("a", content)
        repository.publish()

        assert client.download("a").exit_code == 0

        assert client.downloaded() == [content]


def test_a_substituted_target_is_refused(client: Client, repository: PlainRepository) -> None:
    client.init()
    repository.add("a", b"true")
    repository.add("b", b"true")
    repository.publish()
    client.download("a")
    for name in [name for name in repository.files if name.startswith("/targets")]:
        repository.files[name] = b"evil"

    assert "not what was signed" in failed(client.download("b"))

    for name in [name for name in repository.files if name.startswith("/targets")]:
        repository.files[name] = b"true" + bytes(1_000_000)
    assert "more than the signed 4 bytes" in failed(client.download("b"))
    assert client.downloaded() == [b"true"]


def test_a_target_that_nobody_signed_is_refused_after_a_refresh(client: Client) -> None:
    client.init()

    assert "nobody" in failed(client.download("nonexistent artifact"))

    assert client.versions() == dict.fromkeys(TOP, 1)


@pytest.mark.parametrize("role", ["team", "?", "#", "/delegatedrole", "../delegatedrole"])
def test_a_delegated_target_is_found_under_any_name_of_role(
    client: Client, repository: PlainRepository, role: str
) -> None:
    repository.delegate(role)
    repository.add("deep/a", b"delegated", role)
    repository.publish()
    client.init()

    assert client.download("deep/a").exit_code == 0

    asked = f"1.{quote(role, '')}.json" if repository.consistent else f"{quote(role, '')}.json"
    assert f"/metadata/{asked}" in repository.asked
    assert len(client.versions()) == 5
    assert client.downloaded() == [b"delegated"]


def test_usage_errors_are_usage_errors(tmp_path: Path) -> None:
    assert run("refresh").exit_code == 2
    assert run("--metadata-dir", tmp_path, "refresh").exit_code == 2
    assert run("--metadata-dir", tmp_path, "--metadata-url", "x", "download").exit_code == 2


def test_a_folder_without_a_root_says_how_to_begin(tmp_path: Path) -> None:
    result = run("--metadata-dir", tmp_path / "none", "--metadata-url", "http://127.0.0.1:1", "refresh")

    assert "hint: begin with `init ROOT`" in failed(result)
    assert not (tmp_path / "none").exists()


def test_a_server_that_is_not_there_is_named(client: Client) -> None:
    client.init()

    result = run("--metadata-dir", client.metadata, "--metadata-url", "http://127.0.0.1:1/", "refresh")

    assert "127.0.0.1:1" in failed(result)
    assert client.versions() == {"root": 1}


def test_a_server_with_a_ca_of_its_own_says_how_to_name_it(client: Client, tmp_path: Path) -> None:
    client.init()
    with tls_server(tmp_path, lambda send, _over: send(b"")) as url:
        result = run("--metadata-dir", client.metadata, "--metadata-url", url, "refresh")

    assert "SSL_CERT_FILE=ca.crt" in failed(result)


def test_a_metadata_folder_that_cannot_be_is_named(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    assert "file" in failed(run("--metadata-dir", tmp_path / "file" / "x", "init", client.root))
