from pathlib import Path

import httpx
import pytest

from agent.update import engine as engine_module
from tests.support.updating import BundleHandler, BundleServer, Device, FakeVerdict, Signed, make_release, slot

ALL_STATES = ["offered", "downloading", "verified", "trial", "loaded", "probation", "committed"]


def again(device: Device, server: BundleServer, client: httpx.Client) -> Device:
    """Restart the agent: the same folder, and a loop that starts from its slot."""
    device.loop.restart()
    return Device(device.root.parent, server.url, client=client)


def updates_of(device: Device, signed: Signed) -> list[str]:
    return [
        report["state"]
        for report in device.reports
        if report["kind"] == "update" and report["model"]["digest"] == signed.sha256
    ]


def test_the_first_model_is_installed_on_an_empty_device(device: Device, v1: Signed) -> None:
    assert device.current == v1.sha256
    assert device.previous is None
    assert device.states == ALL_STATES
    assert device.loop.status().active == v1.sha256


def test_an_update_goes_through_every_state_and_reports_each_once(device: Device, v1: Signed, v2: Signed) -> None:
    device.engine.offer(v2.document)
    device.finish()

    assert (device.current, device.previous) == (v2.sha256, v1.sha256)
    assert updates_of(device, v2) == ALL_STATES
    assert device.trust.floors == {"detector": 1}
    committed = device.reports[-1]
    assert committed["figures"]["bytes_fetched"] == v2.length
    assert committed["figures"]["probation_frames"] >= 5
    assert {"load_ms", "latency_ratio", "p99_ms", "base_p99_ms"} <= set(committed["figures"])
    assert device.loop.status().previous is None
    assert sorted(path.name for path in (device.root / "store").iterdir()) == sorted([v1.sha256, v2.sha256])
    assert list((device.root / "downloads").iterdir()) == []


def test_current_is_the_old_model_until_probation_has_passed(device: Device, v1: Signed, v2: Signed) -> None:
    device.engine.offer(v2.document)
    device.engine.tick()
    while device.engine.record.state != "committed":
        device.engine.tick()
        if not device.engine.record.state.final:
            assert device.current == v1.sha256
            if device.engine.record.state in {"loaded", "probation"}:
                assert slot(device.root, "candidate") == v2.sha256
        device.see_a_frame()

    assert device.current == v2.sha256


def test_a_model_that_fails_its_trial_is_refused_and_never_meets_the_camera(
    device: Device, v1: Signed, v2: Signed
) -> None:
    device.trial.bad.add(v2.sha256)
    orders = len(device.loop.orders)

    device.engine.offer(v2.document)
    device.finish()

    assert device.states[-1] == "refused"
    assert device.reports[-1]["error"] == "GoldenError"
    assert device.current == v1.sha256
    assert set(device.loop.orders[orders:]) <= {"drop"}
    assert not (device.root / "store" / v2.sha256).exists()


def test_a_digest_that_failed_is_not_tried_again_until_a_newer_counter(
    device: Device, server: BundleServer, v2: Signed
) -> None:
    # given a model that failed its trial
    device.trial.bad.add(v2.sha256)
    device.engine.offer(v2.document)
    device.finish()
    requests = len(server.requests)

    # when it is ordered again, in a newer document
    device.engine.offer(Signed(**{**vars(v2), "rev": 5}).document)
    device.finish()

    # then it is refused without a download or a trial
    assert device.reports[-1]["error"] == "FailedBeforeError"
    assert len(server.requests) == requests
    assert device.trial.held.count(v2.sha256) == 1

    # and a newer release counter gives it another chance
    device.trial.bad.clear()
    device.engine.offer(Signed(**{**vars(v2), "rev": 6, "release_counter": 7}).document)
    device.finish()
    assert device.current == v2.sha256


def test_the_same_document_again_changes_nothing(device: Device, v1: Signed, v2: Signed) -> None:
    device.trial.bad.add(v2.sha256)
    device.engine.offer(v2.document)
    device.finish()
    reports = len(device.reports)

    device.engine.offer(v2.document)
    device.finish()

    assert len(device.reports) == reports


def test_a_newer_document_for_what_runs_is_reported_as_committed(device: Device, v1: Signed) -> None:
    device.engine.offer(Signed(**{**vars(v1), "rev": 9}).document)
    device.finish()

    assert device.states[len(ALL_STATES) :] == ["offered", "committed"]
    assert device.reports[-1]["desired_rev"] == 9


@pytest.mark.parametrize("fault", ["errors", "silent", "slow", "deadly", "broken"])
def test_a_model_that_is_bad_on_real_frames_is_rolled_back_at_once(
    device: Device, v1: Signed, v2: Signed, fault: str
) -> None:
    # given a model that passes the trial, and an old one that was watched for a while
    for _ in range(20):
        device.see_a_frame()
    if fault == "errors":
        device.failing[v2.sha256] = "an output is not finite"
    elif fault == "silent":
        device.silent.add(v2.sha256)
    elif fault == "slow":
        device.latency_ms[v2.sha256] = 100.0
    elif fault == "deadly":
        device.loop.deadly.add(v2.sha256)
    else:
        device.loop.broken.add(v2.sha256)

    # when
    device.engine.offer(v2.document)
    device.finish()

    # then
    expected = {"deadly": "LoopDiedError", "errors": "ModelError", "broken": "BackendError"}
    assert device.states[-1] == ("refused" if fault == "broken" else "rolled_back")
    assert device.reports[-1]["error"] == expected.get(fault, "ProbationError")
    assert device.reports[-1]["reason"]
    assert (device.current, device.previous) == (v1.sha256, None)
    assert device.loop.status().active == v1.sha256
    assert device.engine.record.failed == {v2.sha256: 2}
    assert device.trust.floors == {}


def test_a_camera_that_gives_no_frames_ends_the_probation_without_blame(
    device: Device, v1: Signed, v2: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "see_a_frame", lambda: device.clock.pass_s(0.5))

    device.engine.offer(v2.document)
    device.finish()

    assert device.states[-1] == "rolled_back"
    assert device.reports[-1]["error"] == "NotEnoughFramesError"
    assert device.engine.record.failed == {}
    assert device.loop.status().active == v1.sha256


def test_the_loop_may_die_once_in_a_probation(device: Device, v2: Signed) -> None:
    device.engine.offer(v2.document)
    while device.loop.status().active != v2.sha256:
        device.engine.tick()
    device.loop.restart()
    device.finish()

    assert device.states[-1] == "committed"
    assert device.current == v2.sha256
    assert device.loop.orders.count("swap") == 3  # of v1, and twice of v2


def test_back_to_the_previous_model_needs_no_download_and_no_trial(
    device: Device, server: BundleServer, v1: Signed, v2: Signed
) -> None:
    device.engine.offer(v2.document)
    device.finish()
    requests, trials = len(server.requests), len(device.trial.held)

    device.engine.offer(Signed(**{**vars(v1), "rev": 7}).document)
    device.finish()

    assert (device.current, device.previous) == (v1.sha256, v2.sha256)
    assert device.states[-1] == "committed"
    assert (len(server.requests), len(device.trial.held)) == (requests, trials)
    assert device.trust.floors == {"detector": 1}
    assert device.loop.status().active == v1.sha256


def test_a_previous_model_that_went_bad_on_disk_is_fetched_again(
    device: Device, server: BundleServer, v1: Signed, v2: Signed
) -> None:
    device.engine.offer(v2.document)
    device.finish()
    (device.root / "store" / v1.sha256 / "model.onnx").write_bytes(b"flipped")
    requests = len(server.requests)

    device.engine.offer(Signed(**{**vars(v1), "rev": 7}).document)
    device.finish()

    assert (device.current, device.previous) == (v1.sha256, v2.sha256)
    assert len(server.requests) == requests + 1


@pytest.mark.parametrize("state", ["offered", "downloading", "verified", "trial", "loaded", "probation"])
def test_a_newer_order_replaces_an_update_at_any_state(
    device: Device, v1: Signed, v2: Signed, v3: Signed, state: str
) -> None:
    device.engine.offer(v2.document)
    while device.engine.record.state != state:
        device.engine.tick()
    if state == "probation":
        device.engine.tick()
        assert device.loop.status().active == v2.sha256

    device.engine.offer(v3.document)
    device.finish()

    assert updates_of(device, v2)[-1] == ("rolled_back" if state == "probation" else "failed")
    superseded = [report for report in device.reports if report.get("error") == "SupersededError"]
    assert len(superseded) == 1
    assert (device.current, device.previous) == (v3.sha256, v1.sha256)
    assert not (device.root / "store" / v2.sha256).exists()
    assert device.engine.record.failed == {}


def test_an_abort_before_the_commit_goes_back_to_what_is_current(device: Device, v1: Signed, v2: Signed) -> None:
    device.engine.offer(v2.document)
    while device.loop.status().active != v2.sha256:
        device.engine.tick()

    device.engine.offer(Signed(**{**vars(v1), "rev": 8}).document)
    device.finish()

    assert device.current == v1.sha256
    assert device.loop.status().active == v1.sha256
    assert device.states[-2:] == ["offered", "committed"]


def test_a_refused_document_is_reported_and_changes_nothing(device: Device, v1: Signed) -> None:
    device.engine.offer(b"forged")
    device.finish()

    assert device.reports[-1] == {"kind": "refusal", "error": "TrustError", "reason": "not signed"}
    assert device.current == v1.sha256


def test_a_document_waits_while_the_release_side_cannot_be_reached(device: Device, v2: Signed) -> None:
    device.trust.offline = True
    device.engine.offer(v2.document)
    for _ in range(10):
        device.engine.tick()
    device.trust.offline = False
    device.clock.pass_s(engine_module.OFFER_PAUSE_S)
    device.engine.tick()
    device.finish()

    assert device.current == v2.sha256


def test_an_update_waits_for_a_loop_that_is_away_but_not_for_ever(device: Device, v1: Signed, v2: Signed) -> None:
    device.engine.offer(v2.document)
    device.loop.away = True
    for _ in range(200):
        device.engine.tick()
        device.see_a_frame()

    assert device.states[-1] == "failed"
    assert device.reports[-1]["error"] == "LinkError"
    assert device.current == v1.sha256

    # and the same document starts it again, but only after a while
    device.loop.away = False
    device.engine.offer(v2.document)
    device.finish()
    assert device.current == v1.sha256
    device.clock.pass_s(engine_module.RETRY_S)
    device.engine.tick()
    device.finish()
    assert device.current == v2.sha256


def test_a_trial_that_was_killed_with_the_agent_is_not_held_against_the_model(
    device: Device, server: BundleServer, client: httpx.Client, v2: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_candidate: Path, _current: Path | None) -> FakeVerdict:
        device.engine.stop()
        return FakeVerdict(passed=False, error="TrialCrashError", reason="SIGTERM")

    monkeypatch.setattr(device.engine, "_trial", killed)
    device.engine.offer(v2.document)
    while device.engine.tick():
        continue
    assert device.engine.record.state == "trial"

    device = again(device, server, client)
    device.run()
    assert device.current == v2.sha256


def test_a_trial_that_crashes_is_a_refusal(device: Device, v1: Signed, v2: Signed) -> None:
    device.trial.crashing.add(v2.sha256)

    device.engine.offer(v2.document)
    device.finish()

    assert device.reports[-1]["error"] == "TrialCrashError"
    assert device.current == v1.sha256


def test_a_disk_without_room_is_noticed_before_the_download(
    device: Device, server: BundleServer, v1: Signed, v2: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device.engine.store, "_free_bytes", lambda _folder: 1_000_000)
    requests = len(server.requests)

    device.engine.offer(v2.document)
    device.finish()

    assert device.states[-1] == "failed"
    assert device.reports[-1]["error"] == "StorageError"
    assert "needs 17 MiB of free space; there are 1 MiB" in device.reports[-1]["reason"]
    assert len(server.requests) == requests


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b'{"state":"trial"}', b"[]"])
def test_a_damaged_record_counts_as_idle_and_is_reported(
    device: Device, server: BundleServer, client: httpx.Client, v1: Signed, v2: Signed, content: bytes
) -> None:
    (device.root / "update.json").write_bytes(content)

    device = again(device, server, client)
    device.run(v2.document)

    events = [report for report in device.reports if report["kind"] == "event"]
    assert [event["name"] for event in events] == ["update_record_damaged"]
    assert device.current == v2.sha256


def test_an_agent_that_keeps_starting_in_one_probation_goes_back(
    device: Device, server: BundleServer, client: httpx.Client, v1: Signed, v2: Signed
) -> None:
    device.engine.offer(v2.document)
    while device.loop.status().active != v2.sha256:
        device.engine.tick()

    for _ in range(engine_module.RESTARTS + 1):
        device = Device(device.root.parent, server.url, client=client)
        device.engine.recover()
        device.engine.tick()
    device.finish()

    assert device.states[-1] == "rolled_back"
    assert device.loop.status().active == v1.sha256


def test_another_model_name_becomes_the_active_one(device: Device, bundles: Path, v1: Signed) -> None:
    other = make_release(bundles, "1", rev=4, counter=1, name="counter")

    device.engine.offer(other.document)
    device.finish()

    assert (device.root / "models" / "active").readlink() == Path("counter")
    assert device.current == other.sha256
    assert (device.root / "store" / v1.sha256).is_dir()


def test_stopping_ends_a_tick_soon_and_keeps_the_state(
    device: Device, server: BundleServer, client: httpx.Client, v2: Signed
) -> None:
    device.engine.offer(v2.document)
    device.engine.tick()
    device.engine.tick()
    device.engine.stop()

    assert device.engine.tick() is False

    device = again(device, server, client)
    device.run()
    assert device.current == v2.sha256


def test_a_document_that_comes_again_during_a_download_costs_no_bytes_and_no_figures(
    device: Device, server: BundleServer, v2: Signed
) -> None:
    # given: a part that an earlier run of the agent left, and the same document again as soon as the download goes on
    found = v2.length // 3
    part = device.root / "downloads" / f"{v2.sha256}.part"
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(server.content(v2.sha256)[:found])

    def come_again(handler: BundleHandler, content: bytes) -> None:
        device.engine.offer(v2.document)
        handler.serve(content)

    server.faults.append(come_again)

    # when
    device.engine.offer(v2.document)
    device.finish()

    # then
    figures = device.reports[-1]["figures"]
    assert device.current == v2.sha256
    assert len(server.requests) > 1
    assert (figures["bytes_before"], figures["bytes_fetched"]) == (found, v2.length - found)
