"""Small cubes for tests, whole or with one thing wrong."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import yaml

DAYS, ROWS, COLUMNS = 40, 12, 10
YAML: dict[str, Any] = {
    "store": "cube.nc",
    "crs": "EPSG:4326",
    "land": "dem",
    "variables": {
        "t2m": {"role": "dynamic", "unit": "K"},
        "rain": {"role": "dynamic", "unit": "mm", "scale": "standard"},
        "dem": {"role": "static", "unit": "m"},
        "cover": {"role": "categorical", "classes": 3},
        "crop": {"role": "static", "scale": "none", "share_of": "use"},
        "wood": {"role": "static", "scale": "none", "share_of": "use"},
        "burnt": {"role": "target"},
    },
    "splits": {
        "train": {"first": "2020-06-01", "last": "2020-06-24"},
        "test": {"first": "2020-06-25", "last": "2020-07-10"},
    },
    "window_cells": 5,
    "num_days": 4,
}


def dataset(seed: int = 0) -> Any:
    """40 days of 12 x 10 cells, north first, with a strip of sea in the west."""
    import xarray as xr

    rng = np.random.default_rng(seed)
    shape, plane = (DAYS, ROWS, COLUMNS), (ROWS, COLUMNS)
    dem = rng.uniform(5, 900, plane).astype(np.float32)
    dem[:, :2] = np.nan
    crop = rng.uniform(0, 1, plane).astype(np.float32)
    axes = ("time", "y", "x")
    return xr.Dataset(
        {
            "t2m": (axes, rng.uniform(280, 310, shape).astype(np.float32), {"units": "K"}),
            "rain": (axes, rng.gamma(0.5, 4.0, shape).astype(np.float32), {"units": "mm"}),
            "burnt": (axes, (rng.random(shape) < 0.05).astype(np.float32)),
            "dem": (axes[1:], dem, {"units": "m"}),
            "cover": (axes[1:], rng.integers(0, 3, plane).astype(np.int8)),
            "crop": (axes[1:], crop),
            "wood": (axes[1:], 1 - crop),
        },
        coords={
            "time": np.datetime64("2020-06-01", "ns") + np.arange(DAYS) * np.timedelta64(1, "D"),
            "y": ("y", 40.0 - 0.01 * np.arange(ROWS)),
            "x": ("x", 21.0 + 0.01 * np.arange(COLUMNS)),
        },
    )


def save_cube(
    folder: Path,
    data: Any = None,
    changes: dict[str, Any] | None = None,
    *,
    store: str = "cube.nc",
    **save: Any,
) -> Path:
    """Write a data set and its YAML; changes: dotted keys of the YAML, None takes one away."""
    folder.mkdir(parents=True, exist_ok=True)
    data = dataset() if data is None else data
    if store.endswith(".zarr"):
        data.to_zarr(folder / store, consolidated=False, zarr_format=3, **save)
    else:
        data.to_netcdf(folder / store, engine="h5netcdf", **save)
    return save_yaml(folder, {"store": store, **(changes or {})})


def save_yaml(folder: Path, changes: dict[str, Any]) -> Path:
    settings = deepcopy(YAML)
    for key, value in changes.items():
        *parents, last = key.split(".")
        owner = settings
        for part in parents:
            owner = owner[part]
        owner.pop(last, None)
        if value is not None:
            owner[last] = value
    path = folder / "cube.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path
