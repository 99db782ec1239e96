from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.loop.sources import FileSource, Picture, Source, SourceSpec, open_source, parse_source
from ommatid.errors import BadInputError, SourceError
from tests.support.bundles import picture
from tests.support.loops import make_video


def read_all(source: Source, limit: int = 1000) -> list[Picture]:
    pictures: list[Picture] = []
    while len(pictures) < limit and (found := source.read()) is not None:
        pictures.append(found)
    source.close()
    return pictures


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("a.avi", SourceSpec(Path("a.avi"))),
        ("a.avi#loop", SourceSpec(Path("a.avi"), loop=True)),
        ("a.avi#t=10,30", SourceSpec(Path("a.avi"), 10, 30)),
        ("a.avi#t=,2.5&loop", SourceSpec(Path("a.avi"), 0, 2.5, loop=True)),
        ("a b#t=3", SourceSpec(Path("a b"), 3)),
        ("photos#fps=2&loop", SourceSpec(Path("photos"), loop=True, fps=2)),
    ],
)
def test_a_source_is_named_like_a_media_fragment(text: str, spec: SourceSpec) -> None:
    assert parse_source(text) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#loop",
        "a#",
        "a#loops",
        "a#t=5,5",
        "a#t=-1,2",
        "a#t=x",
        "a#t=nan",
        "a#fps=0",
        "a#fps=inf",
        "a#loop=1",
        "rtsp://door/1",
    ],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadInputError, match="source"):
        parse_source(text)


def test_a_video_gives_its_pictures_once(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.avi", frames=12, fps=20)

    source = open_source(SourceSpec(video))

    assert source.fps == 20
    assert len(read_all(source)) == 12


def test_a_part_of_a_video_begins_and_ends_at_its_pictures(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.avi", frames=20, fps=20)
    whole = read_all(open_source(SourceSpec(video)))

    part = read_all(open_source(parse_source(f"{video}#t=0.25,0.5")))

    assert len(part) == 5
    assert all(np.array_equal(one, other) for one, other in zip(part, whole[5:10], strict=True))


def test_a_looped_part_begins_again_at_its_first_picture(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.avi", frames=20, fps=20)
    once = read_all(open_source(parse_source(f"{video}#t=0.25,0.5")))

    looped = read_all(open_source(parse_source(f"{video}#t=0.25,0.5&loop")), limit=15)

    assert len(looped) == 15
    assert all(np.array_equal(looped[index], once[index % 5]) for index in range(15))


def test_a_part_beyond_the_end_has_no_picture(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.avi", frames=5, fps=20)

    assert read_all(open_source(parse_source(f"{video}#t=60"))) == []
    with pytest.raises(SourceError):
        open_source(parse_source(f"{video}#t=60&loop")).read()


def test_a_folder_gives_its_images_by_name_and_passes_over_the_rest(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    (tmp_path / "0b.jpg").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image either")

    pictures = read_all(open_source(SourceSpec(tmp_path)))

    assert [int(np.abs(a.astype(int) - picture(n)).max()) for n, a in enumerate(pictures)] == [0, 0, 0]


def test_a_looped_folder_does_not_end(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), picture(0))

    assert len(read_all(open_source(SourceSpec(tmp_path, loop=True)), limit=5)) == 5


@pytest.mark.parametrize("loop", [True, False])
def test_a_folder_in_which_nothing_decodes_is_an_error_or_an_end(tmp_path: Path, loop: bool) -> None:  # noqa: FBT001 - a parameter
    (tmp_path / "0.jpg").write_bytes(b"no image")
    source = open_source(SourceSpec(tmp_path, loop=loop))

    if loop:
        with pytest.raises(SourceError, match="none of 1 images"):
            source.read()
    else:
        assert source.read() is None


def test_what_is_no_source_says_so(tmp_path: Path) -> None:
    (tmp_path / "text.avi").write_text("no video")
    (tmp_path / "empty").mkdir()

    with pytest.raises(SourceError, match="not a video"):
        FileSource(SourceSpec(tmp_path / "text.avi"))
    with pytest.raises(SourceError, match="no image"):
        open_source(SourceSpec(tmp_path / "empty"))
    with pytest.raises(SourceError, match="no such file"):
        open_source(SourceSpec(tmp_path / "missing.avi"))
