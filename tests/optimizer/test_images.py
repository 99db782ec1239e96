from pathlib import Path

import cv2
import numpy as np
import pytest

from ommatid.errors import BadInputError
from ommatid.vision.resize import Resizer
from optimizer.images import Section, load_images, parse_section, shrink
from optimizer.request import Sampling
from tests.support.nets import write_pictures, write_video


@pytest.mark.parametrize(
    ("text", "section"),
    [
        ("street.avi", Section(Path("street.avi"))),
        ("street.avi#t=10,30", Section(Path("street.avi"), 10, 30)),
        ("street.avi#t=10", Section(Path("street.avi"), 10)),
        ("street.avi#t=,7.5", Section(Path("street.avi"), 0, 7.5)),
    ],
)
def test_a_part_of_a_video_is_named_like_a_media_fragment(text: str, section: Section) -> None:
    assert parse_section(text) == section


@pytest.mark.parametrize("fragment", ["t=5,5", "t=9,3", "t=-1,3", "t=a,b", "x=1,2", "", "t=nan,3"])
def test_a_part_that_is_none_is_refused(fragment: str) -> None:
    with pytest.raises(BadInputError, match="not a part of a video"):
        parse_section(f"street.avi#{fragment}")


@pytest.mark.parametrize(
    ("sampling", "count", "positions"),
    [
        (Sampling(4), 8, [0, 2, 4, 6]),
        (Sampling(10), 3, [0, 1, 2]),
        (Sampling(3, stride=5), 100, [0, 5, 10]),
        (Sampling(60, stride=5), 11, [0, 5, 10]),
        (Sampling(7), 20, [0, 2, 5, 8, 11, 14, 17]),
    ],
)
def test_which_images_are_taken_depends_on_their_number_alone(
    sampling: Sampling, count: int, positions: list[int]
) -> None:
    assert sampling.positions(count) == positions


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    write_pictures(tmp_path, 6)

    images = load_images(str(tmp_path), Sampling(3), rule="stretch", input_size=(16, 8))

    expected = [cv2.imread(str(tmp_path / f"{index:03}.png")) for index in (0, 2, 4)]
    assert [picture.shape for picture in images.pictures] == [(8, 16, 3)] * 3
    assert [picture[0, 0].tolist() for picture in images.pictures] == [one[0, 0].tolist() for one in expected]
    assert not images.labelled


def test_class_folders_name_the_classes(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3, by_class=True)

    images = load_images(str(tmp_path), Sampling(), rule="stretch", input_size=(16, 16))

    assert images.labelled
    assert images.labels == ("blue", "green", "red")


def test_the_digest_names_what_was_taken(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 6, seed=1)
    write_pictures(tmp_path / "b", 6, seed=1)
    write_pictures(tmp_path / "c", 6, seed=2)

    digests = [
        load_images(str(tmp_path / name), Sampling(limit), rule="stretch", input_size=(16, 16)).sha256
        for name, limit in (("a", 6), ("b", 6), ("c", 6), ("a", 5))
    ]

    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_part_of_a_video_is_read_where_it_is(tmp_path: Path) -> None:
    video = write_video(tmp_path / "colours.avi", 30, fps=10)

    images = load_images(f"{video}#t=1,2", Sampling(5), rule="stretch", input_size=(16, 16))

    # Frames 10, 12, 14, 16, 18; frame i is of class i % 3: red, green, blue from the last channel on.
    strongest = [2 - int(picture[8, 8].argmax()) for picture in images.pictures]
    assert strongest == [10 % 3, 12 % 3, 14 % 3, 16 % 3, 18 % 3]


def test_every_image_is_watched_in_its_full_size(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    shapes = []

    load_images(
        str(tmp_path),
        Sampling(),
        rule="stretch",
        input_size=(8, 8),
        watch=lambda picture: shapes.append(picture.shape),
    )

    assert shapes == [(30, 40, 3)] * 2


@pytest.mark.parametrize("rule", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(48, 48), (40, 64), (300, 300)])
def test_an_image_kept_small_reaches_the_model_as_the_whole_one_would(rule: str, size: tuple[int, int]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (57, 77, 3), dtype=np.uint8)
    device = Resizer(rule, *size)  # type: ignore[arg-type]  # one of the two rules

    whole = device.resize(frame)[0].copy()
    small = device.resize(shrink(frame, rule, size))[0].copy()  # type: ignore[arg-type]  # as above

    assert np.array_equal(small, whole)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.avi").write_text("no video")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "photo.jpg").write_bytes(b"\xff\xd8\xff no picture")
    video = write_video(tmp_path / "short.avi", 10)
    for text, words in (
        (tmp_path / "empty", "no image found"),
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "text.avi", "not a video"),
        (tmp_path / "bad", "photo.jpg"),
        (f"{video}#t=5,9", "it lasts 1.0 s"),
        (f"{tmp_path / 'bad'}#t=1,2", "a folder has no seconds"),
    ):
        with pytest.raises(BadInputError, match=words):
            load_images(str(text), Sampling(), rule="stretch", input_size=(16, 16))


def test_a_video_cut_short_is_an_error_and_not_a_smaller_set(tmp_path: Path) -> None:
    video = write_video(tmp_path / "cut.avi", 40)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])

    with pytest.raises(BadInputError, match=r"cut\.avi"):
        load_images(str(video), Sampling(), rule="stretch", input_size=(16, 16))
