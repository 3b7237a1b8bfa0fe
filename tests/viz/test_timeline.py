"""Timelines: the pictures are decoded, and the colours of the classes are where the segments are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framecast.structures import Segments
from framecast.viz.canvas import DPI, fitted, shortened, text_width
from framecast.viz.palette import GREY, PALETTE
from framecast.viz.timeline import MARGIN, WIDTH, draw_timeline, draw_timelines, lane_left, name_inside

CLASSES = ("crack_egg", "pour_milk", "stir", "background")


def make_segments(lengths: list[int], labels: list[int], rate: float | None = 10.0, **given) -> Segments:
    frames = np.repeat(labels, lengths)
    times = None if rate is None else np.arange(len(frames)) / rate
    return Segments.from_frames(frames, given.pop("classes", CLASSES), times=times, **given)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def rows_of(image: np.ndarray, color: str | tuple[int, ...], share: float, labels: list[str]) -> np.ndarray:
    """Rows of pixels that have a colour at a share of the time axis."""
    left = lane_left(labels)
    column = round((left + share * (WIDTH - left - MARGIN)) * DPI)
    wanted = rgb(color) if isinstance(color, str) else color
    return np.flatnonzero((np.abs(image[:, column].astype(int) - wanted) <= 2).all(axis=1))


@pytest.mark.parametrize("rate", [None, 10.0, 0.25])  # frames, 10 seconds, 6:40 minutes
def test_every_segment_has_its_color_where_it_is(tmp_path, rate):
    segments = make_segments([20, 30, 10, 40], [0, 1, 2, 3], rate)
    image = pixels(draw_timeline({"truth": segments}, tmp_path / "a.png"))
    assert image.shape[1] == WIDTH * DPI
    colors = [*PALETTE[:3], GREY]
    for i, (start, end) in enumerate([(0, 0.2), (0.2, 0.5), (0.5, 0.6), (0.6, 1)]):
        for share in (start + 0.01, end - 0.01):
            present = [len(rows_of(image, color, share, ["truth"])) > 0.4 * DPI for color in colors]
            assert present == [j == i for j in range(4)]


def test_rows_are_below_each_other_in_the_order_given(tmp_path):
    rows = {"prediction": make_segments([50, 50], [0, 1]), "truth": make_segments([50, 50], [1, 0])}
    image = pixels(draw_timeline(rows, tmp_path / "a.png"))
    for share, upper, lower in ((0.02, PALETTE[0], PALETTE[1]), (0.98, PALETTE[1], PALETTE[0])):
        above, below = (rows_of(image, color, share, list(rows)) for color in (upper, lower))
        assert above.max() < below.min()


def test_a_single_frame_of_a_long_video_can_be_seen(tmp_path):
    segments = make_segments([9000, 1, 8999], [0, 1, 0], 15.0)
    image = pixels(draw_timeline({"truth": segments}, tmp_path / "a.png"))
    lane = image[rows_of(image, PALETTE[0], 0.1, ["truth"])]  # without the legend
    of_the_frame = (np.abs(lane.astype(int) - rgb(PALETTE[1])) <= 8).all(axis=-1).all(axis=0)
    assert of_the_frame.sum() >= 1


def test_a_legend_appears_where_names_do_not_fit(tmp_path):
    few = draw_timeline({"truth": make_segments([50, 50], [0, 1])}, tmp_path / "few.png")
    many = draw_timeline({"truth": make_segments([2] * 60, [0, 1] * 30)}, tmp_path / "many.png")
    assert pixels(many).shape[0] > pixels(few).shape[0] + 0.2 * DPI


@pytest.mark.parametrize("width", [0.1, 0.3, 0.6, 1.0, 3.0])
@pytest.mark.parametrize("name", ["walk", "place_tomato_into_bowl", "x" * 60, "a b c d e f g h"])
def test_a_name_is_written_only_where_it_fits(name, width):
    label = name_inside(name, width, 0.5)
    if label:
        text, size = label
        assert max(text_width(line, size) for line in text.split("\n")) < width
        assert text.replace("\n", " ") == name.replace("_", " ")
    else:
        assert fitted(name.replace("_", " "), width - 0.12, 0.44, (7.5,)) is None


def test_long_names_are_shortened():
    assert shortened("walk", 9, 1.0) == "walk"
    short = shortened("x" * 300, 9, 1.0)
    assert short.endswith("…")
    assert 0.8 < text_width(short, 9) <= 1.0


def test_film_strip_shows_frames_when_they_happen(tmp_path):
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    frames = [np.full((90, 160, 3), color, np.uint8) for color in colors]
    segments = make_segments([100], [0])
    for name, times in (("even", None), ("given", [1.2, 3.7, 6.2, 8.7])):
        path = draw_timeline(
            {"truth": segments}, tmp_path / f"{name}.png", thumbnails=frames, thumbnail_times=times
        )
        image = pixels(path)
        for i, color in enumerate(colors):
            assert len(rows_of(image, color, (i + 0.5) / 4, ["truth"])) > 0.5 * DPI


def test_a_stretch_without_a_frame_stays_empty(tmp_path):
    frames = [np.full((90, 160, 3), color, np.uint8) for color in [(250, 0, 0), (0, 0, 250)]]
    segments = make_segments([100], [0])
    image = pixels(
        draw_timeline({"truth": segments}, tmp_path / "a.png", thumbnails=frames, thumbnail_times=[1.0, 2.0])
    )
    assert len(rows_of(image, (0, 0, 250), 0.75, ["truth"])) == 0


def test_confidence_is_drawn_as_high_as_it_is(tmp_path):
    segments = make_segments([50, 50], [0, 1])
    plain = pixels(draw_timeline({"truth": segments}, tmp_path / "plain.png"))
    sure = np.repeat([0.9, 0.2], 50)
    image = pixels(draw_timeline({"truth": segments}, tmp_path / "sure.png", probs=sure))
    assert image.shape[0] > plain.shape[0]
    curve = (0xCD, 0xD4, 0xDF)  # the fill on white
    high, low = (len(rows_of(image, curve, share, ["confidence"])) for share in (0.25, 0.75))
    assert high == pytest.approx(0.9 * 0.42 * DPI, abs=4)
    assert low == pytest.approx(0.2 * 0.42 * DPI, abs=4)


def test_confidence_comes_with_the_segments(tmp_path):
    probs = np.zeros((4, 100))
    probs[:2] = np.repeat([[0.9, 0.2], [0.1, 0.8]], 50, axis=1)
    segments = make_segments([50, 50], [0, 1], frame_probs=probs)
    with_probs = draw_timeline({"truth": segments}, tmp_path / "own.png").read_bytes()
    given = draw_timeline({"truth": segments}, tmp_path / "given.png", probs=probs).read_bytes()
    assert with_probs == given


def test_several_videos_share_a_scale_and_a_legend(tmp_path):
    videos = {
        "long": {"truth": make_segments([50, 50], [0, 1])},
        "short": {"truth": make_segments([25, 25], [2, 0])},
    }
    image = pixels(draw_timelines(videos, tmp_path / "same.png", title="two videos"))
    assert len(rows_of(image, PALETTE[2], 0.23, ["truth"])) > 0.3 * DPI
    assert len(rows_of(image, PALETTE[2], 0.3, ["truth"])) == 0
    assert len(rows_of(image, PALETTE[0], 0.7, ["truth"])) == 0
    own = pixels(draw_timelines(videos, tmp_path / "own.png", same_scale=False))
    assert len(rows_of(own, PALETTE[0], 0.7, ["truth"])) > 0.3 * DPI


def test_names_of_any_kind_can_be_drawn(tmp_path, recwarn):
    names = ("cost_$5_{and", "日本語", "a\nb", "\ud800", "<b>", "$x^2$")
    segments = make_segments([20] * 6, list(range(6)), classes=names)
    path = draw_timeline({"$\\frac{1}$": segments}, tmp_path / "a.png", title="50 % $of_{ 日本")
    assert pixels(path).shape[1] == WIDTH * DPI
    assert not recwarn.list


def test_many_classes_and_segments(tmp_path):
    classes = tuple(f"take_the_{i}th_thing_from_the_upper_shelf" for i in range(60))
    rng = np.random.default_rng(0)
    lengths, labels = rng.integers(5, 400, 120).tolist(), (rng.permutation(120) % 60).tolist()
    segments = make_segments(lengths, labels, 15.0, classes=classes)
    image = pixels(draw_timeline({"a name of a row that is much too long": segments}, tmp_path / "a.png"))
    drawn = set(np.unique(image.astype(np.int64) @ (65536, 256, 1)).tolist())
    assert drawn >= {int(color[1:], 16) for color in PALETTE}


def test_a_failed_picture_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    segments = make_segments([50, 50], [0, 1])
    with pytest.raises(ValueError, match="uint8"):
        draw_timeline({"truth": segments}, path, thumbnails=[np.zeros((4, 4, 3))])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_arrays_are_refused(tmp_path):
    segments = make_segments([50, 50], [0, 1])
    with pytest.raises(ValueError, match=r"expected \(4, 100\) or \(100,\)"):
        draw_timeline({"truth": segments}, tmp_path / "a.png", probs=np.ones((3, 100)))
    frame = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="1 thumbnails"):
        draw_timeline({"truth": segments}, tmp_path / "a.png", thumbnails=[frame], thumbnail_times=[1, 2])
    with pytest.raises(ValueError, match="no videos"):
        draw_timelines({}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="too tall"):
        draw_timelines({str(i): {"truth": segments} for i in range(700)}, tmp_path / "a.png")
