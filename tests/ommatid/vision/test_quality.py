"""Frames are measured and judged; what cannot be judged is never called well."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ommatid.vision.baseline import CameraBaseline
from ommatid.vision.quality import QualityChecks, QualityReport, QualityState
from ommatid.vision.reference import ReferenceProfile
from ommatid.vision.signals import SIGNALS, SignalMeter, measure
from tests.support.pictures import frame, scene, spoil_blur, spoil_light, spoil_noise

Picture = NDArray[np.uint8]


def live(picture: Picture, index: int) -> Picture:
    """Return the picture as a sensor gives it a second time: with new noise."""
    return spoil_noise(picture, 1.0, seed=1000 + index)


def watch(checks: QualityChecks, picture: Picture, frames: int, start: int = 0) -> list[QualityReport]:
    return [checks.inspect(frame(live(picture, index), index)) for index in range(start, start + frames)]


@pytest.fixture(scope="module")
def profile() -> ReferenceProfile:
    return ReferenceProfile.of(measure(scene(seed=seed)) for seed in range(20))


def test_signals_are_what_their_names_say() -> None:
    flat = np.full((480, 640, 3), 100, np.uint8)
    halves = flat.copy()
    halves[:, :320] = 0
    halves[:, 320:] = 255

    grey, split = measure(flat), measure(halves)

    assert grey["brightness"] == pytest.approx(100)
    assert grey["contrast"] == pytest.approx(0, abs=1e-6)
    assert grey["entropy"] == pytest.approx(0)
    assert split["brightness"] == pytest.approx(127.5)
    assert split["contrast"] == pytest.approx(127.5)
    assert split["clip_low"] == split["clip_high"] == pytest.approx(0.5)
    assert split["entropy"] == pytest.approx(1)


def test_every_signal_has_a_rule_and_stays_in_its_range() -> None:
    meter = SignalMeter()

    for seed in range(4):
        for name, value in meter.measure(spoil_noise(scene(seed=seed), 20)).signals.items():
            assert SIGNALS[name].minimum <= value <= SIGNALS[name].maximum, name


def test_a_picture_without_edges_has_no_sharpness() -> None:
    signals = measure(np.full((480, 640, 3), 30, np.uint8))

    assert "sharpness_fine" not in signals
    assert "noise" not in signals


def test_dimming_does_not_look_like_blur() -> None:
    sharp = scene()

    dim = measure(spoil_light(sharp, 0.3))["sharpness_coarse"] - measure(sharp)["sharpness_coarse"]
    blurred = measure(spoil_blur(sharp, 3))["sharpness_coarse"] - measure(sharp)["sharpness_coarse"]

    assert abs(dim) < 0.1
    assert blurred < -0.5


def test_noise_shows_at_the_fine_scale() -> None:
    clean, noisy = measure(scene()), measure(spoil_noise(scene(), 20))

    assert noisy["noise"] > clean["noise"] + 0.2


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (33, 500), (641, 479), (1921, 1081)])
def test_any_size_can_be_measured(size: tuple[int, int]) -> None:
    meter = SignalMeter()

    for seed in range(2):
        picture = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
        signals = meter.measure(picture).signals

    assert np.isfinite(list(signals.values())).all()


def test_a_new_frame_size_has_no_change_to_the_old_one() -> None:
    meter = SignalMeter()

    meter.measure(scene(640, 480))
    signals = meter.measure(scene(320, 240)).signals

    assert "change" not in signals


def test_a_well_camera_is_learning_before_it_is_ok(profile: ReferenceProfile) -> None:
    checks = QualityChecks(profile, baseline=CameraBaseline(30, 0.0), input_size=(320, 320))

    reports = watch(checks, scene(), 60)

    assert {report.state for report in reports[:30]} == {QualityState.LEARNING}
    assert {report.state for report in reports[30:]} == {QualityState.OK}
    assert not any(report.reasons for report in reports)


def test_without_a_profile_training_is_unsupported_not_ok() -> None:
    report = watch(QualityChecks(baseline=CameraBaseline(5, 0.0)), scene(), 3)[-1]

    assert report.checks["training"] is QualityState.UNSUPPORTED
    assert report.checks["resolution"] is QualityState.UNSUPPORTED
    assert report.state is QualityState.LEARNING


def test_learning_takes_frames_an_interval_apart() -> None:
    checks = QualityChecks(baseline=CameraBaseline(3, 1.0))

    reports = watch(checks, scene(), 22)

    # Ten frames a second: frames 0, 10 and 20 are learned, and frame 21 is judged.
    assert [report.checks["camera"] for report in reports[20:]] == [QualityState.LEARNING, QualityState.OK]


SPOILED = {
    "too_dark": lambda picture: spoil_light(picture, 0.3),
    "too_bright": lambda picture: spoil_light(picture, 2.2),
    "highlights_clipped": lambda picture: spoil_light(picture, 2.2),
    "low_contrast": lambda picture: spoil_light(picture, 0.3),
    "blurred": lambda picture: spoil_blur(picture, 4),
    "noisy": lambda picture: spoil_noise(picture, 30),
    "little_detail": lambda picture: np.full_like(picture, 90),
}


@pytest.mark.parametrize("reason", SPOILED)
@pytest.mark.parametrize("reference", ["training", "camera"])
def test_a_spoiled_camera_is_flagged_within_ten_frames(profile: ReferenceProfile, reference: str, reason: str) -> None:
    checks = QualityChecks(profile if reference == "training" else None, baseline=CameraBaseline(30, 0.0))
    if reference == "camera":
        watch(checks, scene(), 30)

    report = watch(checks, SPOILED[reason](scene()), 10, start=30)[-1]

    assert report.state is QualityState.FLAGGED
    assert report.checks[reference] is QualityState.FLAGGED
    assert reason in report.reasons


def test_a_short_flash_is_not_flagged(profile: ReferenceProfile) -> None:
    checks = QualityChecks(profile, baseline=CameraBaseline(5, 0.0))
    watch(checks, scene(), 10)

    flash = watch(checks, spoil_light(scene(), 2.5), 5, start=10)
    after = watch(checks, scene(), 10, start=15)

    assert not any(report.reasons for report in flash + after)


def test_a_lens_blurred_on_one_side_is_seen_by_its_tiles() -> None:
    checks = QualityChecks(baseline=CameraBaseline(30, 0.0))
    watch(checks, scene(), 30)
    dirty = scene()
    dirty[:, :320] = spoil_blur(dirty, 8)[:, :320]

    report = watch(checks, dirty, 10, start=30)[-1]

    assert "view_partly_lost" in report.reasons
    assert report.signals["tiles_lost"] >= 2


def test_dimming_takes_no_tiles() -> None:
    checks = QualityChecks(baseline=CameraBaseline(30, 0.0))
    watch(checks, scene(), 30)

    report = watch(checks, spoil_light(scene(), 0.5), 10, start=30)[-1]

    assert "view_partly_lost" not in report.reasons


def test_a_bare_wall_cannot_tell_a_covered_lens() -> None:
    checks = QualityChecks(baseline=CameraBaseline(10, 0.0))

    report = watch(checks, np.full((480, 640, 3), 120, np.uint8), 12)[-1]

    assert report.checks["tiles"] is QualityState.UNSUPPORTED
    assert "tiles_lost" not in report.signals


@pytest.mark.parametrize(("fps", "frames", "frozen"), [(10, 51, True), (10, 50, False), (1, 9, False), (1, 10, True)])
def test_a_frame_is_frozen_after_ten_repeats_and_five_seconds(fps: float, frames: int, frozen: bool) -> None:  # noqa: FBT001
    checks = QualityChecks()
    picture = scene()

    report = [checks.inspect(frame(picture, index, fps)) for index in range(frames)][-1]

    assert ("frozen" in report.reasons) is frozen


def test_a_frozen_picture_is_not_learned() -> None:
    checks = QualityChecks(baseline=CameraBaseline(100, 0.0))
    picture = scene()

    reports = [checks.inspect(frame(picture, index)) for index in range(200)]

    assert reports[-1].checks["camera"] is QualityState.LEARNING
    assert reports[-1].state is QualityState.FLAGGED


def test_a_frame_smaller_than_the_input_is_flagged_at_once() -> None:
    checks = QualityChecks(input_size=(640, 640))

    report = checks.inspect(frame(scene(640, 480)))

    assert report.reasons == ("low_resolution",)


def test_shares_outside_training_need_evidence(profile: ReferenceProfile) -> None:
    checks = QualityChecks(profile)

    watch(checks, scene(), 49)
    before = checks.training_shares()
    watch(checks, spoil_light(scene(), 0.2), 51, start=49)
    after = checks.training_shares()

    assert before is None
    assert after is not None
    assert after["brightness"] == pytest.approx(0.51)
    assert QualityChecks().training_shares() is None


def test_a_profile_survives_its_file_and_is_the_same_for_the_same_images(profile: ReferenceProfile) -> None:
    again = ReferenceProfile.of(measure(scene(seed=seed)) for seed in range(20))

    back = ReferenceProfile.decode(profile.encode())

    assert again.encode() == profile.encode()
    assert back.images == 20
    assert back.signals["brightness"].p99 == pytest.approx(profile.signals["brightness"].p99, abs=1e-6)
    assert back.encode() == profile.encode()


NOT_A_NUMBER = (
    b'{"kind":"quality-profile","schema_version":1,"images":1,"signals":'
    b'{"brightness":{"images":1,"mean":NaN,"sd":0,"p1":0,"p50":0,"p99":0}}}'
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"kind":"quality-profile","schema_version":2,"images":1,"signals":{}}',
        b'{"kind":"quality-profile","schema_version":1,"images":1,"signals":{"brightness":{}}}',
        NOT_A_NUMBER,
    ],
)
def test_what_is_no_profile_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        ReferenceProfile.decode(content)
