"""Time axes: round ticks, readable moments, one axis for several rows."""

from __future__ import annotations

import numpy as np
import pytest

from framecast.structures import Segments
from framecast.viz.axis import TimeAxis, common_axis, format_time


@pytest.mark.parametrize(
    ("seconds", "decimals", "text"),
    [
        (0, 0, "0:00"),
        (4.24, 1, "0:04.2"),
        (59.96, 1, "1:00.0"),
        (59.6, 0, "1:00"),
        (65, 0, "1:05"),
        (3599.99, 1, "1:00:00.0"),
        (3725, 0, "1:02:05"),
        (-0.001, 1, "0:00.0"),
    ],
)
def test_moments(seconds, decimals, text):
    assert format_time(seconds, decimals) == text


@pytest.mark.parametrize("end", [0.4, 3.0, 9.9, 10.0, 77.0, 600.0, 5400.0, 100_000.0, 9e6])
@pytest.mark.parametrize("unit", ["seconds", "frames"])
def test_ticks_are_round_even_and_few(end, unit):
    ticks = TimeAxis(unit, end).ticks(11)
    values = np.array([value for value, _ in ticks])
    assert 1 <= len(ticks) <= 11
    assert values[0] == 0
    assert values[-1] <= end * 1.0001
    np.testing.assert_allclose(np.diff(values), values[1] if len(values) > 1 else 0, rtol=1e-6)
    texts = [text for _, text in ticks]
    assert len(set(texts)) == len(texts)


def test_lengths_in_words():
    seconds = TimeAxis("seconds", 10.0)
    spoken = [seconds.length(value) for value in (4.21, 59.97, 65, 3600)]
    assert spoken == ["4.2 s", "1:00 min", "1:05 min", "1:00:00 h"]
    frames = TimeAxis("frames", 10.0)
    assert [frames.length(1), frames.length(37)] == ["1 frame", "37 frames"]


def test_a_row_without_times_borrows_them():
    labels, classes = np.array([0, 0, 1, 1]), ("a", "b")
    timed = Segments.from_frames(labels, classes, times=np.arange(4) / 2)
    axis, (first, second) = common_axis([Segments.from_frames(labels, classes), timed])
    assert (axis.unit, axis.end) == ("seconds", 2.0)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, [[0, 1], [1, 2]])


def test_frames_where_nobody_knows_the_times():
    axis, (limits,) = common_axis([Segments.from_frames(np.array([0, 0, 1]), ("a", "b"))])
    assert (axis.unit, axis.end) == ("frames", 3.0)
    np.testing.assert_array_equal(limits, [[0, 2], [2, 3]])


def test_rows_that_cannot_share_an_axis_are_refused():
    timed = Segments.from_frames(np.zeros(4), ("a",), times=np.arange(4.0))
    with pytest.raises(ValueError, match="5 frames has no frame times"):
        common_axis([timed, Segments.from_frames(np.zeros(5), ("a",))])
    with pytest.raises(ValueError, match="at least one row"):
        common_axis([])
