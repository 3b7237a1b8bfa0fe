"""Vegetation indices, drought classes and climatologies, against cases computed by hand."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framecast.data.vegetation_indices import (
    COLD,
    DROUGHT_LIMITS,
    PERIODS,
    Climatology,
    condition,
    drought_class,
    period_of_year,
    tci,
    vci,
    vhi,
)

numbers = st.floats(-1e3, 1e3, allow_nan=False)


def days(first: str, last: str) -> np.ndarray:
    return np.arange(first, last, dtype="datetime64[D]")


class TestIndices:
    def test_by_hand(self) -> None:
        assert float(vci(0.3, 0.1, 0.5)) == pytest.approx(50)
        assert float(tci(300.0, 280.0, 305.0)) == pytest.approx(20)  # hot is bad
        assert vhi(50, 20) == 35
        assert vhi(50, 20, share=0.7) == pytest.approx(41)

    def test_beyond_what_was_seen_is_the_limit(self) -> None:
        assert vci(np.array([0.0, 0.9]), 0.1, 0.5).tolist() == [0, 100]
        assert tci(np.array([270.0, 310.0]), 280.0, 305.0).tolist() == [100, 0]

    def test_gaps_stay_gaps(self) -> None:
        nan = np.nan
        ndvi, low, high = (
            np.array([nan, 0.3, 0.3, 0.3]),
            np.array([0, nan, 0, 0.3]),
            np.array([1, 1, nan, 0.3]),
        )
        assert np.isnan(vci(ndvi, low, high)).all()
        assert np.isnan(vhi(nan, 10.0))
        assert np.isnan(vhi(10.0, nan))

    @given(numbers, numbers, numbers)
    def test_range_and_mirror(self, value: float, a: float, b: float) -> None:
        low, high = sorted((a, b))
        green, cool = float(vci(value, low, high)), float(tci(value, low, high))
        if low == high:
            assert np.isnan(green)
        else:
            assert 0 <= green <= 100
            assert green + cool == pytest.approx(100)

    def test_type_of_labelled_arrays_is_kept(self) -> None:
        xarray = pytest.importorskip("xarray")
        ndvi = xarray.DataArray(np.array([[0.3, np.nan]]), dims=("y", "x"), coords={"x": [5.0, 6.0]})
        got = vci(ndvi, 0.1, ndvi * 0 + 0.5)
        assert got.dims == ("y", "x")
        assert got.x.values.tolist() == [5, 6]
        assert float(got[0, 0]) == pytest.approx(50)
        assert np.isnan(got[0, 1])

    def test_impossible_share(self) -> None:
        with pytest.raises(ValueError, match="share of the VCI is 50"):
            vhi(1, 1, share=50)


class TestClasses:
    def test_limits_belong_to_the_milder_class(self) -> None:
        assert drought_class(np.array([0, 5.99, *DROUGHT_LIMITS, 39.9, 100])).tolist() == [
            *(0, 0),
            *(1, 2, 3, 4, 5),
            *(4, 5),
        ]

    def test_masks(self) -> None:
        health = np.array([10, 10, 10, np.nan, np.nan])
        masked, cold = np.array([0, 1, 1, 0, 0]), np.array([0, 0, 1, 0, 1])
        kind = drought_class(health, masked=masked, cold=cold)
        np.testing.assert_array_equal(kind, [1, np.nan, COLD, np.nan, COLD])


class TestPeriods:
    def test_weeks_by_hand(self) -> None:
        weeks = period_of_year(np.array(["2001-01-01", "2001-01-07", "2001-01-08"], dtype="datetime64[ns]"))
        assert weeks.tolist() == [0, 0, 1]
        late = np.array(["2001-12-24", "2001-12-31", "2004-12-30", "2004-12-31"], dtype="datetime64[D]")
        assert period_of_year(late).tolist() == [51, 51, 51, 51]

    def test_half_months_and_thirds(self) -> None:
        times = np.array(["1982-01-15", "1982-01-16", "1982-02-28", "1982-12-31"], dtype="datetime64[D]")
        assert period_of_year(times, 24).tolist() == [0, 1, 3, 23]
        assert period_of_year(times, 36).tolist() == [1, 1, 5, 35]
        assert period_of_year(times, 12).tolist() == [0, 0, 1, 11]

    def test_leap_day_shares_a_place_and_later_days_keep_theirs(self) -> None:
        for year in (2000, 2004, 1996):
            leap = period_of_year(days(f"{year}-01-01", f"{year + 1}-01-01"), 365)
            plain = period_of_year(days("2001-01-01", "2002-01-01"), 365)
            assert plain.tolist() == list(range(365))
            assert leap.tolist() == [*range(59), 58, *range(59, 365)]
        assert len(set(period_of_year(days("1900-01-01", "1901-01-01"), 365))) == 365  # no leap year

    @pytest.mark.parametrize("periods", PERIODS)
    def test_every_period_of_every_year_occurs_in_order(self, periods: int) -> None:
        for year in (1999, 2000):
            index = period_of_year(days(f"{year}-01-01", f"{year + 1}-01-01"), periods)
            assert np.unique(index).tolist() == list(range(periods))
            assert (np.diff(index) >= (0 if periods < 365 else -1)).all()

    @pytest.mark.parametrize("periods", PERIODS)
    def test_dates_of_other_kinds(self, periods: int) -> None:
        times = days("2003-12-01", "2004-04-01")
        dates = np.array([datetime.date.fromisoformat(str(day)) for day in times], dtype=object)
        assert period_of_year(dates, periods).tolist() == period_of_year(times, periods).tolist()

    def test_calendar_without_leap_days(self) -> None:
        assert period_of_year(np.array([NoLeap(2, 28), NoLeap(3, 1), NoLeap(12, 31)]), 365).tolist() == [
            *(58, 59, 364)
        ]

    def test_what_is_no_date(self) -> None:
        with pytest.raises(ValueError, match="times are float64"):
            period_of_year(np.array([1.0]))
        with pytest.raises(ValueError, match=r"time 1 is missing \(NaT\)"):
            period_of_year(np.array(["2001-01-01", "NaT"], dtype="datetime64[D]"))
        with pytest.raises(ValueError, match="a year of 53 periods is not known"):
            period_of_year(days("2001-01-01", "2001-01-02"), 53)


@dataclass(frozen=True)
class NoLeap:
    """A date of a climate model's year of 365 days, 2004."""

    month: int
    day: int

    def replace(self, month: int, day: int) -> NoLeap:
        return NoLeap(month, day)

    def timetuple(self) -> Any:
        return datetime.date(2001, self.month, self.day).timetuple()


class TestClimatology:
    def test_by_hand(self) -> None:
        times = np.array(["2001-01-01", "2002-01-03", "2003-01-02", "2001-07-01"], dtype="datetime64[D]")
        values = np.array([[1, 5], [3, np.nan], [2, np.nan], [9, 9]], dtype=np.float32)
        fitted = Climatology.fit(values, times)
        low, high, mean = fitted.at(times[:1])
        assert low.tolist() == [[1, 5]]
        assert high.tolist() == [[3, 5]]
        assert mean.tolist() == [[2, 5]]
        assert fitted.count[0].tolist() == [3, 1]
        assert np.isnan(fitted.lowest[1]).all()  # a week that nobody has seen
        assert np.isnan(fitted.mean[1]).all()

    def test_few_values_are_no_range(self) -> None:
        times = np.array(["2001-01-01", "2002-01-03"], dtype="datetime64[D]")
        fitted = Climatology.fit(np.array([[1.0, 5.0], [3.0, np.nan]]), times).with_at_least(2)
        np.testing.assert_array_equal(fitted.lowest[0], [1, np.nan])
        np.testing.assert_array_equal(fitted.mean[0], [2, np.nan])

    @given(st.integers(0, 99), st.lists(st.integers(0, 59), max_size=4))
    def test_chunks_and_merging_change_nothing(self, seed: int, cuts: list[int]) -> None:
        rng = np.random.default_rng(seed)
        times = np.datetime64("1999-06-01") + rng.integers(0, 2000, 60)
        values = np.where(rng.random((60, 2, 3)) < 0.3, np.nan, rng.normal(size=(60, 2, 3)))
        whole = Climatology.fit(values, times)
        edges = [0, *sorted(cuts), 60]
        parts = [slice(a, b) for a, b in pairwise(edges)]
        chunked = Climatology.empty((2, 3))
        for part in parts:
            chunked.update(values[part], times[part])
        merged = Climatology.empty((2, 3))
        for part in parts[::-1]:
            merged.merge(Climatology.fit(values[part], times[part]))
        for other in (chunked, merged):
            np.testing.assert_array_equal(whole.lowest, other.lowest)
            np.testing.assert_array_equal(whole.highest, other.highest)
            np.testing.assert_array_equal(whole.count, other.count)
            np.testing.assert_allclose(whole.mean, other.mean, rtol=1e-6)

    def test_condition_of_the_years_that_it_was_fitted_on_reaches_both_ends(self) -> None:
        rng = np.random.default_rng(0)
        times = days("1999-01-01", "2004-01-01")
        values = rng.normal(size=(len(times), 2))
        fitted = Climatology.fit(values, times, 12)
        green, cool = (condition(values, times, fitted, inverted=i) for i in (False, True))
        month = period_of_year(times, 12)
        for index in range(12):
            assert green[month == index].min() == pytest.approx(0, abs=1e-4)
            assert green[month == index].max() == pytest.approx(100, abs=1e-4)
        np.testing.assert_allclose(green + cool, 100, rtol=1e-6)

    def test_published_statistics(self) -> None:
        low, high, mean = np.zeros((52, 2)), np.ones((52, 2)), np.full((52, 2), 0.5)
        mean[3, 1] = np.nan
        read = Climatology.from_weeks((low, high, mean))
        np.testing.assert_array_equal(read.mean, mean.astype(np.float32))
        assert read.highest[3].tolist() == [1, 1]

    def test_misfits(self) -> None:
        with pytest.raises(ValueError, match=r"values have shape \(2, 3\), which does not fit 1 times"):
            Climatology.empty((3,)).update(np.zeros((2, 3)), days("2001-01-01", "2001-01-02"))
        with pytest.raises(ValueError, match="cannot be merged"):
            Climatology.empty((3,)).merge(Climatology.empty((3,), 12))
