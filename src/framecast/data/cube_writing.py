"""Writes a cube's Zarr store piece by piece: axes first, then boxes of variables in any order.

The result is plain Zarr 3 with named dimensions and CF attributes, which xarray opens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framecast.extras import import_extra

CHUNK = (16, 64, 64)  # time steps, rows, columns: a window of 10 days and 25 cells touches few of them


class ZarrWriter:
    """A Zarr store with axes `time`, `y` and `x`; variables are added and filled by box.

    times: datetime64, or objects of another calendar (cftime). crs: "EPSG:…", PROJ or WKT text.
    """

    def __init__(
        self,
        path: str | Path,
        times: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        *,
        crs: str = "EPSG:4326",
        attrs: Mapping[str, Any] | None = None,
        chunk: tuple[int, int, int] = CHUNK,
    ) -> None:
        zarr = import_extra("zarr")
        self.path, self.sizes = Path(path), {"time": len(times), "y": len(y), "x": len(x)}
        self.chunk = dict(zip(self.sizes, chunk, strict=True))
        self.group = zarr.open_group(self.path, mode="w", zarr_format=3)
        self.group.attrs.update({"Conventions": "CF-1.10", **(attrs or {})})
        degrees = crs == "EPSG:4326"
        self._axis("time", *encode_times(times))
        for name, values, word in (("y", y, "latitude"), ("x", x, "longitude")):
            units = "degrees_north" if name == "y" else "degrees_east"
            plain = {"standard_name": f"projection_{name}_coordinate", "axis": name.upper()}
            self._axis(
                name,
                np.asarray(values, dtype=np.float64),
                {"standard_name": word, "units": units, "axis": name.upper()} if degrees else plain,
            )
        self._axis("spatial_ref", np.zeros((), dtype=np.int32), {"crs": crs}, dims=())

    def _axis(
        self, name: str, values: np.ndarray, attrs: Mapping[str, Any], dims: Sequence[str] | None = None
    ) -> None:
        array = self.group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype=values.dtype,
            dimension_names=[name] if dims is None else dims,
            attributes=dict(attrs),
        )
        array[...] = values

    def add(
        self, name: str, dims: Sequence[str], attrs: Mapping[str, Any] | None = None, dtype: str = "float32"
    ) -> None:
        """A new variable over some of time, y and x; floats that are not filled are NaN."""
        shape = tuple(self.sizes[dim] for dim in dims)
        self.group.create_array(
            name,
            shape=shape,
            chunks=tuple(min(self.chunk[dim], size) for dim, size in zip(dims, shape, strict=True)),
            dtype=dtype,
            fill_value=np.nan if np.dtype(dtype).kind == "f" else 0,
            dimension_names=list(dims),
            attributes={"grid_mapping": "spatial_ref", **(attrs or {})},
        )

    def put(self, name: str, values: np.ndarray, *where: slice) -> None:
        """Fill a box; slices in the order of the variable's dimensions, all of it by default."""
        self.group[name][where or ...] = values


def encode_times(times: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Numbers and CF attributes of times."""
    attrs = {"standard_name": "time", "axis": "T"}
    if times.dtype.kind == "M":
        word = {"D": "days", "h": "hours"}.get(np.datetime_data(times.dtype)[0], "seconds")
        unit = {"days": "D", "hours": "h", "seconds": "s"}[word]
        numbers = times.astype(f"datetime64[{unit}]").astype(np.int64)
        return numbers, attrs | {"units": f"{word} since 1970-01-01", "calendar": "proleptic_gregorian"}
    units, calendar = "hours since 1970-01-01", times[0].calendar
    numbers = import_extra("cftime").date2num(times, units, calendar)
    return np.asarray(numbers, dtype=np.float64), attrs | {"units": units, "calendar": calendar}
