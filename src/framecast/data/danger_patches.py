"""FireCube's training samples: windows of 25 x 25 km around places that burnt and places that did not.

Layout on disk, as published with LOAN (Zenodo record 6528394, CC-BY 4.0; Prapas, Kondylatos, Papoutsis):

    root/{positives, negatives_clc, negatives_random}/
        YYYYMMDD_x_y_dynamic.npy   (10, 35, 25, 25), oldest day first
        YYYYMMDD_x_y_static.npy    (7, 25, 25)
        YYYYMMDD_x_y_clc_vec.npy   (10, 25, 25) fractions of land cover

The date is that of the day whose danger is asked; x and y are the cell's places in the cube.
Shapes: V dynamic and S static variables, T days, H and W cells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

DYNAMIC = (
    *("1 km 16 days NDVI", "1 km 16 days EVI", "ET_500m", "LST_Day_1km", "LST_Night_1km", "Fpar_500m"),
    "Lai_500m",
    *(
        f"era5_{how}_{what}"
        for how in ("max", "min", "avg")
        for what in ("u10", "v10", "d2m", "t2m", "sp", "tp")
    ),
    *("smian", "sminx", "fwi"),
    *(f"era5_max_wind_{what}" for what in ("u10", "v10", "speed", "direction")),
    *("era5_max_rh", "era5_min_rh", "era5_avg_rh"),
)
STATIC = (
    *("dem_mean", "aspect_mean", "slope_mean", "roughness_mean", "roads_distance", "waterway_distance"),
    "population_density",
)
LAND_COVER = tuple(f"clc_{i}" for i in range(10))

# What LOAN reads, and the least and largest value of its training samples, to which its weights belong
# (data/mean_std_train.json of the release, MIT (c) 2023 Hakam Shams). In units of the sample files: NDVI
# times 1e8, relative humidity as a fraction, distances in km.
RELEASED_RANGES = {
    "1 km 16 days NDVI": (-20000000.0, 100000000.0),
    "LST_Day_1km": (249.6599884033203, 328.8999938964844),
    "LST_Night_1km": (234.33999633789062, 322.1399841308594),
    "era5_max_d2m": (253.69178771972656, 299.8358459472656),
    "era5_max_t2m": (261.6349792480469, 316.978271484375),
    "era5_max_sp": (77939.734375, 104716.03125),
    "era5_max_tp": (0.0, 0.16601739823818207),
    "sminx": (0.0006200000061653554, 0.9894899725914001),
    "era5_max_wind_speed": (0.26135602593421936, 19.929399490356445),
    "era5_min_rh": (0.00539859663695097, 0.9985148906707764),
    "dem_mean": (-12.768290519714355, 2756.943359375),
    "slope_mean": (0.0, 33.21424865722656),
    "roads_distance": (-0.14300000667572021, 49.00199890136719),
    "waterway_distance": (-0.09300000220537186, 56.7859992980957),
    "population_density": (0.0, 71856.4453125),
}
USED_STATIC = ("dem_mean", "slope_mean", "roads_distance", "waterway_distance", "population_density")
USED_DYNAMIC = tuple(name for name in RELEASED_RANGES if name not in USED_STATIC)

MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # the release counts every year as a leap year
BEFORE = (0, *accumulate(MONTHS))
SAMPLE = re.compile(r"(\d{4})(\d{2})(\d{2})_(\d+)_(\d+)")


@dataclass(frozen=True)
class Ranges:
    """Least and largest value of each variable, by which it is brought to 0..1."""

    names: tuple[str, ...]
    least: np.ndarray  # (V,) float64
    largest: np.ndarray

    def scale(self, values: np.ndarray) -> np.ndarray:
        """(V, ...) in the variables' units -> float64; beyond 0..1 where values are beyond the ranges."""
        shape = (-1, *[1] * (values.ndim - 1))
        least, largest = self.least.reshape(shape), self.largest.reshape(shape)
        return (values.astype(np.float64) - least) / (largest - least)


def released_ranges(names: Sequence[str]) -> Ranges:
    """Ranges that LOAN's released weights were trained with."""
    pairs = np.array([RELEASED_RANGES[name] for name in names], dtype=np.float64)
    return Ranges(tuple(names), pairs[:, 0], pairs[:, 1])


def read_ranges(path: str | Path, names: Sequence[str]) -> Ranges:
    """Ranges of some variables from a statistics file of the release, {group: {"min": {name: value}}}.

    The variables keep the order of the file, as the release has it, whatever the order of `names`.
    """
    try:
        statistics = json.loads(Path(path).read_text(encoding="utf-8"))
        limits = {
            name: (group["min"][name], group["max"][name])
            for group in statistics.values()
            for name in group["min"]
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is no statistics file (group -> min and max -> variable)") from None
    missing = [name for name in names if name not in limits]
    if missing:
        raise ValueError(f"{path} has no range of {missing[0]!r}; it has those of {', '.join(limits)}")
    ordered = tuple(name for name in limits if name in names)
    pairs = np.array([limits[name] for name in ordered], dtype=np.float64)
    return Ranges(ordered, pairs[:, 0], pairs[:, 1])


def day_of_year(date: str) -> int:
    """Day 1..366 of "YYYYMMDD", where February always has 29 days, so that 1 March is 61 in every year."""
    month, day = (int(date[4:6]), int(date[6:])) if re.fullmatch(r"\d{8}", date) else (0, 0)
    if not (1 <= month <= 12 and 1 <= day <= MONTHS[month - 1]):
        raise ValueError(f"{date!r} is no date; write it as YYYYMMDD")
    return BEFORE[month - 1] + day


class Window(NamedTuple):
    """What the models read of one place."""

    dynamic: np.ndarray  # (V, T, H, W) float32, the latest day first
    static: np.ndarray  # (S, H, W) float32, continuous variables, then fractions of land cover


def prepare_window(
    dynamic: np.ndarray,
    static: np.ndarray,
    land_cover: np.ndarray,
    *,
    dynamic_ranges: Ranges,
    static_ranges: Ranges,
    num_days: int = 10,
) -> Window:
    """Raw maps with all of FireCube's variables as the models read them.

    dynamic: (days, 35, H, W), oldest day first; static: (7, H, W); land_cover: (10, H, W). Scaling comes
    before missing values are filled, so that 0 is the least value of each variable.
    """
    if dynamic.shape[0] < num_days or dynamic.shape[1] != len(DYNAMIC) or len(static) != len(STATIC):
        raise ValueError(
            f"maps have shapes {dynamic.shape} and {static.shape}; expected at least {num_days} days of "
            f"{len(DYNAMIC)} dynamic variables, and {len(STATIC)} static ones"
        )
    latest = dynamic[::-1][:num_days, [DYNAMIC.index(name) for name in dynamic_ranges.names]]
    chosen = static[[STATIC.index(name) for name in static_ranges.names]]
    scaled = dynamic_ranges.scale(np.moveaxis(latest, 1, 0))
    places = np.concatenate([static_ranges.scale(chosen), land_cover.astype(np.float64)])
    return Window(*(np.nan_to_num(x, nan=0.0).astype(np.float32) for x in (scaled, places)))


def augment(window: Window, rng: np.random.Generator, noise: float = 0.01, fractions: int = 10) -> Window:
    """Noise on all but land cover, a turn, a flip and a transposition, each with probability 1/2.

    As in the release, but for the flip, which there always is that of columns, and for the noise, which here
    also falls on what was filled.
    """
    dynamic, static = window
    if rng.random() < 0.5:
        dynamic = dynamic + noise * rng.standard_normal(dynamic.shape, dtype=np.float32)
        static = static.copy()
        continuous = static[: len(static) - fractions]
        continuous += noise * rng.standard_normal(continuous.shape, dtype=np.float32)
    maps = [dynamic, static]
    if rng.random() < 0.5:
        turns = int(rng.integers(1, 4))
        maps = [np.rot90(x, turns, axes=(-2, -1)) for x in maps]
    if rng.random() < 0.5:
        axis = int(rng.integers(-2, 0))
        maps = [np.flip(x, axis) for x in maps]
    if rng.random() < 0.5:
        maps = [x.swapaxes(-2, -1) for x in maps]
    return Window(*(np.ascontiguousarray(x) for x in maps))


@dataclass(frozen=True)
class Sample:
    """One window on disk."""

    folder: Path
    name: str  # YYYYMMDD_x_y
    burnt: int  # 1 or 0

    @property
    def year(self) -> int:
        return int(self.name[:4])

    @property
    def day(self) -> int:
        return day_of_year(self.name[:8])


class DangerPatches:
    """FireCube's samples of one subset: years before `val_year`, that year, or those after it.

    negatives: how many per positive, drawn once from the sorted files with `seed`; None = all of them. The
    release trains on 2 and evaluates on all.
    """

    def __init__(
        self,
        root: str | Path,
        subset: Literal["train", "val", "test"] = "train",
        *,
        val_year: int = 2019,
        negatives: int | None = 2,
        seed: int = 0,
        kind: Literal["negatives_clc", "negatives_random"] = "negatives_clc",
        num_days: int = 10,
        dynamic: Ranges | None = None,
        static: Ranges | None = None,
    ) -> None:
        self.root, self.num_days = Path(root), num_days
        self.dynamic = dynamic or released_ranges(USED_DYNAMIC)
        self.static = static or released_ranges(USED_STATIC)
        wanted = {
            "train": range(val_year),
            "val": range(val_year, val_year + 1),
            "test": range(val_year + 1, 10**4),
        }
        if subset not in wanted:
            raise ValueError(f"subset is {subset!r}; choose from {', '.join(wanted)}")
        burnt = [s for s in find_samples(self.root / "positives", 1) if s.year in wanted[subset]]
        other = [s for s in find_samples(self.root / kind, 0) if s.year in wanted[subset]]
        if negatives is not None:
            count = negatives * len(burnt)
            if count > len(other):
                raise ValueError(
                    f"{self.root / kind} has {len(other)} samples of the {subset} years, but {negatives} for "
                    f"each of {len(burnt)} positives are asked; pass negatives=None for all of them"
                )
            other = [other[i] for i in np.random.RandomState(seed).choice(len(other), count, replace=False)]
        self.samples = (*burnt, *other)
        if not self.samples:
            raise ValueError(f"{self.root} has no samples of the {subset} years (val_year={val_year})")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, object]:
        """dynamic (V, T, H, W) and static (S, H, W) float32, day 1..366, label 0 or 1, name of the sample."""
        sample = self.samples[index]
        raw = [_read_array(sample, part) for part in ("dynamic", "static", "clc_vec")]
        window = prepare_window(
            *raw, dynamic_ranges=self.dynamic, static_ranges=self.static, num_days=self.num_days
        )
        return {**window._asdict(), "day": sample.day, "label": sample.burnt, "sample": sample.name}


def find_samples(folder: Path, burnt: int) -> list[Sample]:
    """Samples of a folder in the order of their file names, as the release sorts them."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; FireCube has positives/ and negatives_clc/")
    names = [path.name.removesuffix("_dynamic.npy") for path in sorted(folder.glob("*_dynamic.npy"))]
    foreign = [name for name in names if not SAMPLE.fullmatch(name)]
    if foreign:
        raise ValueError(f"{folder / foreign[0]}_dynamic.npy is not named YYYYMMDD_x_y_dynamic.npy")
    return [Sample(folder, name, burnt) for name in names]


def _read_array(sample: Sample, part: str) -> np.ndarray:
    path = sample.folder / f"{sample.name}_{part}.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no NumPy array ({error}); copy it again") from None
