from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from agent.update.download import Download, DownloadPolicy
from agent.update.errors import DownloadRefusedError, DownloadStoppedError, LengthMismatchError
from ommatid.errors import DigestMismatchError, LinkError, StorageError
from tests.support.clock import HandClock
from tests.support.disks import FullDisk
from tests.support.updating import PATIENCE, BundleHandler, BundleServer, FastDisk, Signed

TOKEN = "Bearer made-up-token"


class Downloader:
    """A download into one part file, by hand clock."""

    def __init__(
        self, server: BundleServer, client: httpx.Client, part: Path, policy: DownloadPolicy = PATIENCE
    ) -> None:
        self.clock = HandClock()
        self.part = part
        self.disk = FullDisk(FastDisk())
        self._download = Download(
            client,
            lambda release: f"{server.url}/{release.sha256}",
            lambda: {"Authorization": TOKEN},
            self.disk,
            self.clock,
            policy,
            sleep=self.clock.pass_s,
        )

    def fetch(self, signed: Signed, stopped: Callable[[], bool] = lambda: False) -> tuple[int, int]:
        fetched = self._download(signed.release, self.part, stopped)
        return fetched.bytes_before, fetched.bytes_fetched


@pytest.fixture
def downloader(server: BundleServer, client: httpx.Client, tmp_path: Path) -> Downloader:
    return Downloader(server, client, tmp_path / "bundle.part")


def drop_after(size: int) -> Callable[[BundleHandler, bytes], None]:
    def answer(handler: BundleHandler, content: bytes) -> None:
        start = handler.start_byte()
        if start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.answer(206, content[start:], {"Content-Range": span}, sent=size)
        else:
            handler.answer(200, content, sent=size)

    return answer


def status(code: int) -> Callable[[BundleHandler, bytes], None]:
    return lambda handler, _content: handler.answer(code, b"")


def test_a_bundle_is_fetched_whole_with_the_bearer_token(
    downloader: Downloader, server: BundleServer, v1: Signed, bundles: Path
) -> None:
    assert downloader.fetch(v1) == (0, v1.length)
    assert downloader.part.read_bytes() == (bundles / v1.sha256).read_bytes()
    assert server.requests[0]["Authorization"] == TOKEN
    assert server.requests[0]["Accept-Encoding"] == "identity"


def test_a_download_goes_on_where_a_killed_one_ended(
    downloader: Downloader, server: BundleServer, v1: Signed, bundles: Path
) -> None:
    downloader.part.write_bytes((bundles / v1.sha256).read_bytes()[:100_000])

    assert downloader.fetch(v1) == (100_000, v1.length - 100_000)
    assert server.requests[0]["Range"] == "bytes=100000-"


def test_a_complete_part_needs_no_request(
    downloader: Downloader, server: BundleServer, v1: Signed, bundles: Path
) -> None:
    downloader.part.write_bytes((bundles / v1.sha256).read_bytes())

    assert downloader.fetch(v1) == (v1.length, 0)
    assert server.requests == []


def test_a_connection_that_drops_again_and_again_ends_well_while_there_is_progress(
    downloader: Downloader, server: BundleServer, v1: Signed
) -> None:
    server.always = drop_after(20_000)

    assert downloader.fetch(v1) == (0, v1.length)
    assert len(server.requests) == -(-v1.length // 20_000)


def test_a_server_that_ignores_range_makes_it_start_over(
    downloader: Downloader, server: BundleServer, v1: Signed, bundles: Path
) -> None:
    downloader.part.write_bytes((bundles / v1.sha256).read_bytes()[:50_000])
    server.always = lambda handler, content: handler.answer(200, content)

    assert downloader.fetch(v1) == (0, v1.length)


@pytest.mark.parametrize("said", ["bytes 0-9/10", "bytes 49999-174079/174080", "", "items 1-2/3"])
def test_a_wrong_content_range_is_not_appended(
    downloader: Downloader, server: BundleServer, v1: Signed, bundles: Path, said: str
) -> None:
    downloader.part.write_bytes((bundles / v1.sha256).read_bytes()[:50_000])
    server.faults = [lambda handler, content: handler.answer(206, content[50_000:], {"Content-Range": said})]

    assert downloader.fetch(v1) == (0, v1.length)
    assert "Range" not in server.requests[1]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 416, 302])
def test_a_refusal_is_final(downloader: Downloader, server: BundleServer, v1: Signed, code: int) -> None:
    server.always = status(code)

    with pytest.raises(DownloadRefusedError, match=f"the server answers {code}"):
        downloader.fetch(v1)
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [500, 502, 503, 429, 408])
def test_a_server_in_trouble_is_asked_again_but_not_for_ever(
    downloader: Downloader, server: BundleServer, v1: Signed, code: int
) -> None:
    server.always = status(code)

    with pytest.raises(LinkError, match=f"the server answers {code}, after 4 tries") as caught:
        downloader.fetch(v1)
    assert not isinstance(caught.value, DownloadRefusedError)
    assert len(server.requests) == PATIENCE.tries


def test_a_server_that_comes_back_is_used(downloader: Downloader, server: BundleServer, v1: Signed) -> None:
    server.faults = [status(503), drop_after(1000), status(500)]

    assert downloader.fetch(v1) == (0, v1.length)


def test_a_server_that_is_not_there_is_given_up(
    client: httpx.Client, tmp_path: Path, bundles: Path, v1: Signed
) -> None:
    server = BundleServer(bundles)
    server.server_close()
    downloader = Downloader(server, client, tmp_path / "part")

    with pytest.raises(LinkError, match="after 4 tries"):
        downloader.fetch(v1)


@pytest.mark.parametrize("change", [-1, 1, 100_000])
def test_a_wrong_length_is_noticed_before_a_byte_is_written(
    downloader: Downloader, server: BundleServer, v1: Signed, change: int
) -> None:
    server.always = lambda handler, content: handler.answer(200, (content + bytes(100_000))[: len(content) + change])

    with pytest.raises(LengthMismatchError, match=f"{v1.length} were signed"):
        downloader.fetch(v1)
    assert not downloader.part.exists()


def test_a_body_without_a_length_is_cut_off_after_the_signed_one(
    downloader: Downloader, server: BundleServer, v1: Signed
) -> None:
    def endless(handler: BundleHandler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        for _ in range(10_000):
            handler.wfile.write(content)

    server.always = endless

    with pytest.raises(LengthMismatchError, match="more than"):
        downloader.fetch(v1)
    assert not downloader.part.exists()


def test_one_flipped_bit_is_a_wrong_digest_and_nothing_is_kept(
    downloader: Downloader, server: BundleServer, v1: Signed
) -> None:
    server.always = lambda handler, content: handler.answer(200, content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(DigestMismatchError):
        downloader.fetch(v1)
    assert not downloader.part.exists()
    assert len(server.requests) == 1


@pytest.mark.parametrize("size", [1000, 174_080, 200_000])
def test_a_part_that_a_power_cut_filled_with_zeros_is_not_held_against_the_server(
    downloader: Downloader, v1: Signed, size: int
) -> None:
    downloader.part.write_bytes(bytes(size))

    before, fetched = downloader.fetch(v1)

    assert before == 0
    assert fetched >= v1.length


def test_a_download_can_be_stopped_and_keeps_what_it_has(downloader: Downloader, v1: Signed) -> None:
    with pytest.raises(DownloadStoppedError):
        downloader.fetch(v1, stopped=downloader.part.exists)

    size = downloader.part.stat().st_size
    assert 0 < size < v1.length
    assert downloader.fetch(v1) == (size, v1.length - size)


def test_a_connection_that_carries_next_to_nothing_counts_as_hung(
    server: BundleServer, client: httpx.Client, tmp_path: Path, v1: Signed
) -> None:
    # given a clock on which each chunk takes a minute
    downloader = Downloader(server, client, tmp_path / "part", DownloadPolicy(tries=3, slowest_bytes_s=100_000))

    def late() -> bool:
        downloader.clock.pass_s(61)
        return False

    with pytest.raises(LinkError, match=r"only .* bytes in 61 s, after 3 tries"):
        downloader.fetch(v1, stopped=late)


def test_a_full_disk_ends_the_download(downloader: Downloader, v1: Signed) -> None:
    downloader.disk = FullDisk(FastDisk(), fail_at=0)
    downloader._download._disk = downloader.disk

    with pytest.raises(StorageError, match="No space left"):
        downloader.fetch(v1)


def test_the_token_is_never_logged(
    downloader: Downloader, server: BundleServer, v1: Signed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="agent")
    server.faults = [status(503)]
    server.always = status(404)

    with pytest.raises(DownloadRefusedError) as caught:
        downloader.fetch(v1)

    assert "made-up-token" not in caplog.text + str(caught.value)
