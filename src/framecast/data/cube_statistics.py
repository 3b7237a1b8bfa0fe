"""Statistics of a cube's variables over the training split, in one pass with bounded memory.

Mean and deviation are merged box by box (Chan, Golub, LeVeque 1983), in double precision.
Shapes: T time steps, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from framecast.data.cube import Cube
from framecast.data.cube_boxes import Box, boxes, chunk_of, plan_box
from framecast.data.cube_settings import Statistics
from framecast.data.cube_writing import CHUNK
from framecast.progress import track


class RunningStatistics:
    """Least, largest, mean and deviation of values that come in pieces; NaN counts as unknown."""

    def __init__(self) -> None:
        self.count = self.unknown = 0
        self.mean = self.squares = 0.0
        self.least, self.largest = math.inf, -math.inf

    def update(self, values: np.ndarray) -> None:
        known = values[np.isfinite(values)].astype(np.float64)
        self.unknown += values.size - known.size
        if not known.size:
            return
        mean, count = float(known.mean()), known.size
        squares, distance = float(np.square(known - mean).sum()), mean - self.mean
        total = self.count + count
        self.squares += squares + distance**2 * self.count * count / total
        self.mean += distance * count / total
        self.count = total
        self.least, self.largest = min(self.least, float(known.min())), max(self.largest, float(known.max()))

    def result(self) -> Statistics | None:
        """None where nothing is known; deviation as of the whole population."""
        if not self.count:
            return None
        return Statistics(
            least=self.least,
            largest=self.largest,
            mean=self.mean,
            std=math.sqrt(self.squares / self.count),
            count=self.count,
            unknown=self.unknown,
        )


class Scope:
    """Which times and cells count: land within a split's region at a split's times; all where it is None."""

    def __init__(self, cube: Cube, split: str | None) -> None:
        steps, height, width = cube.shape
        self.times = np.ones(steps, dtype=bool)
        self.cells = cube.land.copy()
        if split is not None:
            chosen, rows, columns = cube.split(split)
            self.times[:] = False
            self.times[chosen] = True
            region = np.zeros((height, width), dtype=bool)
            region[rows, columns] = True
            self.cells &= region
        if not self.cells.any():
            where = "" if split is None else f" in the region of split {split!r}"
            raise ValueError(f"{cube.path}: no cell is land{where}; look at `land` in the YAML")
        self.year = int(str(cube.times[np.flatnonzero(self.times)[-1]])[:4])

    def of(self, values: np.ndarray, box: Box) -> np.ndarray:
        """Values (T, H, W) or (H, W) of a box that count, as one row."""
        cells = self.cells[box[1:]]
        if values.ndim == 2:
            return values[cells]
        return values[self.times[box[0]]][:, cells]


def training_split(cube: Cube) -> str | None:
    """ "train", or None where there are no splits, so that everything counts; ValueError for others alone."""
    if not cube.settings.splits:
        return None
    if "train" not in cube.settings.splits:
        known = ", ".join(cube.settings.splits)
        raise ValueError(
            f"{cube.path} has splits {known}, but none named 'train', of which statistics are made"
        )
    return "train"


def compute_statistics(cube: Cube, *, memory_mb: float = 512, quiet: bool = False) -> dict[str, Statistics]:
    """Statistics of every variable with numbers over land, times and region of `train`.

    Raises ValueError for a variable of which nothing is known there.
    """
    scope, found = Scope(cube, training_split(cube)), {}
    keys = [key for key, variable in cube.settings.variables.items() if variable.classes is None]
    for key in track(keys, "Statistics", quiet=quiet):
        running = RunningStatistics()
        for box, values in read_boxes(cube, key, memory_mb, scope):
            running.update(scope.of(values, box))
        found[key] = known_statistics(cube, key, running)
    return found


def known_statistics(cube: Cube, key: str, running: RunningStatistics) -> Statistics:
    result = running.result()
    if result is None:
        raise ValueError(f"{cube.path}: {key} has no value on land in the training split")
    return result


def read_boxes(
    cube: Cube, key: str, memory_mb: float, scope: Scope | None = None, unit: tuple[int, int, int] = CHUNK
) -> Iterator[tuple[Box, np.ndarray]]:
    """All of a variable in boxes (T, H, W), or (H, W) of a static one; with scope only what counts."""
    stored, size = cube.maps[key], cube.shape
    if not stored.in_time:
        year = int(str(cube.times[-1])[:4]) if scope is None else scope.year
        stored, size = stored.of_year(year), (1, *size[1:])
    plan = plan_box(size, chunk_of(stored), unit, memory_mb)
    for box in boxes(size, plan):
        if scope is not None:
            counts = scope.cells[box[1:]].any() and (not stored.in_time or scope.times[box[0]].any())
            if not counts:
                continue
        yield box, stored.read(cube.store, box[0] if stored.in_time else 0, *box[1:])
