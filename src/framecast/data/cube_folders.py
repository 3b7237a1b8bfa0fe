"""Folders that are one cube: NetCDF files of parts of the time, or a stack of GeoTIFFs.

NetCDF: every file holds some variables over some of the time, as climate archives have them; pieces of a
variable follow each other in time. GeoTIFF: `variable_20210702.tif` for each day, `variable.tif` for what
does not change; or a folder per variable with `20210702.tif`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.cube_store import (
    CubeError,
    Index,
    Store,
    StoredVariable,
    XarrayStore,
    one_line,
    readable,
)
from framecast.extras import import_extra

DATED = re.compile(r"(?:(?P<name>.+?)[_.-])?(?P<date>\d{4}-?\d{2}-?\d{2})")


def open_folder(path: Path) -> Store:
    """The store of a folder; CubeError where it holds neither NetCDF files nor GeoTIFFs."""
    netcdf = sorted(p for p in path.rglob("*") if p.suffix.lower() in (".nc", ".nc4", ".cdf"))
    tiffs = sorted(p for p in path.rglob("*") if p.suffix.lower() in (".tif", ".tiff"))
    if netcdf and tiffs:
        raise CubeError(f"{path} holds NetCDF files and GeoTIFFs; name a folder with one kind")
    if netcdf:
        return NetcdfFolder(path, netcdf)
    if tiffs:
        return GeotiffStack(path, tiffs)
    raise CubeError(f"{path} is a folder without Zarr, NetCDF files (.nc) or GeoTIFFs (.tif)")


class NetcdfFolder(Store):
    """NetCDF files side by side, joined along the time."""

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        self.stores = [XarrayStore(file) for file in files]
        self.attrs = dict(self.stores[0].attrs)
        self.time = next(
            (
                d
                for s in self.stores
                for v in s.variables.values()
                for d in v.dims
                if d in ("time", "t", "valid_time")
            ),
            "time",
        )
        self._join()

    def _join(self) -> None:
        pieces: dict[str, list[XarrayStore]] = defaultdict(list)
        for store in self.stores:
            for name in store.variables:
                pieces[name].append(store)
        if self.time not in pieces:
            raise CubeError(f"{self.path}: no file has a coordinate {self.time!r}")
        calendars = {self._calendar_of(store) for store in pieces[self.time]}
        if len(calendars) > 1:
            raise CubeError(f"{self.path}: files of several calendars ({', '.join(sorted(calendars))})")
        self._calendar = next(iter(calendars))
        own = {id(s): s.read(self.time, {}) for s in pieces[self.time]}
        self.variables, self.parts = {}, {}
        spans: dict[str, np.ndarray] = {}
        for name, stores in pieces.items():
            first = stores[0].variables[name]
            if self.time not in first.dims:
                self._same(name, stores)
                self.variables[name], self.parts[name] = first, [(0, stores[0])]
                continue
            ordered = sorted(stores, key=lambda s: own[id(s)][0])
            starts = np.cumsum([0, *(len(own[id(s)]) for s in ordered)])
            axis = first.dims.index(self.time)
            for store in ordered:
                if store.variables[name].dims != first.dims:
                    raise CubeError(f"{store.path}: {name} has dimensions {store.variables[name].dims}, "
                                    f"in {stores[0].path.name} {first.dims}")  # fmt: skip
            shape = (*first.shape[:axis], int(starts[-1]), *first.shape[axis + 1 :])
            self.variables[name] = StoredVariable(first.dims, shape, first.dtype, first.attrs, first.chunks)
            self.parts[name] = [(int(a), s) for a, s in zip(starts, ordered, strict=False)]
            spans[name] = np.concatenate([own[id(s)] for s in ordered])
        longest = max((n for n in spans if n != self.time), key=lambda n: len(spans[n]), default=self.time)
        self._times = spans.get(longest, np.array([]))
        for name, times in spans.items():
            if name == self.time or "bnds" in name or "bounds" in name:
                continue
            if not np.array_equal(times, self._times):
                raise CubeError(
                    f"{self.path}: {name} has {len(times)} time steps, {longest} has {len(self._times)}, "
                    "or others; every variable needs the same times"
                )

    def _calendar_of(self, store: XarrayStore) -> str:
        calendar = store.calendar(self.time) or "standard"
        return "standard" if calendar in ("gregorian", "proleptic_gregorian") else calendar

    def _same(self, name: str, stores: list[XarrayStore]) -> None:
        """Axes must agree between files; of other variables the first file's counts."""
        if stores[0].variables[name].dims != (name,) or stores[0].variables[name].dtype.kind not in "fiu":
            return
        first = stores[0].coordinate(name)
        for store in stores[1:]:
            other = store.coordinate(name)
            if first is None or other is None or first.shape != other.shape or not np.allclose(first, other):
                raise CubeError(f"{store.path}: coordinate {name} differs from that of {stores[0].path.name}")

    def coordinate(self, name: str) -> np.ndarray | None:
        if name == self.time:
            return self._times
        return self.parts[name][0][1].coordinate(name) if name in self.parts else None

    def calendar(self, name: str) -> str | None:
        return self._calendar if name == self.time else None

    def read(self, name: str, index: Index) -> np.ndarray:
        parts, stored = self.parts[name], self.variables[name]
        if self.time not in stored.dims:
            return parts[0][1].read(name, index)
        steps = range(stored.sizes[self.time])[index.get(self.time, slice(None))]
        starts = [start for start, _ in parts]
        if isinstance(steps, int):
            place = bisect_right(starts, steps) - 1
            return parts[place][1].read(name, {**index, self.time: steps - starts[place]})
        found = []
        for start, store in parts:
            size = store.variables[name].sizes[self.time]
            low, high = max(steps.start, start), min(steps.stop, start + size)
            if low < high:
                found.append(store.read(name, {**index, self.time: slice(low - start, high - start)}))
        if not found:
            return parts[0][1].read(name, {**index, self.time: slice(0, 0)})
        kept = [d for d in stored.dims if not isinstance(index.get(d), int)]
        return np.concatenate(found, axis=kept.index(self.time))


class GeotiffStack(Store):
    """GeoTIFFs of one grid; needs the `maps` extra."""

    def __init__(self, path: Path, files: list[Path]) -> None:
        rasterio = import_extra("rasterio", "maps")
        self.path, self.attrs = path, {}
        self.files: dict[str, dict[np.datetime64 | None, Path]] = defaultdict(dict)
        grid: tuple[Any, ...] | None = None
        for file in files:
            name, when = _name_and_date(file, path)
            if when in self.files[name]:
                raise CubeError(f"{file}: a second map of {name} for {when or 'all days'}")
            self.files[name][when] = file
            try:
                with rasterio.open(file) as raster:
                    here = raster.transform, raster.crs, raster.height, raster.width
            except rasterio.errors.RasterioError as error:
                raise CubeError(f"{file} cannot be opened ({one_line(error)})") from None
            if grid is None:
                grid, first = here, file
            elif here[1] != grid[1]:
                raise CubeError(f"{file} is in {here[1]}, but {first.name} in {grid[1]}; reproject it")
            elif here[2:] != grid[2:] or not here[0].almost_equals(grid[0], 1e-6):
                raise CubeError(f"{file} has another grid than {first.name}; bring both to one")
        assert grid is not None
        transform, crs, height, width = grid
        if transform.b or transform.d:
            raise CubeError(f"{path}: the maps are turned against their axes; warp them first")
        self.attrs = {"crs_wkt": crs.to_wkt()} if crs else {}
        self.y = transform.f + transform.e * (np.arange(height) + 0.5)
        self.x = transform.c + transform.a * (np.arange(width) + 0.5)
        self.times = np.array(sorted({d for maps in self.files.values() for d in maps if d is not None}))
        if not len(self.times):
            raise CubeError(f"{path}: no GeoTIFF has a date in its name, as in rain_20210702.tif")
        self.variables = {}
        for name, maps in self.files.items():
            if None in maps and len(maps) > 1:
                raise CubeError(f"{path}: {name} has maps with and without a date")
            size = (height, width) if None in maps else (len(self.times), height, width)
            dims = ("y", "x") if None in maps else ("time", "y", "x")
            with rasterio.open(next(iter(maps.values()))) as raster:
                attrs = {"units": raster.units[0]} if raster.units and raster.units[0] else {}
            self.variables[name] = StoredVariable(
                dims, size, np.dtype(np.float32), attrs, (1, height, width)[-len(dims) :]
            )

    def coordinate(self, name: str) -> np.ndarray | None:
        return {"time": self.times, "y": self.y, "x": self.x}.get(name)

    def read(self, name: str, index: Index) -> np.ndarray:
        """Days without a map are NaN."""
        maps = self.files[name]
        rows, columns = (
            slice(*slice_.indices(len(axis))[:2])
            for slice_, axis in ((index.get("y", slice(None)), self.y), (index.get("x", slice(None)), self.x))
            if isinstance(slice_, slice)
        )
        if None in maps:
            return self._map(name, maps[None], rows, columns)
        steps = self.times[index.get("time", slice(None))]
        if isinstance(steps, np.datetime64):
            steps, single = np.array([steps]), True
        else:
            single = False
        out = np.full(
            (len(steps), rows.stop - rows.start, columns.stop - columns.start), np.nan, dtype=np.float32
        )
        for place, when in enumerate(steps):
            if when in maps:
                out[place] = self._map(name, maps[when], rows, columns)
        return out[0] if single else out

    def _map(self, name: str, file: Path, rows: slice, columns: slice) -> np.ndarray:
        rasterio = import_extra("rasterio", "maps")
        with readable(file, name), rasterio.open(file) as raster:
            window = ((rows.start, rows.stop), (columns.start, columns.stop))
            values = raster.read(1, window=window, masked=True)
            scale, offset = raster.scales[0], raster.offsets[0]
        filled = values.astype(np.float32).filled(np.nan)
        return filled if (scale, offset) == (1.0, 0.0) else filled * np.float32(scale) + np.float32(offset)


def _name_and_date(file: Path, root: Path) -> tuple[str, np.datetime64 | None]:
    """("rain", 2021-07-02) from rain_20210702.tif or rain/20210702.tif; ("dem", None) from dem.tif."""
    found = DATED.fullmatch(file.stem)
    if not found:
        return file.stem, None
    digits = found["date"].replace("-", "")
    name = found["name"] or (file.parent.name if file.parent != root else "map")
    try:
        return name, np.datetime64(f"{digits[:4]}-{digits[4:6]}-{digits[6:]}")
    except ValueError:
        raise CubeError(f"{file}: {found['date']} in its name is no date") from None
