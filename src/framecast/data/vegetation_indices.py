"""Vegetation condition, temperature condition and vegetation health (Kogan, 1995), and drought by them.

    VCI = 100 (NDVI - NDVI_min) / (NDVI_max - NDVI_min)     100 = as green as it ever was at this time of year
    TCI = 100 (BT_max - BT) / (BT_max - BT_min)             100 = as cool as it ever was
    VHI = (VCI + TCI) / 2                                   below 40 = drought, in classes

Minimum and maximum are those of the cell at the same time of year over many years (`Climatology`). A missing
value makes a missing index; nothing is filled in. The formulas keep the type that they are given, NumPy or
xarray; climatologies and masks are NumPy.
Shapes: T times, P periods of the year, H rows, W columns; other trailing shapes do as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

DROUGHT_CLASSES = ("exceptional", "extreme", "severe", "moderate", "dry", "normal")
DROUGHT_LIMITS = (6.0, 16.0, 26.0, 36.0, 40.0)  # a VHI of exactly a limit belongs to the milder class
COLD = 6  # class of a frozen or snow-covered cell, which has no drought
SEVERE_DROUGHT = 2  # the release calls this class and those below it a drought


def vci(ndvi: Any, lowest: Any, highest: Any) -> Any:
    """Vegetation condition in 0..100; NaN where a value is missing or the NDVI has never changed."""
    return _share(ndvi - lowest, highest - lowest)


def tci(temperature: Any, lowest: Any, highest: Any) -> Any:
    """Temperature condition in 0..100, 0 = as hot as it ever was; NaN as for `vci`."""
    return _share(highest - temperature, highest - lowest)


def vhi(vegetation: Any, temperature: Any, share: float = 0.5) -> Any:
    """Vegetation health in 0..100 from VCI and TCI; share: that of the VCI."""
    if not 0 <= share <= 1:
        raise ValueError(f"the share of the VCI is {share}; it is between 0 and 1")
    return share * vegetation + (1 - share) * temperature


def _share(part: Any, whole: Any) -> Any:
    """100 part / whole, kept within 0..100."""
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = np.divide(100.0 * part, whole)
    return _where(np.minimum(np.maximum(percent, 0.0), 100.0), whole > 0)


def _where(values: Any, condition: Any) -> Any:
    """Values, NaN where the condition does not hold; of the type that they are given."""
    return values.where(condition) if hasattr(values, "where") else np.where(condition, values, np.nan)


def drought_class(health: Any, *, masked: Any = None, cold: Any = None) -> np.ndarray:
    """Class of every cell: 0 exceptional … 4 dry, 5 normal, 6 cold; float with NaN where there is none.

    health: VHI. masked: true at sea and where nothing grows, NaN comes there. cold: true where the surface is
    frozen or under snow; it counts before everything else, as in the release.
    """
    health = np.asarray(health)
    kind = np.digitize(health, DROUGHT_LIMITS).astype(np.float32)
    missing = np.isnan(health) if masked is None else np.isnan(health) | (np.asarray(masked) > 0)
    kind[missing] = np.nan
    if cold is not None:
        kind[np.asarray(cold) > 0] = COLD
    return kind


# Time of year ---------------------------------------------------------------------------------------

PERIODS = (12, 24, 36, 52, 365)  # months, half months, thirds of months, weeks, days


def period_of_year(times: Any, periods: int = 52) -> np.ndarray:
    """Index 0..periods-1 of the part of the year that each time is in.

    times: datetime64, or objects of another calendar that have year, month and day (cftime). Weeks are days
    7 w + 1 … 7 w + 7 of the year, the last one with the day or two that are left (the release has no
    week for those); half months end with the 15th, thirds with the 10th and the 20th. Of 365 days, 29
    February shares the place of the 28th, so that dates after it keep theirs.
    """
    if periods not in PERIODS:
        raise ValueError(f"a year of {periods} periods is not known; it has {', '.join(map(str, PERIODS))}")
    month, day, day_of_year, leap = _calendar(times)
    if periods == 12:
        return month - 1
    if periods == 24:
        return 2 * (month - 1) + (day > 15)
    if periods == 36:
        return 3 * (month - 1) + np.minimum((day - 1) // 10, 2)
    if periods == 52:
        return np.minimum((day_of_year - 1) // 7, 51)
    return day_of_year - 1 - (leap & (day_of_year >= 60))


def _calendar(times: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(month, day, day of the year, whether the year has a 29 February) of each time."""
    times = np.atleast_1d(np.asarray(times))
    if times.dtype.kind == "M":
        if np.isnat(times).any():
            raise ValueError(f"time {int(np.isnat(times).argmax())} is missing (NaT); leave such steps out")
        days, months, years = (times.astype(f"datetime64[{unit}]") for unit in "DMY")
        month = (months - years).astype(int) + 1
        day = (days - months).astype(int) + 1
        leap = ((years + 1).astype("datetime64[D]") - years.astype("datetime64[D]")).astype(int) == 366
        return month, day, (days - years).astype(int) + 1, leap
    if times.dtype.kind != "O" or not all(hasattr(t, "timetuple") for t in times.flat):
        raise ValueError(f"times are {times.dtype}; pass datetime64 or dates of a calendar (cftime)")
    # of the 360-day calendar, which has a 30 February, only weeks and months are exact
    fields = [(t.month, t.day, t.timetuple().tm_yday, _has_leap_day(t)) for t in times.flat]
    month, day, day_of_year, leap = (np.array(column) for column in zip(*fields, strict=True))
    return month, day, day_of_year, leap


def _has_leap_day(time: Any) -> bool:
    first = time.replace(month=3, day=1) if hasattr(time, "replace") else time
    return first.timetuple().tm_yday == 61


# Climatology ----------------------------------------------------------------------------------------


@dataclass
class Climatology:
    """Least, greatest and mean value of every cell at every time of year, with how many were seen.

    Fitted in one pass over any number of chunks: `update` them, or `merge` what others have fitted.
    """

    lowest: np.ndarray  # (P, H, W), NaN where nothing was seen
    highest: np.ndarray
    total: np.ndarray  # float64 sum of the values
    count: np.ndarray  # int64

    @classmethod
    def empty(cls, shape: tuple[int, ...], periods: int = 52) -> Climatology:
        """For maps of that shape, for example (H, W)."""
        missing = np.full((periods, *shape), np.nan, dtype=np.float32)
        zeros = np.zeros((periods, *shape))
        return cls(missing, missing.copy(), zeros, zeros.astype(np.int64))

    @classmethod
    def fit(cls, values: Any, times: Any, periods: int = 52) -> Climatology:
        """From maps (T, H, W) at these times; take the years of training only."""
        values = np.asarray(values)
        return cls.empty(values.shape[1:], periods).update(values, times)

    @classmethod
    def from_weeks(cls, statistics: Iterable[Any]) -> Climatology:
        """From published (P, H, W) minima, maxima and means, in this order."""
        lowest, highest, mean = (np.asarray(x, dtype=np.float32) for x in statistics)
        known = np.isfinite(mean)
        return cls(lowest, highest, np.where(known, mean, 0.0).astype(np.float64), known.astype(np.int64))

    @property
    def periods(self) -> int:
        return len(self.count)

    @property
    def mean(self) -> np.ndarray:
        """(P, H, W), NaN where nothing was seen."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.total / self.count).astype(np.float32)

    def update(self, values: Any, times: Any) -> Climatology:
        """Take in more maps (T, H, W), NaN where a value is missing; returns self."""
        values, place = np.asarray(values), period_of_year(times, self.periods)
        if values.shape != (len(place), *self.count.shape[1:]):
            raise ValueError(
                f"values have shape {values.shape}, which does not fit {len(place)} times of maps "
                f"{self.count.shape[1:]}"
            )
        for period in np.unique(place):
            new = values[place == period]
            known = np.isfinite(new)
            new = np.where(known, new, np.nan)
            self.lowest[period] = np.fmin(self.lowest[period], np.fmin.reduce(new))
            self.highest[period] = np.fmax(self.highest[period], np.fmax.reduce(new))
            self.total[period] += np.where(known, new, 0.0).sum(0, dtype=np.float64)
            self.count[period] += known.sum(0)
        return self

    def merge(self, other: Climatology) -> Climatology:
        """Take in what was fitted on other years, for example by another process; returns self."""
        if self.count.shape != other.count.shape:
            raise ValueError(f"climatologies of {self.count.shape} and {other.count.shape} cannot be merged")
        np.fmin(self.lowest, other.lowest, out=self.lowest)
        np.fmax(self.highest, other.highest, out=self.highest)
        self.total += other.total
        self.count += other.count
        return self

    def at(self, times: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(lowest, highest, mean), each (T, H, W), for the time of year of each time."""
        place = period_of_year(times, self.periods)
        return self.lowest[place], self.highest[place], self.mean[place]

    def with_at_least(self, count: int) -> Climatology:
        """The same without cells and periods that were seen less often than that; an index needs a range."""
        enough = self.count >= count
        lowest, highest = (np.where(enough, x, np.nan) for x in (self.lowest, self.highest))
        return Climatology(
            lowest, highest, np.where(enough, self.total, 0.0), np.where(enough, self.count, 0)
        )


def condition(values: Any, times: Any, climatology: Climatology, *, inverted: bool = False) -> np.ndarray:
    """VCI of NDVI maps (T, H, W), or with `inverted` TCI of brightness temperature, by their climatology."""
    lowest, highest, _ = climatology.at(times)
    return (tci if inverted else vci)(np.asarray(values), lowest, highest)
