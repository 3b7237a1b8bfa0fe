"""Pictures of futures: the colours of the classes are where and as large as the samples say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framecast.structures import Futures, Segments
from framecast.viz.canvas import DPI, INK
from framecast.viz.chances import ChanceStack, chance, roomiest
from framecast.viz.futures import CHANCES, RIGHT, WIDEST_FUTURE, draw_futures
from framecast.viz.futures_view import LONGEST_PAST, FuturesView
from framecast.viz.palette import GREY, PALETTE
from framecast.viz.timeline import LANE, LOW_LANE, MARGIN, WIDTH

CLASSES = ("crack_egg", "pour_milk", "stir", "background")


def make_futures(
    samples: list[list[int]], seen: list[int] | None = None, rate: float | None = 10.0, **given
) -> Futures:
    """Every label of the samples and of what was seen stands for 10 frames."""
    labels = np.repeat(np.array([2] if seen is None else seen, dtype=np.int64), 10)
    classes = given.pop("classes", CLASSES)
    times = None if rate is None else np.arange(len(labels)) / rate
    observed = Segments.from_frames(labels, classes, video="clip", times=times)
    step = None if rate is None else 1 / rate
    return Futures(observed, np.repeat(np.array(samples), 10, axis=1), step_s=step, **given)


def truth_of(futures: Futures, coming: list[int]) -> Segments:
    labels = np.r_[futures.observed.frame_labels, np.repeat(coming, 10)]
    times = None if futures.step_s is None else np.arange(len(labels)) * futures.step_s
    return Segments.from_frames(labels, futures.classes, times=times)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def column(image: np.ndarray, futures: Futures, step: float) -> np.ndarray:
    """Pixels of the page at a step after now, or before it where the step is negative."""
    past = min(futures.observed.num_frames / futures.num_steps, LONGEST_PAST)
    right = WIDTH - RIGHT
    future = min((right - MARGIN) / (1 + past), WIDEST_FUTURE)
    return image[:, round((right - future + future * step / futures.num_steps) * DPI)]


def rows_of(pixel_column: np.ndarray, color: str) -> np.ndarray:
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.flatnonzero((np.abs(pixel_column.astype(int) - wanted) <= 2).all(axis=1))


@pytest.mark.parametrize("rate", [None, 10.0, 0.1])  # frames, seconds, minutes
def test_now_parts_what_was_seen_from_what_may_come(tmp_path, rate):
    futures = make_futures([[0, 1]] * 3, [2, 3], rate)
    image = pixels(draw_futures(futures, tmp_path / "a.png"))
    assert image.shape[1] == WIDTH * DPI
    lane = [GREY, PALETTE[0], PALETTE[1]]
    for step, color in ((-5, GREY), (5, PALETTE[0]), (15, PALETTE[1])):
        heights = [len(rows_of(column(image, futures, step), other)[: int(LANE * DPI)]) for other in lane]
        assert heights[lane.index(color)] > 0.4 * DPI
        assert sum(heights) == heights[lane.index(color)]
    assert len(rows_of(column(image, futures, 0), INK)) > 4 * DPI  # the line of now


def test_areas_are_as_tall_as_the_chances(tmp_path):
    futures = make_futures([[0, 1]] * 3 + [[0, 2]])
    image = pixels(draw_futures(futures, tmp_path / "a.png"))
    first = column(image, futures, 3), column(image, futures, 12)
    lanes = LANE + 2 * LOW_LANE  # most probable, two orders of actions
    assert len(rows_of(first[0], PALETTE[0])) / DPI == pytest.approx(lanes + CHANCES, abs=0.06)
    lanes = LANE + LOW_LANE
    assert len(rows_of(first[1], PALETTE[1])) / DPI == pytest.approx(lanes + 0.75 * CHANCES, abs=0.06)
    assert len(rows_of(first[1], PALETTE[2])) / DPI == pytest.approx(LOW_LANE + 0.25 * CHANCES, abs=0.06)


def test_one_future_has_no_chances(tmp_path):
    alone = make_futures([[0, 1]])
    several = make_futures([[0, 1]] * 2)
    small, large = (pixels(draw_futures(f, tmp_path / f"{len(f)}.png")).shape[0] for f in (alone, several))
    assert small + CHANCES * DPI < large
    probs = np.full((4, 20), 0.25)
    image = pixels(draw_futures(replace(alone, step_probs=probs), tmp_path / "own.png"))
    assert len(rows_of(column(image, alone, 13), PALETTE[2])) / DPI == pytest.approx(0.25 * CHANCES, abs=0.04)


def test_each_order_of_actions_is_a_row_up_to_a_number(tmp_path):
    futures = make_futures([[0, 1], [1, 0], [2, 1], [1, 2], [0, 2]])
    heights = [
        pixels(draw_futures(futures, tmp_path / f"{rows}.png", rows=rows)).shape[0] for rows in (1, 2, 5)
    ]
    assert heights[0] < heights[1] < heights[2]
    view = FuturesView.of(futures, None, 2)
    assert view.rest_words == "and 3 other orders of actions: 3 of 5 futures"
    assert FuturesView.of(futures, None, 5).rest_words == ""
    assert view.sample_words == "5 sampled futures, 5 different orders of actions"


def test_what_happened_is_shown_from_now_on(tmp_path):
    futures = make_futures([[0, 1]] * 2)
    plain = pixels(draw_futures(futures, tmp_path / "plain.png"))
    image = pixels(draw_futures(futures, tmp_path / "truth.png", truth=truth_of(futures, [0, 3, 2, 2])))
    for step, color, more in ((12, GREY, LOW_LANE), (5, PALETTE[0], LOW_LANE), (15, PALETTE[2], 0)):
        added = len(rows_of(column(image, futures, step), color)) - len(
            rows_of(column(plain, futures, step), color)
        )
        assert added / DPI == pytest.approx(more, abs=0.05)
    with pytest.raises(ValueError, match="whole video"):
        draw_futures(futures, tmp_path / "a.png", truth=futures.observed)


def test_a_long_past_is_cut_and_says_so(tmp_path):
    seen = [0, 1, *[2] * 18]
    view = FuturesView.of(make_futures([[0, 1]] * 2, seen), None, 5)
    assert view.is_cut
    assert view.axis.start == pytest.approx(20 - LONGEST_PAST * 2)
    assert view.seen_words == "Seen so far: the last 1.6 s of 20 s"
    assert [name for *_, name in view.whole_past] == ["crack_egg", "pour_milk", "stir"]
    assert view.observed is not None
    assert view.observed.row.names == ["stir"]
    short = FuturesView.of(make_futures([[0, 1]] * 2, [2]), None, 5)
    assert short.axis.start == 0
    assert short.seen_words == "Seen so far"


def test_frames_of_the_past_stand_left_of_now(tmp_path):
    futures = make_futures([[0, 1]] * 2, [2, 3])
    colors = ["#fa0000", "#00fa00"]
    frames = [np.full((90, 160, 3), color, np.uint8) for color in ((250, 0, 0), (0, 250, 0))]
    image = pixels(draw_futures(futures, tmp_path / "a.png", thumbnails=frames))
    for step, here in ((-12, 0), (-4, 1)):
        assert len(rows_of(column(image, futures, step), colors[here])) > 0.5 * DPI
        assert len(rows_of(column(image, futures, step), colors[1 - here])) == 0
    assert not len(rows_of(column(image, futures, 4), colors[1]))


def test_the_same_futures_give_the_same_picture(tmp_path):
    futures = make_futures([[0, 1], [1, 0], [1, 1]])
    one, two = (draw_futures(futures, tmp_path / f"{i}.png").read_bytes() for i in (1, 2))
    assert one == two


@pytest.mark.parametrize("steps", [1, 2, 5000])
def test_any_horizon_and_many_classes(tmp_path, steps):
    classes = tuple(f"take_the_{i}th_thing_from_the_upper_shelf" for i in range(200))
    rng = np.random.default_rng(0)
    observed = Segments.from_frames(np.repeat(rng.integers(0, 200, 30), 7), classes)
    samples = np.repeat(rng.integers(0, 200, (12, -(-steps // 400))), 400, axis=1)[:, :steps]
    image = pixels(draw_futures(Futures(observed, samples), tmp_path / "a.png"))
    assert image.shape[1] == WIDTH * DPI


def test_nothing_seen_and_names_of_any_kind(tmp_path, recwarn):
    names = ("cost_$5_{and", "日本語", "a\nb", "\ud800", "<b>", "$x^2$")
    empty = np.zeros(0, np.int64)
    observed = Segments(empty, empty, empty, names)
    samples = np.repeat(np.array([[0, 1, 2], [3, 4, 5]]), 4, axis=1)
    draw_futures(Futures(observed, samples), tmp_path / "a.png", title="50 % $of_{ 日本", thumbnails=[])
    assert not recwarn.list


def test_what_cannot_be_drawn_is_refused(tmp_path):
    futures = make_futures([[0, 1]])
    for samples in (np.zeros((0, 5), np.int64), np.zeros((5, 0), np.int64)):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw_futures(replace(futures, samples=samples), tmp_path / "a.png")
    with pytest.raises(ValueError, match="uint8"):
        draw_futures(futures, tmp_path / "a.png", thumbnails=[np.zeros((4, 4, 3))])
    assert not list(tmp_path.iterdir())


# -- parts ------------------------------------------------------------------------------------------------


def test_stacks_end_at_one_with_the_background_on_top():
    view = FuturesView.of(make_futures([[3, 1, 0], [0, 1, 3], [0, 3, 3]]), None, 5)
    stack = ChanceStack.of(view, at_most=7)
    assert stack.tops[-1] == pytest.approx(1)
    assert (np.diff(stack.tops, axis=0) >= 0).all()
    assert stack.labels[-1] == 3
    assert stack.labels[0] == 0  # comes first
    assert stack.edges[[0, -1]] == pytest.approx([view.now, view.axis.end])
    assert stack.most_bits == 1


def test_a_name_stands_inside_its_area():
    x = np.linspace(0, 6, 7)
    upper, lower = np.array([2.0, 2, 1, 1, 2, 2]), np.full(6, 2.0)
    place = roomiest("stir", None, x, upper, lower)
    assert place is not None
    assert 2 < place[0] < 4
    assert (place[1], place[2]) == (1.5, "stir")
    assert roomiest("stir", None, x, lower - 0.05, lower) is None
    number = roomiest("a name that is too long for two inches", "7", x, upper, lower)
    assert number is not None
    assert number[2] == "7"


def test_chances_are_never_rounded_to_certainty():
    assert [chance(p) for p in (0, 0.001, 0.07, 0.996, 1)] == ["0%", "<1%", "7%", ">99%", "100%"]
