"""Made-up land for synthetic cubes: mountains, sea, rivers, roads, towns and what grows where.

Shapes: H rows, W columns; a cell is about 1 km wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

CLASSES = 10  # of land cover: 0, 1 urban, 2–5 fields, 6 forest, 7 scrub, 8 open, 9 water


@dataclass(frozen=True)
class Land:
    """What does not change: all (H, W) float32."""

    sea: np.ndarray  # bool
    height: np.ndarray  # m
    slope: np.ndarray  # degrees
    roads: np.ndarray  # km
    water: np.ndarray  # km
    people: np.ndarray  # per km2
    cover: np.ndarray  # (10, H, W) shares


def make_land(height: int, width: int, rng: np.random.Generator, *, sea: bool = True) -> Land:
    """An island, or the inside of one, with mountains, rivers, roads and towns."""
    relief = smooth_field((height, width), rng, 2.6)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    if sea:
        relief = relief - 1.2 * np.maximum(np.hypot(y, x) - 0.75, 0) * 4
    level = np.quantile(relief, 0.12) if sea else relief.min() - 0.1
    wet = relief < level
    metres = 1400.0 * (np.maximum(relief - level, 0) / (relief.max() - level)) ** 1.3 + 2
    metres[wet] = 0
    rise = np.hypot(*np.gradient(metres, 1000.0))
    slope = np.degrees(np.arctan(2.5 * rise))  # a cell's mean hides its steep parts
    low = metres + 80 * rng.random((height, width))
    towns = _lowest(low + 1e4 * wet, 3 + height * width // 1500, rng)
    people = 20 + sum(rng.uniform(400, 4000) * np.exp(-_distance_to(t, height, width) / 2) for t in towns)
    roads = _near_lines(towns, height, width)
    water = _near_lines(_lowest(low, 4, rng) + _highest(metres, 3, rng), height, width)
    fields = np.stack([smooth_field((height, width), rng, 2.0) for _ in range(CLASSES)])
    plain, hill = np.exp(-metres / 250), np.clip(metres / 700, 0, 1.2)
    wish = np.zeros(CLASSES)[:, None, None] + 1.3 * fields
    wish[0] += np.log(people / 400) - 1.0
    wish[1] += np.log(people / 300) - 0.5
    wish[2:6] += 1.6 * plain - 0.4
    wish[6] += 1.4 * hill + 0.3
    wish[7] += 0.9 - 0.5 * np.abs(hill - 0.5)
    wish[8] += 1.5 * hill - 1.4
    wish[9] -= 3.0
    share = np.exp(1.5 * wish)
    share /= share.sum(0)
    share[:, wet] = 0
    share[9, wet] = 1
    people = np.where(wet, 0, people)
    return Land(wet, *(np.asarray(a, np.float32) for a in (metres, slope, roads, water, people, share)))


def smooth_field(shape: tuple[int, int], rng: np.random.Generator, power: float) -> np.ndarray:
    """Random map with mean 0 and deviation 1; the larger the power of its spectrum, the smoother."""
    padded = tuple(size + max(8, size // 2) for size in shape)  # so that opposite borders differ
    fy, fx = np.fft.fftfreq(padded[0])[:, None], np.fft.rfftfreq(padded[1])[None]
    weight = (np.hypot(fy, fx) + 1 / max(padded)) ** -power
    spectrum = np.fft.rfft2(rng.standard_normal(padded)) * weight
    field = np.fft.irfft2(spectrum, padded)[: shape[0], : shape[1]]
    return (field - field.mean()) / (field.std() or 1.0)


def _lowest(values: np.ndarray, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Places among the lowest third, at random."""
    order = np.argsort(values, axis=None)[: values.size // 3 + 1]
    chosen = rng.choice(order, size=min(count, len(order)), replace=False)
    return [(int(i) // values.shape[1], int(i) % values.shape[1]) for i in chosen]


def _highest(values: np.ndarray, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    return _lowest(-values, count, rng)


def _distance_to(place: tuple[int, int], height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.hypot(y - place[0], x - place[1])


def _near_lines(points: list[tuple[int, int]], height: int, width: int) -> np.ndarray:
    """Distance in cells to the nearest of the straight lines from each point to the next."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    nearest = np.full((height, width), np.inf)
    for (y1, x1), (y2, x2) in pairwise(points):
        along = np.clip(
            ((y - y1) * (y2 - y1) + (x - x1) * (x2 - x1)) / max((y2 - y1) ** 2 + (x2 - x1) ** 2, 1), 0, 1
        )
        nearest = np.minimum(nearest, np.hypot(y - y1 - along * (y2 - y1), x - x1 - along * (x2 - x1)))
    return nearest
