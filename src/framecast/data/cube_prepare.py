"""Brings a cube into the form that training reads fast: one Zarr in chunks of windows, and statistics.

A cube may be far larger than memory: a box at a time is read, converted, counted and written. The result is a
folder with `cube.zarr` and `cube.yaml`: units as the YAML wants them, north first, gaps as NaN.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.cube import Cube
from framecast.data.cube_boxes import WASTE, boxes, chunk_bytes, chunk_of, plan_box, waste
from framecast.data.cube_settings import CubeSettings, CubeVariable, Statistics, save_cube_settings
from framecast.data.cube_statistics import RunningStatistics, Scope, known_statistics, training_split
from framecast.data.cube_variables import StoredMap
from framecast.data.cube_writing import CHUNK, ZarrWriter
from framecast.progress import track
from framecast.writing import fill_folder

LAND = "land_mask"
MEMORY_SHARE = 0.5  # of --memory-mb that a box may take; the rest is for chunks on their way


@dataclass
class PrepareReport:
    """What was written, and what was odd about the source."""

    path: Path
    variables: int
    steps: int
    rows: int
    columns: int
    chunk: tuple[int, int, int]
    boxes: int
    seconds: float
    notes: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        return vars(self) | {"path": str(self.path)}


def prepare_cube(
    cube: Cube,
    out: str | Path,
    *,
    memory_mb: float = 512,
    chunk: tuple[int, int, int] = CHUNK,
    quiet: bool = False,
) -> PrepareReport:
    """Write `out/cube.zarr` and `out/cube.yaml` with statistics of the training split; nothing half-written.

    memory_mb: what may be held beyond the program itself. An `out` that a former call wrote is replaced;
    ValueError for any other folder that is not empty, and for chunks that do not fit into memory.
    """
    out, started = Path(out), time.monotonic()
    _check_out(out, cube)
    notes = layout_notes(cube)
    for key, stored in cube.maps.items():
        if chunk_bytes(stored) > memory_mb * 2**20 * MEMORY_SHARE:
            needed = int(chunk_bytes(stored) / 2**20 / MEMORY_SHARE) + 1
            raise ValueError(
                f"{cube.path}: one chunk of {key} takes {chunk_bytes(stored) / 2**20:.0f} MB; "
                f"allow at least --memory-mb {needed}, or rewrite the store in smaller chunks"
            )
    scope = Scope(cube, training_split(cube))
    statistics: dict[str, Statistics] = {}
    variables: dict[str, CubeVariable] = {}
    counted = [0]

    def write(temporary: Path) -> None:
        writer = ZarrWriter(
            temporary / "cube.zarr",
            cube.times,
            cube.y,
            cube.x,
            crs=cube.crs,
            attrs={k: v for k, v in cube.store.attrs.items() if isinstance(v, str)},
            chunk=chunk,
        )
        written: dict[tuple[Any, ...], tuple[str, RunningStatistics]] = {}
        for key in track(list(cube.maps), "Preparing", quiet=quiet):
            variable, stored = cube.settings.variables[key], cube.maps[key]
            same = stored.name, stored.unit, stored.missing, tuple(stored.fixed.items())
            if same not in written:
                written[same] = key, RunningStatistics()
                counted[0] += _copy(
                    cube, stored, writer, key, scope, written[same][1], memory_mb * MEMORY_SHARE
                )
            name, running = written[same]
            if variable.classes is None:
                statistics[key] = known_statistics(cube, key, running)
            pattern = f"{name} {{year}}" if stored.years else name
            variables[key] = variable.model_copy(
                update={
                    "name": None if pattern == key else pattern,
                    "unit": stored.unit or None,
                    "missing": (),
                    "at": {},
                }
            )
        writer.add(LAND, ("y", "x"), {"units": "1", "long_name": "1 on land"}, dtype="uint8")
        writer.put(LAND, cube.land.astype(np.uint8))
        save_cube_settings(_settings(cube, variables, statistics), temporary / "cube.yaml")

    fill_folder(out, write)
    return PrepareReport(
        out, len(variables), *cube.shape, chunk, counted[0], round(time.monotonic() - started, 2), notes
    )


def _settings(
    cube: Cube, variables: dict[str, CubeVariable], statistics: dict[str, Statistics]
) -> CubeSettings:
    axes = {"time": "time", "y": "y", "x": "x"}
    return cube.settings.model_copy(
        update={
            "store": "cube.zarr",
            "crs": cube.crs,
            "land": LAND,
            "variables": variables,
            "statistics": statistics,
            **axes,
        }
    )


def _copy(
    cube: Cube,
    stored: StoredMap,
    writer: ZarrWriter,
    key: str,
    scope: Scope,
    running: RunningStatistics,
    memory_mb: float,
) -> int:
    """Copy one variable, or a map of each of its years; returns the number of boxes."""
    attrs = {k: v for k, v in stored.stored.attrs.items() if k in ("long_name", "standard_name")}
    if stored.unit:
        attrs["units"] = stored.unit
    count, of_scope = 0, stored.of_year(scope.year).name
    for year in stored.years or [None]:
        one = stored if year is None else stored.of_year(year)
        name = key if year is None else f"{key} {year}"
        writer.add(name, ("time", "y", "x") if one.in_time else ("y", "x"), attrs)
        size = cube.shape if one.in_time else (1, *cube.shape[1:])
        unit = tuple(writer.chunk.values())
        for box in boxes(size, plan_box(size, chunk_of(one), unit, memory_mb)):
            values = one.read(cube.store, box[0] if one.in_time else 0, *box[1:])
            writer.put(name, values, *(box if one.in_time else box[1:]))
            if one.name == of_scope:
                running.update(scope.of(values, box))
            count += 1
    return count


def layout_notes(cube: Cube) -> list[str]:
    """Variables whose chunks make windows slow to read."""
    window = cube.settings.num_days, cube.settings.window_cells, cube.settings.window_cells
    slow: dict[tuple[int, ...], list[str]] = {}
    for key in cube.dynamic_names:
        chunk = chunk_of(cube.maps[key])
        if chunk is not None and waste(chunk, cube.shape, window) > WASTE:
            slow.setdefault(chunk, []).append(key)
    return [
        f"{', '.join(keys)}: chunks of {' x '.join(map(str, chunk))} (time, y, x) make a window of "
        f"{' x '.join(map(str, window))} read {waste(chunk, cube.shape, window):.0f} times what it needs; "
        "`framecast prepare` rewrites them"
        for chunk, keys in slow.items()
    ]


def _check_out(out: Path, cube: Cube) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out names a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "cube.zarr").is_dir():
        raise ValueError(f"{out} is not empty and holds no prepared cube; name another folder")
    source = cube.store.path.resolve()
    if out.resolve() == source or out.resolve() in source.parents:
        raise ValueError(
            f"{out} holds the source {cube.store.path}, which would be replaced; name another folder"
        )
