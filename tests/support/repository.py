"""A fleet's signing side in memory, made by the server's own signing code, and a way to serve it to devices."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface

from fleet_server.signing.director import DirectedTarget, create_director, sign_document
from fleet_server.signing.release import (
    ReleaseSigners,
    Repository,
    add_target,
    create_release,
    extend_targets,
    next_counter,
    publish,
    renew,
)
from fleet_server.signing.roots import RoleKeys, next_root, roles_of
from ommatid.contract.digests import sha256_bytes
from ommatid.contract.trust.clock import BUILD_DATE
from ommatid.contract.trust.facts import ReleaseFacts, release_path

RELEASE_URL = "https://fleet.test/v1/tuf/release/"
DIRECTOR_URL = "https://fleet.test/v1/tuf/director/"
TODAY = BUILD_DATE + timedelta(days=40, hours=7)


def new_key() -> CryptoSigner:
    return CryptoSigner.generate_ed25519()


class Fleet:
    """Both signing sides of one fleet, with every key at hand, good and stolen."""

    def __init__(
        self, now: datetime = TODAY, *, root_keys: int = 1, root_threshold: int = 1, targets_threshold: int = 1
    ) -> None:
        self.now = now
        self.signers = ReleaseSigners(
            root=[new_key() for _ in range(root_keys)],
            targets=[new_key() for _ in range(targets_threshold)],
            snapshot=new_key(),
            timestamp=new_key(),
            root_threshold=root_threshold,
            targets_threshold=targets_threshold,
        )
        self.release = create_release(self.signers, now)
        self.director_root_key = new_key()
        self.online_key = new_key()
        self.director_root = create_director([self.director_root_key], [self.online_key], now)
        self.pinned_release_root = self.release.root
        self.pinned_director_root = self.director_root
        self.files: dict[str, bytes] = {f"{DIRECTOR_URL}1.root.json": self.director_root}
        self.serve()
        self.rev = 0

    def serve(self) -> None:
        """Put the newest release documents where devices look for them; older ones stay."""
        self.files |= {f"{RELEASE_URL}{name}": content for name, content in self.release.files().items()}

    def push(
        self,
        version: str,
        *,
        content: bytes = b"",
        counter: int | None = None,
        hardware: tuple[str, ...] = ("aarch64", "x86_64"),
        minimum_agent: str = "0.1.0",
    ) -> DirectedTarget:
        """Sign and publish a release; return it as the director would name it."""
        facts = ReleaseFacts(
            model="detector",
            version=version,
            target="int8-arm",
            hardware=hardware,
            release_counter=counter or next_counter(self.release.targets, "detector"),
            minimum_agent=minimum_agent,
        )
        content = content or version.encode()
        path, sha256 = release_path(facts), sha256_bytes(content)
        targets = add_target(
            self.release.targets,
            self.signers.targets,
            path,
            length=len(content),
            sha256=sha256,
            facts=facts,
            now=self.now,
        )
        self.release = publish(self.release, targets, self.signers.snapshot, self.signers.timestamp, self.now)
        self.serve()
        return DirectedTarget(path, len(content), sha256, facts.model)

    def renew(self) -> None:
        self.release = renew(self.release, self.signers.snapshot, self.signers.timestamp, self.now)
        self.serve()

    def direct(
        self,
        target: DirectedTarget | None,
        *,
        device: str = "camera-1",
        tenant: str = "acme",
        rev: int | None = None,
        key: CryptoSigner | None = None,
        now: datetime | None = None,
    ) -> bytes:
        """Sign a director document; by default the next one for camera-1 of acme."""
        self.rev = rev if rev is not None else self.rev + 1
        return sign_document(
            key or self.online_key, device=device, tenant=tenant, rev=self.rev, target=target, now=now or self.now
        )

    def rotate_release_root(self) -> None:
        """Replace every key of the release side, and serve the new root."""
        old = self.signers
        self.signers = ReleaseSigners(
            root=[new_key() for _ in old.root],
            targets=[new_key() for _ in old.targets],
            snapshot=new_key(),
            timestamp=new_key(),
            root_threshold=old.root_threshold,
            targets_threshold=old.targets_threshold,
        )
        root = next_root(self.release.root, self.signers.roles(), [*old.root, *self.signers.root], self.now)
        self.release = Repository(root, self.release.targets, self.release.snapshot, self.release.timestamp)

    def serve_rotated(self) -> None:
        """Sign everything anew with the newest keys, and serve it."""
        targets = extend_targets(self.release.targets, self.signers.targets, self.now)
        self.release = Repository(self.release.root, targets, self.release.snapshot, self.release.timestamp)
        self.renew()

    def rotate_online_key(self) -> CryptoSigner:
        """Replace the director's online key, serve the new root, and return the old key."""
        old, self.online_key = self.online_key, new_key()
        roles = roles_of(self.director_root) | {"targets": RoleKeys([self.online_key.public_key])}
        self.director_root = next_root(self.director_root, roles, [self.director_root_key], self.now)
        number = sum(1 for url in self.files if url.startswith(DIRECTOR_URL)) + 1
        self.files[f"{DIRECTOR_URL}{number}.root.json"] = self.director_root
        return old


class MemoryFetcher(FetcherInterface):
    """Serves a mapping of addresses; `broken` is the network being down."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.broken = False
        self.asked: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked.append(url)
        if self.broken:
            raise DownloadError(f"{url}: the network is down")
        if url not in self.files:
            raise DownloadHTTPError(f"{url}: HTTP status 404", 404)
        content = self.files[url]
        yield from (content[start : start + 1000] for start in range(0, len(content), 1000))


@contextmanager
def served(files: Mapping[str, bytes], asked: list[str]) -> Iterator[str]:
    """Serve paths over real HTTP on a port of its own; `asked` collects the raw request paths."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = files.get(self.path)
            if content is None:
                content = files.get(unquote(urlsplit(self.path).path))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            with suppress(ConnectionError):  # a client that has seen enough hangs up
                self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
