"""A small cube whose vegetation follows the rain of the weeks before: for tests of maps ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

STEPS = 24 * 8  # half-months of eight years
SHAPE = (6, 7)


def half_months(first_year: int, steps: int) -> np.ndarray:
    days = []
    for step in range(steps):
        year, part = divmod(step, 24)
        days.append(f"{first_year + year}-{part // 2 + 1:02d}-{'08' if part % 2 == 0 else '23'}")
    return np.array(days, dtype="datetime64[ns]")


def simulate(steps: int, seed: int = 0, warming: float = 0.0) -> dict[str, np.ndarray]:
    """rain, ndvi and bt (T, H, W), south first; the west corner is sea."""
    rng = np.random.default_rng(seed)
    rain = rng.gamma(2.0, 1.0, (steps, *SHAPE)).astype(np.float32)
    season = np.sin(2 * np.pi * np.arange(steps) / 24)[:, None, None]
    soil = np.zeros(SHAPE)
    ndvi = np.zeros((steps, *SHAPE), dtype=np.float32)
    for step in range(steps):
        soil = 0.7 * soil + 0.3 * rain[step]
        ndvi[step] = 0.4 + 0.15 * season[step] + 0.08 * (soil - 2) - warming * step
    bt = (295 + 8 * season - 20 * (ndvi - 0.4)).astype(np.float32)
    for values in (ndvi, bt):
        values[:, 0, 0] = np.nan
    return {"rain": rain, "ndvi": ndvi, "bt": bt}


def write_map_cube(
    folder: Path, *, steps: int = STEPS, first_year: int = 1991, maps: Any = None, **changes: Any
) -> Path:
    """Write maps.nc and cube.yaml, five years of training, one of validation, two of test."""
    folder.mkdir(parents=True, exist_ok=True)
    maps = simulate(steps) if maps is None else maps
    units = {"rain": "mm", "ndvi": "1", "bt": "K"}
    data: dict[str, Any] = {
        name: (("time", "lat", "lon"), values, {"units": units[name]}) for name, values in maps.items()
    }
    height = np.add.outer(np.arange(SHAPE[0]), np.arange(SHAPE[1])).astype(np.float32)
    land = np.ones(SHAPE, dtype=np.float32)
    land[0, 0] = 0
    data |= {"height": (("lat", "lon"), height), "land": (("lat", "lon"), land)}
    coords = {
        "time": half_months(first_year, steps),
        "lat": 40 + 0.5 * np.arange(SHAPE[0]),
        "lon": 5 + 0.5 * np.arange(SHAPE[1]),
    }
    xr.Dataset(data, coords).to_netcdf(folder / "maps.nc", engine="h5netcdf")
    years = [first_year + i for i in range(steps // 24)]
    described = {
        "store": "maps.nc",
        "y": "lat",
        "x": "lon",
        "land": "land",
        "variables": {
            "rain": {"role": "dynamic", "scale": "standard"},
            "height": {"role": "static", "scale": "standard"},
        }
        | {name: {"role": "target", "scale": "none"} for name in ("ndvi", "bt") if name in maps},
        "splits": {
            "train": {"years": years[:-3]},
            "val": {"years": years[-3:-2]},
            "test": {"years": years[-2:]},
        },
    } | changes
    (folder / "cube.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
    return folder / "cube.yaml"
