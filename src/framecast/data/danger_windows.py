"""Training windows out of a cube: cells that burnt, and some of those that did not.

A sample is a cell on the day whose danger is asked, with the `num_days` days that end `lead` days before and
the cells round it. Samples of a split have their day and cell in the split; their windows may read beyond
its region, and the days before its first one. Of the cells on land that did not burn, so many per burnt one
are drawn, with a seed, alike over all days and cells.
Shapes: V dynamic and S static channels, T days with the latest first, H and W cells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from framecast.data.cube import Cube, scaled_map
from framecast.data.cube_axes import dates_of, season_of, within
from framecast.data.danger_patches import day_of_year

DAYS_AT_ONCE = 16  # of the target that are looked through together


@dataclass(frozen=True)
class DangerInput:
    """What a model of danger reads of a cube: names, scaling, days and cells."""

    dynamic: tuple[str, ...]
    static: tuple[str, ...]
    scaling: dict[str, tuple[float, float]]  # channel -> offset, factor: (value - offset) / factor is read
    num_days: int = 10
    lead: int = 1
    window_cells: int = 25

    @classmethod
    def of_cube(cls, cube: Cube) -> DangerInput:
        """As the cube's settings say; ValueError where a variable has no scaling."""
        scaling = {name: cube.scaling(name) for name in cube.dynamic_names}
        scaling |= {
            channel.name: cube.scaling(channel.variable) if channel.code is None else (0.0, 1.0)
            for channel in cube.channels
        }
        s = cube.settings
        return cls(cube.dynamic_names, cube.static_names, scaling, s.num_days, s.lead, s.window_cells)

    @classmethod
    def from_notes(cls, notes: dict[str, Any]) -> DangerInput:
        """Rebuild from `to_notes`, as a model's card holds it."""
        scaling = {name: (float(pair[0]), float(pair[1])) for name, pair in notes["scaling"].items()}
        days, lead, cells = (int(notes[key]) for key in ("num_days", "lead", "window_cells"))
        return cls(tuple(notes["dynamic"]), tuple(notes["static"]), scaling, days, lead, cells)

    def to_notes(self) -> dict[str, Any]:
        return {
            "dynamic": list(self.dynamic),
            "static": list(self.static),
            "scaling": {name: list(pair) for name, pair in self.scaling.items()},
            "num_days": self.num_days,
            "lead": self.lead,
            "window_cells": self.window_cells,
        }

    def check(self, cube: Cube) -> None:
        """ValueError where the cube has other variables, or the same in another order."""
        for kind, mine, its in (
            ("dynamic", self.dynamic, cube.dynamic_names),
            ("static", self.static, cube.static_names),
        ):
            if mine != its:
                missing = [name for name in mine if name not in its] or [n for n in its if n not in mine]
                what = f"{missing[0]!r} is on one side only" if missing else "their order differs"
                raise ValueError(
                    f"{cube.path} has {len(its)} {kind} channels and the model reads {len(mine)}: {what}; "
                    f"the model reads {', '.join(mine)}"
                )

    def read_dynamic(self, cube: Cube, last: int, rows: slice, columns: slice) -> np.ndarray:
        """(V, T, H, W) of the days that end with the cube's `last`, latest first, scaled, 0 where unknown."""
        maps = cube.dynamic(slice(last - self.num_days + 1, last + 1), rows, columns, scaled=False)
        return self.scaled(maps[:, ::-1], self.dynamic)

    def read_static(self, cube: Cube, year: int, rows: slice, columns: slice) -> np.ndarray:
        """(S, H, W) of a year, scaled, 0 where unknown."""
        return self.scaled(cube.static(rows, columns, year=year, scaled=False), self.static)

    def scaled(self, maps: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Channels (C, ...) as a model reads them."""
        return np.stack([scaled_map(one, *self.scaling[n]) for one, n in zip(maps, names, strict=True)])


class DangerWindows:
    """Windows of one split of a cube.

    negatives: cells that did not burn per one that did; None = all of them, which only small cubes bear.
    keep_mb: the maps are held in memory where they take no more than this, else read window by window.
    """

    def __init__(
        self,
        cube: Cube,
        split: str = "train",
        *,
        reads: DangerInput | None = None,
        target: str | None = None,
        negatives: int | None = 2,
        seed: int = 0,
        keep_mb: int = 512,
    ) -> None:
        self.cube, self.split, self.keep_mb = cube, split, keep_mb
        self.reads = reads or DangerInput.of_cube(cube)
        self.reads.check(cube)
        if not cube.target_names:
            raise ValueError(f"{cube.path} has no target; give one variable `role: target`, 1 where it burnt")
        self.target = target or cube.target_names[0]
        self.days = self._usable_days()
        self.cells = self._judged_cells()
        burnt, counts = self._look_through()
        if not len(burnt):
            raise ValueError(f"{cube.path}: nothing burnt in split {split!r}; nothing can be learned from it")
        others = self._draw(counts, negatives, len(burnt), np.random.default_rng(seed))
        self.places = np.concatenate([burnt, others])  # (N, 3): day, row, column in the cube
        self.burnt = np.arange(len(self.places)) < len(burnt)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """dynamic (V, T, H, W) and static (S, H, W) float32, day 1..366, label 0 or 1, name of the sample."""
        day, row, column = (int(n) for n in self.places[index])
        half = self.reads.window_cells // 2
        side = self.reads.window_cells
        rows, columns = (slice(at - half, at - half + side) for at in (row, column))
        date = self.date(index)
        last, year = day - self.reads.lead, int(date[:4])
        if self._kept is None:
            dynamic = self.reads.read_dynamic(self.cube, last, rows, columns)
            static = self.reads.read_static(self.cube, year, rows, columns)
        else:
            first, maps, places = self._kept
            start = last - self.reads.num_days + 1 - first
            dynamic = maps[:, start : start + self.reads.num_days, rows, columns][:, ::-1]
            static = places[year][:, rows, columns]
        return {
            "dynamic": np.ascontiguousarray(dynamic),
            "static": static,
            "day": day_of_year(date.replace("-", "")),
            "label": int(self.burnt[index]),
            "sample": f"{date.replace('-', '')}_{column}_{row}",
        }

    def date(self, index: int) -> str:
        """ "2021-07-02", the day whose danger is asked."""
        return dates_of(self.cube.times[self.places[index, :1]])[0][:10]

    def groups(self, regions: dict[str, tuple[float, float, float, float]]) -> list[list[str]]:
        """Season and named regions of every sample, for scores of their own."""
        masks = {name: within(region, self.cube.y, self.cube.x) for name, region in regions.items()}
        seasons = {day: season_of(self.cube.times[day]) for day in np.unique(self.places[:, 0])}
        return [
            [seasons[day], *(name for name, mask in masks.items() if mask[row, column])]
            for day, row, column in self.places
        ]

    @cached_property
    def _kept(self) -> tuple[int, np.ndarray, dict[int, np.ndarray]] | None:
        """First day and maps of all days that are read, and static maps by year; None where too large."""
        whole = slice(None)
        first = int(self.days[0]) - self.reads.lead - self.reads.num_days + 1
        last = int(self.days[-1]) - self.reads.lead
        years = sorted({int(d[:4]) for d in dates_of(self.cube.times[self.days])})
        cells = len(self.cube.y) * len(self.cube.x)
        numbers = (last - first + 1) * len(self.reads.dynamic) + len(years) * len(self.reads.static)
        if 4 * numbers * cells > self.keep_mb * 2**20:
            return None
        maps = np.empty((len(self.reads.dynamic), last - first + 1, len(self.cube.y), len(self.cube.x)), "f4")
        for start in range(first, last + 1, DAYS_AT_ONCE):
            stop = min(start + DAYS_AT_ONCE, last + 1)
            part = self.cube.dynamic(slice(start, stop), scaled=False)
            maps[:, start - first : stop - first] = self.reads.scaled(part, self.reads.dynamic)
        return first, maps, {year: self.reads.read_static(self.cube, year, whole, whole) for year in years}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_kept"}

    # Which samples there are --------------------------------------------------------------------------

    def _usable_days(self) -> np.ndarray:
        """Days of the split with all the days before them that a model reads."""
        times, self._rows, self._columns = self.cube.split(self.split)
        before = self.reads.lead + self.reads.num_days - 1
        usable = times[self.cube.without_gap(times, before=before)]
        if not len(usable):
            raise ValueError(
                f"{self.cube.path}: no day of split {self.split!r} has the {before} days before it"
            )
        return usable

    def _judged_cells(self) -> np.ndarray:
        """(H, W) bool: on land, in the split's region, with a whole window in the cube."""
        height, width = self.cube.shape[1:]
        side = self.reads.window_cells
        half = side // 2
        if min(height, width) < side:
            raise ValueError(
                f"{self.cube.path} has {height} x {width} cells, which hold no window of {side} cells"
            )
        cells = np.zeros((height, width), dtype=bool)
        cells[self._rows, self._columns] = True
        inner = np.zeros_like(cells)
        inner[half : half + height - side + 1, half : half + width - side + 1] = True
        cells &= inner & self.cube.land
        if not cells.any():
            raise ValueError(
                f"{self.cube.path}: split {self.split!r} has no cell on land with {half} cells round it"
            )
        return cells

    def _targets(self, days: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Each day with what happened in every cell, (H, W), nan where unknown or not judged."""
        for start in range(0, len(days), DAYS_AT_ONCE):
            part = days[start : start + DAYS_AT_ONCE]
            for day, happened in zip(part, self.cube.target(self.target, part), strict=True):
                yield int(day), np.where(self.cells, happened, np.nan)

    def _look_through(self) -> tuple[np.ndarray, np.ndarray]:
        """(P, 3) places that burnt, and how many others each day has."""
        burnt, counts = [], []
        for day, happened in self._targets(self.days):
            found = np.argwhere(happened > 0)
            burnt.append(np.insert(found, 0, day, axis=1))
            counts.append(int((happened <= 0).sum()))
        return np.concatenate(burnt), np.array(counts)

    def _draw(
        self, counts: np.ndarray, per_burnt: int | None, burnt: int, rng: np.random.Generator
    ) -> np.ndarray:
        """(M, 3) places that did not burn, in order of days."""
        total = int(counts.sum())
        wanted = total if per_burnt is None else per_burnt * burnt
        if wanted > total:
            raise ValueError(
                f"{self.cube.path}: split {self.split!r} has {total} cells that did not burn, but "
                f"{per_burnt} for each of {burnt} are asked; lower data.negatives (data.test_negatives)"
            )
        numbers = np.sort(rng.choice(total, wanted, replace=False)) if wanted < total else np.arange(total)
        ends = np.cumsum(counts)
        of_day = np.searchsorted(ends, numbers, side="right")
        drawn = np.unique(of_day)
        places = []
        for i, (day, happened) in zip(drawn, self._targets(self.days[drawn]), strict=True):
            rank = numbers[of_day == i] - (ends[i] - counts[i])
            places.append(np.insert(np.argwhere(happened <= 0)[rank], 0, day, axis=1))
        return np.concatenate(places) if places else np.zeros((0, 3), dtype=np.int64)


def is_patch_folder(root: str | os.PathLike[str]) -> bool:
    """Whether a folder holds FireCube's samples as published."""
    return os.path.isdir(os.path.join(root, "positives"))
