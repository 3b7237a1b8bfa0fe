"""Stores that hold gridded variables: one Zarr or NetCDF, a folder of NetCDF files, a folder of GeoTIFFs.

A store says which variables it has and reads boxes of them; nothing is read as a whole but the coordinates.
Handles belong to one process: in a forked or spawned worker the store opens its files again.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from framecast.extras import import_extra

Index = Mapping[str, "slice | int"]
CLOCK = re.compile(r"\bsince\b")


class CubeError(ValueError):
    """Something is wrong with a cube; the message starts with its path."""


@dataclass(frozen=True)
class StoredVariable:
    """What is known of a variable before it is read."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # after unpacking
    attrs: dict[str, Any] = field(default_factory=dict)
    chunks: tuple[int, ...] | None = None  # on disk, None = in one piece

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(self.dims, self.shape, strict=True))


class Store(ABC):
    """Variables on disk."""

    path: Path
    attrs: dict[str, Any]
    variables: dict[str, StoredVariable]

    @abstractmethod
    def read(self, name: str, index: Index) -> np.ndarray:
        """A box of a variable, unpacked, NaN where the store marks gaps; ints drop their dimension."""

    @abstractmethod
    def coordinate(self, name: str) -> np.ndarray | None:
        """The 1-D coordinate of a dimension, None where it has none."""

    def calendar(self, name: str) -> str | None:
        """CF calendar of a time coordinate, None for datetime64."""
        return None


class XarrayStore(Store):
    """One Zarr store or one NetCDF file, read lazily through xarray."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._mine: tuple[int, Any] | None = None
        self._lock = threading.Lock()
        dataset = self._dataset()
        if not dataset.variables:
            raise CubeError(f"{self.path} cannot be opened (it holds no variables)")
        self.attrs = dict(dataset.attrs)
        self.variables = {
            str(name): StoredVariable(
                tuple(map(str, v.dims)), v.shape, v.dtype, dict(v.attrs), chunks_of(v.encoding, v.shape)
            )
            for name, v in dataset.variables.items()
        }

    def read(self, name: str, index: Index) -> np.ndarray:
        variable = self._dataset().variables[name]
        with readable(self.path, name):
            return np.asarray(variable.isel({d: i for d, i in index.items() if d in variable.dims}).values)

    def coordinate(self, name: str) -> np.ndarray | None:
        if name not in self.variables or self.variables[name].dims != (name,):
            return None
        return self.read(name, {})

    def calendar(self, name: str) -> str | None:
        variable = self._dataset().variables.get(name)
        if variable is None or CLOCK.search(str(variable.encoding.get("units", ""))) is None:
            return None
        return str(variable.encoding.get("calendar", "standard"))

    def _dataset(self) -> Any:
        with self._lock:
            if self._mine is None or self._mine[0] != os.getpid():
                self._mine = os.getpid(), open_dataset(self.path)
            return self._mine[1]

    def close(self) -> None:
        if self._mine is not None and self._mine[0] == os.getpid():
            self._mine[1].close()
        self._mine = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_mine", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _mine=None, _lock=threading.Lock())


def is_zarr(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def open_dataset(path: Path) -> Any:
    """An xarray data set without reading values; CubeError where the file is not what its name says."""
    xarray = import_extra("xarray")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected a Zarr store or NetCDF")
    if path.is_dir() and not is_zarr(path):
        raise CubeError(f"{path} is a folder without zarr.json or .zgroup, so it is no Zarr store")
    if path.is_file():
        check_netcdf(path)
    else:
        refuse_pickles(path)
    options: dict[str, Any] = {"decode_timedelta": False, "chunks": None, "cache": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            engine = "zarr" if path.is_dir() else None
            return xarray.open_dataset(path, engine=engine, **options)
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        raise CubeError(f"{path} cannot be opened ({one_line(error)})") from None


SIGNS = {b"\x89HDF": "", b"CDF\x01": "", b"CDF\x02": "", b"CDF\x05": ""} | {
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x1f\x8b": "packed with gzip; unpack it first",
    b"GRIB": "GRIB; convert it to NetCDF, for example with cdo -f nc4 copy",
    b"II*\x00": "one GeoTIFF; name the folder that holds the stack",
    b"MM\x00*": "one GeoTIFF; name the folder that holds the stack",
}


def check_netcdf(path: Path) -> None:
    """CubeError that says what a file is if it is no NetCDF."""
    with path.open("rb") as file:
        head = file.read(8)
    for sign, what in SIGNS.items():
        if head.startswith(sign):
            if what:
                raise CubeError(f"{path} is no NetCDF but {what}")
            return
    what = "is empty" if not head else f"is no NetCDF (it starts with {head!r})"
    raise CubeError(f"{path} {what}; expected a NetCDF file or a Zarr folder")


def refuse_pickles(path: Path) -> None:
    """Zarr arrays of Python objects run code when they are read; such stores are not opened."""
    zarr = import_extra("zarr")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays = list(zarr.open_group(path, mode="r").arrays())
    except Exception as error:
        raise CubeError(f"{path} is no readable Zarr group ({one_line(error)})") from None
    for name, array in arrays:
        if "pickle" in str(array.metadata.to_dict()).lower():
            raise CubeError(f"{path}: {name} holds pickled Python objects, which can run code; not opened")


def chunks_of(encoding: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Chunk lengths on disk as xarray reports them."""
    chunks = encoding.get("chunks") or encoding.get("chunksizes")
    if not chunks or encoding.get("contiguous") or len(chunks) != len(shape):
        return None
    return tuple(int(c) for c in chunks)


@contextmanager
def readable(path: Path, name: str) -> Generator[None]:
    """Turn what a library raises over damaged data into a CubeError that says which file and variable."""
    try:
        yield
    except (MemoryError, CubeError):
        raise
    except Exception as error:
        raise CubeError(
            f"{path}: {name} cannot be read ({one_line(error)}); the file is damaged or incomplete; "
            "copy it again"
        ) from None


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
