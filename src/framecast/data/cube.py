"""A cube: gridded variables over time, with what a forecast must know about each of them.

    cube = open_cube("greece/cube.yaml")
    maps = cube.dynamic(slice(100, 110), slice(0, 64), slice(0, 64))    # (V, 10, 64, 64), scaled, no NaN
    truth = cube.target("burned_areas", slice(110, 111))                # (1, H, W), NaN where unknown

Whatever the order on disk, north comes first and west comes first. Only the boxes that are asked are read.
Shapes: V dynamic and S static channels, T time steps, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from framecast.data.cube_axes import box, dates_of, find_crs, flipped, read_axes, runs
from framecast.data.cube_settings import CubeSettings, CubeVariable, Statistics
from framecast.data.cube_store import Store
from framecast.data.cube_variables import StoredMap, bind_land, bind_variables
from framecast.registry import did_you_mean

Times = slice | Sequence[int] | np.ndarray
ALL = slice(None)


@dataclass(frozen=True)
class Channel:
    """One map that a model reads: a variable, or one class of a categorical one."""

    name: str
    variable: str
    code: int | None = None


class Cube:
    """Variables of a store, in their units and order, by time and place.

    Raises CubeError where the store does not fit the settings: a variable that is not there, a unit that
    cannot be converted, times that are not in order, dimensions without coordinates.
    """

    def __init__(self, store: Store, settings: CubeSettings, path: str | Path | None = None) -> None:
        self.store, self.settings = store, settings
        self.path = Path(path) if path is not None else store.path
        self.axes = read_axes(store, settings)
        self.times, self.y, self.x = self.axes.times, self.axes.y, self.axes.x
        self.maps: dict[str, StoredMap] = bind_variables(store, settings, self.axes)
        self._land = bind_land(store, settings, self.axes)
        self.crs = find_crs(store, settings, self.axes)
        self.statistics: dict[str, Statistics] | None = dict(settings.statistics) or None
        self.dynamic_names = tuple(settings.with_role("dynamic"))
        self.channels = tuple(_channels(settings.with_role("static", "categorical")))
        self.static_names = tuple(channel.name for channel in self.channels)
        self.target_names = tuple(settings.with_role("target"))
        self.units = {key: found.unit for key, found in self.maps.items()}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Time steps, rows, columns."""
        return len(self.times), len(self.y), len(self.x)

    def with_statistics(self, statistics: Mapping[str, Statistics]) -> Self:
        """The same cube, scaled by these statistics."""
        changed = self.settings.model_copy(update={"statistics": dict(statistics)})
        return type(self)(self.store, changed, self.path)

    # Time and place ---------------------------------------------------------------------------------

    def time_index(self, when: Any) -> int:
        """Place of a date ("2021-07-02", date, datetime64, cftime); ValueError says which dates there are."""
        days = dates_of(self.times)
        wanted = str(when) if not hasattr(when, "isoformat") else when.isoformat()
        if isinstance(self.times, np.ndarray) and self.times.dtype.kind == "M":
            try:
                exact = np.flatnonzero(self.times == np.datetime64(wanted).astype(self.times.dtype))
            except ValueError:
                raise ValueError(f"{wanted!r} is no date; write it as 2021-07-02") from None
        else:
            exact = np.flatnonzero(np.array([day.startswith(wanted[:10]) for day in days]))
        if len(exact):
            return int(exact[0])
        near = min(range(len(days)), key=lambda i: _distance(days[i], wanted))
        raise ValueError(
            f"{self.path} has no {wanted}; it runs from {days[0]} to {days[-1]}, the nearest is {days[near]}"
        )

    @cached_property
    def step(self) -> Any:
        """Usual distance of two time steps."""
        steps = np.diff(self.times)
        return sorted(steps)[len(steps) // 2] if len(steps) else np.timedelta64(1, "D")

    def without_gap(self, indices: Times, before: int = 0, after: int = 0) -> np.ndarray:
        """Which of these times have `before` steps before and `after` steps after them without a gap."""
        even = np.concatenate([[0], np.cumsum(_is_gap(np.diff(self.times), self.step))])
        chosen = np.arange(len(self.times))[indices]
        first, last = chosen - before, chosen + after
        inside = (first >= 0) & (last < len(self.times))
        count = len(self.times) - 1
        return inside & (even[np.clip(last, 0, count)] == even[np.clip(first, 0, count)])

    def split(self, name: str) -> tuple[np.ndarray, slice, slice]:
        """Times whose maps are asked in a split, its rows and its columns; ValueError where it is empty."""
        splits = self.settings.splits
        if name not in splits:
            known = f"it has {', '.join(splits)}" if splits else "it has none; write `splits:` in its YAML"
            raise ValueError(f"{self.path} has no split {name!r}{did_you_mean(name, splits)}; {known}")
        wanted = splits[name]
        days = dates_of(self.times)
        keep = np.ones(len(days), dtype=bool)
        if wanted.years is not None:
            keep &= np.isin([int(day[:4]) for day in days], wanted.years)
        if wanted.first is not None:
            keep &= np.array([day[:10] >= wanted.first.isoformat() for day in days])
        if wanted.last is not None:
            keep &= np.array([day[:10] <= wanted.last.isoformat() for day in days])
        if not keep.any():
            raise ValueError(
                f"{self.path}: split {name!r} holds no time; the cube runs from {days[0]} to {days[-1]}"
            )
        rows, columns = box(wanted.region, self.y, self.x, f"{self.path}: split {name!r}")
        return np.flatnonzero(keep), rows, columns

    @cached_property
    def land(self) -> np.ndarray:
        """(H, W) bool; everywhere where the settings name no land."""
        height, width = self.shape[1:]
        if self._land is None:
            return np.ones((height, width), dtype=bool)
        values = self._land.read(self.store, 0, ALL, ALL)
        known = np.isfinite(values)
        share = not known.any() or (np.nanmin(values[known]) >= 0 and np.nanmax(values[known]) <= 1)
        return known if not share and not known.all() else known & (values > 0)

    # Values -----------------------------------------------------------------------------------------

    def dynamic(
        self, times: Times, rows: slice = ALL, columns: slice = ALL, *, scaled: bool = True
    ) -> np.ndarray:
        """(V, T, H, W) float32, oldest first; scaled: as models read it, 0 where unknown, else NaN there."""
        maps = [self.values(key, times, rows, columns, scaled=scaled) for key in self.dynamic_names]
        if not maps:
            raise ValueError(f"{self.path} has no dynamic variables; give one `role: dynamic`")
        return np.stack(maps)

    def static(
        self, rows: slice = ALL, columns: slice = ALL, *, year: int | None = None, scaled: bool = True
    ) -> np.ndarray:
        """(S, H, W) float32; year: of variables that change from year to year, by default the cube's last."""
        year = int(dates_of(self.times[-1:])[0][:4]) if year is None else year
        read: dict[str, np.ndarray] = {}
        maps = []
        for channel in self.channels:
            if channel.variable not in read:
                stored = self.maps[channel.variable].of_year(year)
                read[channel.variable] = stored.read(self.store, 0, rows, columns)
            values = read[channel.variable]
            if channel.code is not None:
                known = np.isfinite(values)
                maps.append(np.where(known | scaled, values == channel.code, np.nan).astype(np.float32))
            else:
                maps.append(self._scaled(channel.variable, values) if scaled else values)
        shape = (
            len(self.y[flipped(rows, len(self.y), False)]),
            len(self.x[flipped(columns, len(self.x), False)]),
        )
        return np.stack(maps) if maps else np.zeros((0, *shape), dtype=np.float32)

    def target(self, name: str, times: Times, rows: slice = ALL, columns: slice = ALL) -> np.ndarray:
        """(T, H, W) float32 in its unit, NaN where unknown."""
        if name not in self.target_names:
            known = f"it has {', '.join(self.target_names)}" if self.target_names else "it has none"
            raise ValueError(
                f"{self.path} has no target {name!r}{did_you_mean(name, self.target_names)}; {known}"
            )
        return self.values(name, times, rows, columns, scaled=False)

    def values(
        self, key: str, times: Times, rows: slice = ALL, columns: slice = ALL, *, scaled: bool = False
    ) -> np.ndarray:
        """(T, H, W) float32 of one variable that changes with time."""
        pieces = [
            self.maps[key].read(self.store, part, rows, columns) for part in runs(times, len(self.times))
        ]
        values = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return self._scaled(key, values) if scaled else values

    def scaling(self, key: str) -> tuple[float, float]:
        """(offset, factor) of a variable: scaled = (value - offset) / factor.

        From the settings, else from the statistics; ValueError where there are neither.
        """
        variable = self.settings.variables[key]
        if variable.scale == "none" or variable.role == "categorical":
            return 0.0, 1.0
        known = (self.statistics or {}).get(key)
        given = self._given(variable)
        if given is None and known is None:
            raise ValueError(
                f"{self.path}: {key} is to be scaled by {variable.scale}, but has no statistics; run "
                "`framecast prepare` on the cube, or write least and largest (mean and std) into its YAML"
            )
        if given is not None:
            return given
        assert known is not None
        if variable.scale == "range":
            return known.least, (known.largest - known.least) or 1.0
        return known.mean, known.std or 1.0

    @staticmethod
    def _given(variable: CubeVariable) -> tuple[float, float] | None:
        if variable.scale == "range" and variable.least is not None and variable.largest is not None:
            return variable.least, variable.largest - variable.least
        if variable.scale == "standard" and variable.mean is not None and variable.std is not None:
            return variable.mean, variable.std
        return None

    def _scaled(self, key: str, values: np.ndarray) -> np.ndarray:
        return scaled_map(values, *self.scaling(key))

    def __repr__(self) -> str:
        steps, height, width = self.shape
        days = dates_of(self.times[[0, -1]])
        return (
            f"Cube({self.path}: {steps} steps {days[0]} … {days[1]}, {height} x {width} cells, "
            f"{len(self.dynamic_names)} dynamic, {len(self.static_names)} static, "
            f"targets {', '.join(self.target_names) or 'none'})"
        )


def scaled_map(values: np.ndarray, offset: float, factor: float) -> np.ndarray:
    """(values - offset) / factor as float32, 0 where unknown; in double precision, as released weights
    expect it."""
    scaled = (values.astype(np.float64) - offset) / factor
    return np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)


def _channels(variables: Mapping[str, CubeVariable]) -> list[Channel]:
    """Static channels in the order of the YAML; categorical variables are spread out in place."""
    found = []
    for key, variable in variables.items():
        codes = range(variable.classes) if variable.classes is not None else [None]
        found += [Channel(key if code is None else f"{key}_{code}", key, code) for code in codes]
    return found


def _is_gap(steps: np.ndarray, usual: Any) -> np.ndarray:
    """Longer than one and a half of the usual distance (months and half-months are not all alike)."""
    return np.array([bool(2 * step > 3 * usual) for step in steps], dtype=bool)


def _distance(day: str, wanted: str) -> int:
    """Days between two dates, roughly; any calendar."""
    try:
        numbers = [[int(part) for part in text[:10].split("-")] for text in (day, wanted)]
        (y1, m1, d1), (y2, m2, d2) = numbers
    except ValueError:
        return 0
    return abs((y1 - y2) * 372 + (m1 - m2) * 31 + d1 - d2)


def open_cube(path: str | Path, settings: CubeSettings | None = None) -> Cube:
    """Open a cube by its YAML, its store, the folder that `framecast prepare` wrote, or a published layout.

    settings: used instead of a YAML; path is then the store.
    """
    from framecast.data.cube_layouts import find_cube

    store, found, named = find_cube(Path(path), settings)
    return Cube(store, found, named)
