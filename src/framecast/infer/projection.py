"""From a simulated climate to drought: a trained model over a whole cube, then how often and where.

    projection = project(forecaster, "future.yaml", reference="observed.yaml")
    projection.forecast().values["drought_frequency, JJA"]      # (decades, H, W) share of time in drought
    projection.trends["VHI"].slope                              # (H, W) per decade, with p-values

The model reads every step of the simulation and writes NDVI (and brightness temperature); VCI, TCI, VHI and
drought classes follow by the climatology of the reference's training years. Only yearly sums are kept, so a
cube of any length takes the memory of its yearly maps.
Shapes: T steps, Y years, G decades, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from framecast.data.cube import Cube, open_cube
from framecast.data.cube_axes import SEASONS, season_of
from framecast.data.map_series import MapSeries
from framecast.data.vegetation_indices import SEVERE_DROUGHT, drought_class
from framecast.extras import import_extra
from framecast.infer.map_forecaster import MapForecaster
from framecast.progress import track
from framecast.structures import Forecast
from framecast.tasks.map_forecast import (
    MAPS_AT_ONCE,
    MapScoring,
    condition_maps,
    valid_times,
)

YEAR = "year"  # all seasons together


@dataclass(frozen=True)
class Trend:
    """Change per decade and how likely such a one is by chance, two-sided (Mann-Kendall, or a t test)."""

    slope: np.ndarray  # (H, W), NaN where fewer than four years are known
    p_value: np.ndarray  # (H, W)


@dataclass
class Projection:
    """Yearly means of what a model says of a simulation, and drought counted."""

    years: np.ndarray  # (Y,) int
    y: np.ndarray
    x: np.ndarray
    crs: str
    means: dict[str, np.ndarray]  # NDVI, VCI, …: (Y, H, W) mean of the year's steps
    drought: dict[str, np.ndarray]  # season or "year": (Y, H, W) steps in drought
    steps: dict[str, np.ndarray]  # season or "year": (Y, H, W) steps with a class
    attrs: dict[str, str] = field(default_factory=dict)
    trend_by: Literal["theil_sen", "least_squares"] = "theil_sen"

    @property
    def decades(self) -> np.ndarray:
        """(G,) first year of every decade that the simulation touches."""
        return np.unique(self.years // 10 * 10)

    def frequency(self, season: str = YEAR) -> np.ndarray:
        """(G, H, W) share 0..1 of the steps of that season that are in drought, per decade."""
        if season not in self.drought:
            raise ValueError(f"no season {season!r}; there are {', '.join(self.drought)}")
        own = self.years // 10 * 10
        dry, seen = (
            np.stack([counts[season][own == decade].sum(0) for decade in self.decades])
            for counts in (self.drought, self.steps)
        )
        return np.divide(dry, seen, out=np.full(dry.shape, np.nan), where=seen > 0)

    @property
    def trends(self) -> dict[str, Trend]:
        """Of every yearly mean, and of the yearly share of time in drought."""
        series = dict(self.means)
        shares = np.divide(
            self.drought[YEAR],
            self.steps[YEAR],
            out=np.full(self.drought[YEAR].shape, np.nan),
            where=self.steps[YEAR] > 0,
        )
        series["drought_frequency"] = shares
        by = theil_sen if self.trend_by == "theil_sen" else least_squares
        return {name: by(values, self.years) for name, values in series.items()}

    def forecast(self) -> Forecast:
        """Drought frequency per season and decade as maps, valid at the start of each decade."""
        values = {
            "drought_frequency" + ("" if season == YEAR else f"_{season}"): self.frequency(season)
            for season in self.drought
        }
        times = np.array([f"{decade}-01-01" for decade in self.decades], dtype="datetime64[D]")
        maps = {name: found.astype(np.float32) for name, found in values.items()}
        return Forecast(maps, times, self.y, self.x, dict.fromkeys(maps, "1"), {}, self.crs, self.attrs)

    def trend_maps(self) -> Forecast:
        """Slope per decade and p-value of every trend, as maps valid at the last year."""
        values = {}
        for name, trend in self.trends.items():
            values |= {f"{name}_trend": trend.slope[None], f"{name}_trend_p": trend.p_value[None]}
        times = np.array([f"{self.years[-1]}-01-01"], dtype="datetime64[D]")
        units = {name: "1" if name.endswith("_p") else "per decade" for name in values}
        maps = {name: found.astype(np.float32) for name, found in values.items()}
        return Forecast(maps, times, self.y, self.x, units, {}, self.crs, self.attrs)


def project(
    forecaster: MapForecaster,
    cube: Cube | str | Path,
    *,
    reference: Cube | str | Path | None = None,
    train: str = "train",
    lead: int | None = None,
    trend_by: Literal["theil_sen", "least_squares"] = "theil_sen",
    keep_mb: int = 512,
) -> Projection:
    """Apply a model to every step of a simulation.

    reference: cube with observations on the same grid, whose split `train` gives the climatology; by default
    the simulation itself has it. lead: which of the model's leads is projected, the first by default.
    Raises ValueError where the model was not trained with `vegetation`, or the simulation lacks what it
    reads: a model that reads the past of its targets cannot be applied where they are unknown.
    """
    cube = cube if isinstance(cube, Cube) else open_cube(cube)
    scoring, window = forecaster.scoring, forecaster.window
    if scoring.vegetation is None:
        raise ValueError(
            "the model does not know which target is the NDVI; train it with data.vegetation=NAME"
        )
    lead = window.leads[0] if lead is None else lead
    if lead not in window.leads:
        raise ValueError(f"the model has no lead {lead}; it has {', '.join(map(str, window.leads))}")
    series = forecaster.series(cube, reference=reference, train=train, keep_mb=keep_mb)
    if not series.scaling.climatology:
        raise ValueError(f"{cube.path} has no split {train!r} for a climatology; pass reference=CUBE")
    everything = np.arange(len(cube.times))
    issues = everything[cube.without_gap(everything, window.before, 0)]
    if not len(issues):
        raise ValueError(f"{cube.path} has {len(everything)} steps; the model reads {window.before + 1}")
    position = window.leads.index(lead)
    sums: dict[int, YearSums] = {}
    for when, maps in projected_maps(forecaster, series, scoring, issues, position):
        sums.setdefault(year_of(when), YearSums()).add(season_of(when), maps, health_of(scoring))
    years = sorted(sums)
    names = list(next(iter(sums.values())).total)
    return Projection(
        years=np.array(years),
        y=cube.y,
        x=cube.x,
        crs=cube.crs or "EPSG:4326",
        means={name: np.stack([sums[year].mean(name) for year in years]) for name in names},
        drought={s: np.stack([sums[year].drought[s] for year in years]) for s in (YEAR, *SEASONS)},
        steps={s: np.stack([sums[year].steps[s] for year in years]) for s in (YEAR, *SEASONS)},
        attrs={"source": str(cube.path), "lead": str(lead)},
        trend_by=trend_by,
    )


def projected_maps(
    forecaster: MapForecaster, series: MapSeries, scoring: MapScoring, issues: np.ndarray, position: int
) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
    """(date, {NDVI, VCI, …: (H, W)}) of every step; ensembles are averaged before the indices."""
    window = series.window
    leads = np.array(window.leads)
    assert scoring.vegetation is not None
    place = window.targets.index(scoring.vegetation) * len(leads) + position
    starts = range(0, len(issues), MAPS_AT_ONCE)
    for start in track(starts, "projecting"):
        part = issues[start : start + MAPS_AT_ONCE]
        for issue, predicted in zip(part, forecaster.members(series, part).mean(0), strict=True):
            predicted[:, ~series.land] = np.nan
            when = valid_times(series, int(issue), leads)[position]
            yield (
                when,
                {scoring.vegetation: predicted[place]}
                | condition_maps(series, scoring, predicted, position, when),
            )


def health_of(scoring: MapScoring) -> str:
    """The index that drought is told by: VHI, or VCI where the model writes no temperature."""
    return "VHI" if scoring.temperature else "VCI"


def year_of(when: Any) -> int:
    return int(str(when)[:4])


class YearSums:
    """Sums over the steps of one year, and drought counted by season."""

    def __init__(self) -> None:
        self.total: dict[str, np.ndarray] = {}
        self.count: dict[str, np.ndarray] = {}
        self.drought: dict[str, np.ndarray] = {}
        self.steps: dict[str, np.ndarray] = {}

    def add(self, season: str, maps: dict[str, np.ndarray], health: str) -> None:
        for name, values in maps.items():
            known = np.isfinite(values)
            zero = np.zeros(values.shape)
            self.total[name] = self.total.get(name, zero) + np.where(known, values, 0.0)
            self.count[name] = self.count.get(name, zero) + known
        kind = drought_class(maps[health])
        zero = np.zeros(kind.shape, dtype=np.int64)
        for group in (YEAR, *SEASONS):
            counts = group in (YEAR, season)
            self.drought[group] = self.drought.get(group, zero) + counts * (kind <= SEVERE_DROUGHT)
            self.steps[group] = self.steps.get(group, zero) + counts * np.isfinite(kind)

    def mean(self, name: str) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.total[name] / np.where(self.count[name] > 0, self.count[name], np.nan)


# Trends ---------------------------------------------------------------------------------------------

FEWEST_YEARS = 4


def theil_sen(values: np.ndarray, years: np.ndarray) -> Trend:
    """Median slope of all pairs of years, per decade, and Mann-Kendall's p-value with ties.

    values: (Y, H, W), NaN where a year is missing.
    """
    values = np.asarray(values, dtype=np.float64)
    first, last = np.triu_indices(len(years), k=1)
    height = values.shape[1]
    slope, p_value = (np.full(values.shape[1:], np.nan) for _ in range(2))
    apart = (years[last] - years[first]).astype(np.float64)[:, None]
    for row in range(height):  # all pairs of a whole map would not fit
        pairs = values[last, row] - values[first, row]
        enough = np.isfinite(values[:, row]).sum(0) >= FEWEST_YEARS
        if not enough.any():
            continue
        slope[row, enough] = 10 * np.nanmedian((pairs / apart)[:, enough], axis=0)
        statistic = np.nansum(np.sign(pairs[:, enough]), axis=0)
        p_value[row, enough] = [
            mann_kendall_p(s, values[np.isfinite(values[:, row, column]), row, column])
            for s, column in zip(statistic, np.flatnonzero(enough), strict=True)
        ]
    return Trend(slope, p_value)


def mann_kendall_p(statistic: float, values: np.ndarray) -> float:
    """Two-sided, by the normal approximation with a correction for continuity and for ties."""
    n = len(values)
    _, ties = np.unique(values, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    if variance <= 0:
        return 1.0
    z = (abs(statistic) - 1) / math.sqrt(variance) if statistic else 0.0
    return math.erfc(max(z, 0.0) / math.sqrt(2))


def least_squares(values: np.ndarray, years: np.ndarray) -> Trend:
    """Slope of the straight line per decade, and the p-value of its t statistic."""
    student = import_extra("scipy.stats").t

    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    count = known.sum(0)
    enough = count >= FEWEST_YEARS
    count = np.where(enough, count, 2)
    time = np.where(known, years[:, None, None] / 10, 0.0)
    x = np.where(known, time - time.sum(0) / count, 0.0)
    filled = np.where(known, values, 0.0)
    y = np.where(known, filled - filled.sum(0) / count, 0.0)
    spread = np.square(x).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (x * y).sum(0) / spread
        rest = np.square(y - slope * x).sum(0) / (count - 2)
        statistic = np.abs(slope) / np.sqrt(rest / spread)
    p_value = 2 * student.sf(np.where(np.isfinite(statistic), statistic, 0.0), np.maximum(count - 2, 1))
    perfect = enough & (rest <= 1e-24 * np.maximum(np.square(y).sum(0), 1e-300)) & (slope != 0)
    p_value = np.where(perfect, 0.0, p_value)
    return Trend(np.where(enough, slope, np.nan), np.where(enough, p_value, np.nan))
