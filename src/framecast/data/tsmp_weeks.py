"""TerrSysMP-NET as published, one folder of weekly NetCDF files, as a cube of weeks.

A dynamic variable's map is the mean of the days of its week; soil levels are variables of their own (sgw_1 …
sgw_15); SMN (NDVI) and SMT (BT) are means over the satellites. The rim where the simulation is driven is cut.
Layout and sources: drought_weeks.py.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.cube_settings import CubeSettings, CubeSplit, CubeVariable
from framecast.data.cube_store import CubeError, Index, Store, StoredVariable, open_dataset, readable
from framecast.data.drought_weeks import (
    RIM,
    SCALING,
    SIMULATED,
    SOIL_LEVELS,
    STATIC,
    YEARS,
    day_mean,
    over_satellites,
)

WEEK = re.compile(r"(\d{4})(\d{3})\.nc")
TARGETS = {"SMN": ("NDVI", "1"), "SMT": ("BT", "K")}
STEP = 0.11  # degrees of the rotated grid
SOUTH_WEST = (-23.48, -28.48)  # rlat, rlon of the lower left cell, where the files hold no coordinates
POLE = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +type=crs"
OPEN_FILES = 64


def is_tsmp(path: Path) -> bool:
    return path.is_dir() and (path / "mean_std_train.json").is_file() and bool(find_weeks(path))


def find_weeks(root: Path) -> list[tuple[int, int, Path]]:
    """(year, week, file) in order of time."""
    found = []
    for path in root.glob("[0-9][0-9][0-9][0-9]/*.nc"):
        name = WEEK.fullmatch(path.name)
        if name and path.parent.name == name[1] and 1 <= int(name[2]) <= 53:
            found.append((int(name[1]), int(name[2]), path))
    return sorted(found)


class TsmpWeeks(Store):
    """Weeks of TerrSysMP-NET by week, row and column; rows south first, as in the files."""

    def __init__(self, root: str | Path, *, rim: int = RIM) -> None:
        self.path, self.rim, self.attrs = Path(root), rim, {"crs": POLE}
        self.weeks = find_weeks(self.path)
        self._open: dict[tuple[int, Path], Any] = {}
        first = self._file(self.weeks[0][2])
        height, width = first["SMN"].shape[-2:]
        if min(height, width) <= 2 * rim:
            raise CubeError(
                f"{self.path}: maps of {height} x {width} cells leave nothing within a rim of {rim}"
            )
        self.y, self.x = (
            _positions(first, name, size, start)[rim : size - rim]
            for name, size, start in zip(("rlat", "rlon"), (height, width), SOUTH_WEST, strict=True)
        )
        self.times = np.array(
            [np.datetime64(f"{year}-01-01") + 7 * week - 1 for year, week, _ in self.weeks]
        )  # the last day of each week
        shape = len(self.weeks), len(self.y), len(self.x)
        self.variables, self.sources = {}, {}
        for name in (*SIMULATED, *TARGETS, "mask_cold_surface"):
            if name not in first:
                raise CubeError(
                    f"{self.weeks[0][2]}: no variable {name!r}, which weeks of TerrSysMP-NET have"
                )
            layered = name == "sgw"
            for level in range(1, SOIL_LEVELS + 1) if layered else [0]:
                key = f"{name}_{level}" if layered else name
                attrs = {} if layered else {k: v for k, v in first[name].attrs.items() if k != "grid_mapping"}
                self.variables[key] = StoredVariable(("time", "y", "x"), shape, np.dtype("f4"), attrs)
                self.sources[key] = name, level - 1
        still = self._file(self.path / "static_variables.nc")
        masks = self._file(self.path / "mask_valid_pixels.nc")
        for name, source in [(n, still) for n in STATIC] + [
            (n, masks) for n in ("mask_sea", "mask_no_vegetation")
        ]:
            if name not in source:
                raise CubeError(f"{self.path}: no static variable {name!r}")
            self.variables[name] = StoredVariable(("y", "x"), shape[1:], np.dtype("f4"))
        self.variables["land"] = StoredVariable(("y", "x"), shape[1:], np.dtype("f4"))

    def coordinate(self, name: str) -> np.ndarray | None:
        return {"time": self.times, "y": self.y, "x": self.x}.get(name)

    def read(self, name: str, index: Index) -> np.ndarray:
        rows, columns = index.get("y", slice(None)), index.get("x", slice(None))
        inner = [range(self.rim, self.rim + len(axis)) for axis in (self.y, self.x)]
        part = tuple(
            slice(r[0], r[-1] + 1) if len(r) else slice(0, 0)
            for r in (inner[0][rows], inner[1][columns])
            if isinstance(r, range)
        )
        if name not in self.sources:
            return self._still(name, part)
        steps = range(len(self.weeks))[index.get("time", slice(None))]
        if isinstance(steps, int):
            return self._week(steps, name, part)
        maps = [self._week(step, name, part) for step in steps]
        shape = (0, *(p.stop - p.start for p in part))
        return np.stack(maps) if maps else np.zeros(shape, dtype=np.float32)

    def _week(self, step: int, key: str, part: tuple[slice, ...]) -> np.ndarray:
        path, (name, level) = self.weeks[step][2], self.sources[key]
        week = self._file(path)
        if name not in week:
            raise CubeError(f"{path}: no variable {name!r}, which other weeks have")
        with readable(path, name):
            array = week[name].variable
            values = np.asarray((array[:, level] if level >= 0 else array)[(..., *part)].values)
        if name in TARGETS:
            return over_satellites(values).astype(np.float32)
        if name == "mask_cold_surface":
            return (values.max(0) if values.ndim == 3 else values).astype(np.float32)
        return day_mean(name, values).astype(np.float32)

    def _still(self, name: str, part: tuple[slice, ...]) -> np.ndarray:
        file = "mask_valid_pixels.nc" if name.startswith("mask_") or name == "land" else "static_variables.nc"
        source = self._file(self.path / file)
        with readable(self.path / file, name):
            values = np.asarray(source["mask_sea" if name == "land" else name].variable[part].values)
        values = values.astype(np.float32)
        return 1.0 - values if name == "land" else values

    def still_statistics(self, name: str) -> tuple[float, float]:
        """Mean and deviation of a static map over the whole domain with the rim, as in the release."""
        values = np.asarray(self._file(self.path / "static_variables.nc")[name].values, dtype=np.float64)
        return float(np.nanmean(values)), float(np.nanstd(values)) or 1.0

    def _file(self, path: Path) -> Any:
        """An open file of this process; the last few stay open."""
        key = os.getpid(), path
        if key not in self._open:
            while len(self._open) >= OPEN_FILES:
                self._open.pop(next(iter(self._open)), None)
            self._open[key] = open_dataset(path)
        return self._open[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}

    def settings(self) -> CubeSettings:
        """All simulated variables and static maps by the release's statistics, NDVI and BT as targets."""
        path = self.path / "mean_std_train.json"
        try:
            statistics = json.loads(path.read_text(encoding="utf-8"))
            mean, std = statistics["mean"], statistics["std"]
            dynamic = {
                key: CubeVariable(role="dynamic", scale="standard", mean=mean[key], std=std[key])
                for key, (name, _) in self.sources.items()
                if name in SIMULATED
            }
        except (ValueError, KeyError, TypeError) as error:
            raise CubeError(f"{path} is no statistics file (mean and std -> variable): {error}") from None
        static = {}
        for name in STATIC:
            offset, factor = self.still_statistics(name)
            static[name] = CubeVariable(role="static", scale="standard", mean=offset, std=factor)
        targets = {
            name: CubeVariable(
                role="target",
                name=key,
                unit=unit,
                scale="standard",
                mean=SCALING[name][0],
                std=SCALING[name][1],
            )
            for key, (name, unit) in TARGETS.items()
        }
        names = {"train": "train", "validation": "val", "test": "test"}
        return CubeSettings(
            variables=dynamic | static | targets,
            land="land",
            crs=POLE,
            splits={names[name]: CubeSplit(years=years) for name, years in YEARS.items()},
            num_days=1,
            lead=0,
        )


def _positions(dataset: Any, name: str, size: int, start: float) -> np.ndarray:
    if name in dataset.variables and dataset.variables[name].shape == (size,):
        return np.asarray(dataset.variables[name].values, dtype=np.float64)
    return start + STEP * np.arange(size)
