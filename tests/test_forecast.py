"""A forecast of maps is refused where its parts do not fit, and knows its dates and cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from forecast_maps import island

MAPS = island().values["danger"]
TIMES = island().times


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": {}}, "at least one variable"),
        ({"y": island().y[::-1]}, "north first"),
        ({"x": island().x[::-1]}, "west first"),
        ({"y": np.full(12, np.nan)}, "finite coordinates"),
        ({"times": TIMES[::-1]}, "times must rise"),
        ({"times": TIMES[[0, 0, 1]]}, "times must rise"),
        ({"times": np.arange(3)}, "vector of dates"),
        ({"times": TIMES[:2]}, r"need float32 of shape \(2, 12, 16\)"),
        ({"values": {"danger": MAPS.astype(np.float64)}}, "danger is float64"),
        ({"spread": {"rain": MAPS}}, "spread of rain, but no such variable"),
        ({"units": {}}, "no unit of danger"),
    ],
)
def test_parts_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        island(**changes)


def test_dates_tell_the_hour_where_there_is_one() -> None:
    assert island().dates == ("2021-07-01", "2021-07-02", "2021-07-03")
    hours = np.datetime64("2021-07-01T00", "h") + 6 * np.arange(3)
    assert island(times=hours).dates == ("2021-07-01", "2021-07-01T06:00", "2021-07-01T12:00")


def test_one_time() -> None:
    last = island().time(-1)
    assert last.dates == ("2021-07-03",)
    np.testing.assert_array_equal(last.values["danger"][0], MAPS[2])
    assert last.spread["danger"].shape == (1, 12, 16)


def test_cells_reach_half_way_to_the_next() -> None:
    forecast = island()
    assert forecast.cell(39.5, 21.0) == (0, 0)
    assert forecast.cell(39.4451, 21.0949) == (5, 9)
    assert forecast.cell(39.5049, 20.9951) == (0, 0)
    with pytest.raises(ValueError, match=r"y = 39\.51 lies outside the maps"):
        forecast.cell(39.51, 21.0)
    with pytest.raises(ValueError, match=r"x = 21\.2 lies outside"):
        forecast.cell(39.5, 21.2)
