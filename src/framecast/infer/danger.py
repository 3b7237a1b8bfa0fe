"""Wildfire danger of a region on given days: a cube and one or more trained models in, maps out.

    forecaster = DangerForecaster(["runs/danger"], samples=20)
    forecast = forecaster(open_cube("my_region/cube.yaml"), "2021-07-02")

The day that is asked is the one whose danger the map shows; what is read ends `lead` days before it, so that
the day after the cube's last one can be asked too. The spread is that of all members: each checkpoint,
`samples` times with other hidden units of the head left out. The work is done on the CPU, tile by tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from framecast.checkpoints import card_of, load
from framecast.data.cube import Cube
from framecast.data.cube_axes import dates_of
from framecast.data.danger_patches import day_of_year
from framecast.data.danger_windows import DangerInput
from framecast.infer.danger_map import DangerMapper, DayMaps
from framecast.structures import Forecast


@dataclass(frozen=True)
class LazyMaps:
    """Maps of a cube that are read when they are cut, `maps[..., rows, columns]`."""

    cube: Cube
    reads: DangerInput
    last: int | None = None  # the latest day of dynamic maps; None = static ones
    year: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        cells = len(self.cube.y), len(self.cube.x)
        if self.last is None:
            return len(self.reads.static), *cells
        return len(self.reads.dynamic), self.reads.num_days, *cells

    def __getitem__(self, part: tuple[Any, slice, slice]) -> np.ndarray:
        if self.last is None:
            return self.reads.read_static(self.cube, self.year, part[1], part[2])
        return self.reads.read_dynamic(self.cube, self.last, part[1], part[2])


class DangerForecaster:
    """Models of danger, ready for any cube with their variables.

    models: run folders, saved models, hub ids or modules. samples: members by MC dropout of each, 1 = none.
    threads: tiles at a time. memory_mb: what the tiles may take beside models, cube and maps; decides their
    size. Maps are computed on the CPU.
    """

    def __init__(
        self,
        models: Sequence[str | Path | nn.Module] | str | Path | nn.Module,
        *,
        samples: int = 1,
        seed: int = 0,
        threads: int = 1,
        memory_mb: float | None = None,
    ) -> None:
        given = [models] if isinstance(models, str | Path | nn.Module) else list(models)
        if not given:
            raise ValueError("no model was given; pass a run folder or a saved model")
        self.names = [m if isinstance(m, str) else getattr(m, "name", type(m).__name__) for m in given]
        self.models: list[Any] = [m if isinstance(m, nn.Module) else load(m) for m in given]
        for name, model in zip(self.names, self.models, strict=True):
            if not hasattr(model, "config") or not hasattr(model.config, "num_dynamic"):
                raise ValueError(f"{name} is no model of danger; train one with `framecast train danger`")
        self.samples, self.seed = samples, seed
        self.threads, self.memory_mb = threads, memory_mb

    def __call__(self, cube: Cube, date: Any) -> Forecast:
        """The map of one day."""
        return self.days(cube, [date])

    def days(self, cube: Cube, dates: Sequence[Any]) -> Forecast:
        """Maps of several days, in order of time; static maps are read and understood once per year."""
        wanted = sorted({as_day(date) for date in dates})
        shape = (len(wanted), len(cube.y), len(cube.x))
        total, squares = np.zeros(shape), np.zeros(shape)
        count = len(self.models) * self.samples
        for model in self.models:
            for found, deviation, places in self._maps(model, cube, wanted):
                total[places] += found / len(self.models)
                squares[places] += (found**2 + deviation**2) / len(self.models)
        values = total.astype(np.float32)
        spread = np.sqrt(np.maximum(squares - total**2, 0)).astype(np.float32)
        return Forecast(
            values={"danger": values},
            times=np.array(wanted, dtype="datetime64[D]"),
            y=cube.y,
            x=cube.x,
            units={"danger": "1"},
            spread={"danger": spread} if count > 1 else {},
            crs=cube.crs or "",
            attrs={
                "model": ", ".join(str(name) for name in self.names),
                "source": cube.path.name,
                "long_name": "probability of fire in a cell, on the scale of the training windows",
                **({"licence": text} if (text := card_of(self.models[0]).licence) else {}),
            },
        )

    def _maps(self, model: Any, cube: Cube, wanted: list[np.datetime64]) -> Any:
        """Mean and deviation of a model's members (D, H, W) for the days of each year, and their places."""
        reads = reads_of(model, cube)
        mapper = DangerMapper(model, threads=self.threads, memory_mb=self.memory_mb)
        years = [int(str(day)[:4]) for day in wanted]
        for year in sorted(set(years)):
            places = [i for i, own in enumerate(years) if own == year]
            days = [
                DayMaps(LazyMaps(cube, reads, last_day(cube, wanted[i], reads)), day_number(wanted[i]))
                for i in places
            ]
            static = LazyMaps(cube, reads, year=year)
            found = mapper.maps(days, static, land=cube.land, samples=self.samples, seed=self.seed)
            means = np.stack([one.probability for one in found]).astype(np.float64)
            spreads = [np.zeros_like(one.probability) if one.spread is None else one.spread for one in found]
            yield means, np.stack(spreads).astype(np.float64), places


def reads_of(model: Any, cube: Cube) -> DangerInput:
    """What a model reads: as its card says, or as the cube does for weights without one.

    Raises ValueError where the cube's variables, or their number, are not those of the model.
    """
    notes = card_of(model).notes
    reads = DangerInput.from_notes(notes) if "scaling" in notes else DangerInput.of_cube(cube)
    reads.check(cube)
    c = model.config
    mine = c.num_dynamic, c.num_static
    if mine != (len(reads.dynamic), len(reads.static)):
        raise ValueError(
            f"the model reads {mine[0]} dynamic and {mine[1]} static channels; {cube.path} has "
            f"{len(reads.dynamic)} and {len(reads.static)}"
        )
    if reads.num_days != c.num_days or reads.window_cells != c.window_cells:
        values = {**reads.to_notes(), "num_days": c.num_days, "window_cells": c.window_cells}
        reads = DangerInput.from_notes(values)
    return reads


def last_day(cube: Cube, day: np.datetime64, reads: DangerInput) -> int:
    """Place of the latest day that is read for the danger of a day; ValueError where days are missing."""
    latest = str(day - np.timedelta64(reads.lead, "D"))
    days = [when[:10] for when in dates_of(cube.times)]
    if latest not in days:
        raise ValueError(
            f"{cube.path} has no {latest}, the latest day that is read for {day}; it runs from {days[0]} to "
            f"{days[-1]}"
        )
    last = days.index(latest)
    if not cube.without_gap([last], before=reads.num_days - 1)[0]:
        raise ValueError(
            f"{cube.path} has not all of the {reads.num_days} days up to {latest} that are read for {day}; "
            f"it runs from {days[0]} to {days[-1]}"
        )
    return last


def as_day(date: Any) -> np.datetime64:
    """Of "2021-07-02", a date or a datetime64; ValueError says how to write one."""
    text = date.isoformat() if hasattr(date, "isoformat") else str(date)
    try:
        return np.datetime64(text[:10], "D")
    except ValueError:
        raise ValueError(f"{text!r} is no date; write it as 2021-07-02") from None


def day_number(day: np.datetime64) -> int:
    """1..366, 1 March is 61 in every year."""
    return day_of_year(str(day).replace("-", ""))
