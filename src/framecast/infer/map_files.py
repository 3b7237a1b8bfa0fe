"""Maps as files: NetCDF with CF metadata, GeoTIFF, and tables of points; each is read back as it was.

NetCDF holds everything: all variables, times and spreads, any grid, any calendar. GeoTIFF is for geographic
information systems: a file per variable with a band per time, on even grids that such systems know.
Shapes: L times, H rows, W columns.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.map_systems import is_longitude_latitude, known_system, longitude_latitude, to_grid
from framecast.extras import import_extra
from framecast.structures import Forecast
from framecast.writing import write_by_name, write_file

SPREAD = "_spread"
GRID = "crs"  # variable of a NetCDF file that says what its coordinates mean
AS_GIVEN = "framecast_crs"  # attribute with the text of `Forecast.crs`
EVEN = 1e-3  # of a cell, by which the coordinates of an even grid may be off
DEGREES = ("degrees_north", "degrees_east")
WGS84 = {
    "grid_mapping_name": "latitude_longitude",
    "semi_major_axis": 6378137.0,
    "inverse_flattening": 298.257223563,
}


# NetCDF ---------------------------------------------------------------------------------------------


def write_netcdf(forecast: Forecast, path: str | Path) -> Path:
    """All maps and spreads in one file that follows the CF conventions, compressed without loss.

    Raises MissingExtra without xarray, OSError where the file cannot be written.
    """
    xarray = import_extra("xarray")
    import_extra("h5netcdf")
    names, coordinates, mapping = _grid(forecast)
    dims = ("time", *names)
    variables = {}
    for name, maps in forecast.values.items():
        about = {"units": forecast.units[name], "grid_mapping": GRID}
        if name in forecast.spread:
            about["ancillary_variables"] = name + SPREAD
            spread_about = about | {"long_name": f"standard deviation of {name} over members"}
            del spread_about["ancillary_variables"]
            variables[name + SPREAD] = (dims, forecast.spread[name], spread_about)
        variables[name] = (dims, maps, about)
    variables[GRID] = ((), np.int32(0), mapping)
    coordinates["time"] = (("time",), *_coded_times(forecast.times))
    attrs = forecast.attrs | {"Conventions": "CF-1.11", AS_GIVEN: forecast.crs}
    dataset = xarray.Dataset(variables, coordinates, attrs)
    packed = {"zlib": True, "complevel": 4, "shuffle": True, "_FillValue": np.float32(np.nan)}
    packed["chunksizes"] = (1, len(forecast.y), len(forecast.x))
    encoding: dict[str, dict[str, Any]] = {
        name: dict(packed) for name in variables if name.removesuffix(SPREAD) in forecast.values
    }
    encoding |= {name: {"_FillValue": None} for name in coordinates}
    return write_by_name(
        path, lambda file: dataset.to_netcdf(file, engine="h5netcdf", encoding=encoding, invalid_netcdf=False)
    )


def read_netcdf(path: str | Path) -> Forecast:
    """What `write_netcdf` wrote; ValueError for a file that is something else."""
    xarray = import_extra("xarray")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected maps as NetCDF")
    try:
        with xarray.open_dataset(path, engine="h5netcdf", decode_times=False) as file:
            return _from_dataset(file.load())
    except (OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is no NetCDF file of maps written by framecast ({reason})") from None


def _from_dataset(dataset: Any) -> Forecast:
    attrs = {key: str(value) for key, value in dataset.attrs.items()}
    crs = attrs.pop(AS_GIVEN)
    attrs.pop("Conventions")
    named = [name for name, found in dataset.items() if found.attrs.get("grid_mapping") == GRID]
    maps = [name for name in named if not (name.endswith(SPREAD) and name.removesuffix(SPREAD) in named)]
    _, y, x = dataset[maps[0]].dims
    return Forecast(
        values={str(name): dataset[name].values for name in maps},
        times=_decoded_times(dataset["time"]),
        y=dataset[y].values,
        x=dataset[x].values,
        units={str(name): str(dataset[name].attrs["units"]) for name in maps},
        spread={str(name): dataset[name + SPREAD].values for name in maps if name + SPREAD in named},
        crs=crs,
        attrs=attrs,
    )


def _coded_times(times: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Whole days, hours or seconds since 1970, as CF writes them."""
    about = {"standard_name": "time", "long_name": "when the map is valid", "axis": "T"}
    if times.dtype.kind == "M":
        unit = np.datetime_data(times.dtype)[0]
        if unit not in ("D", "h", "s"):
            times = times.astype("datetime64[D]" if unit in ("Y", "M", "W") else "datetime64[s]")
            unit = np.datetime_data(times.dtype)[0]
        word = {"D": "days", "h": "hours", "s": "seconds"}[unit]
        return times.astype(np.int64), about | {
            "units": f"{word} since 1970-01-01", "calendar": "proleptic_gregorian"
        }  # fmt: skip
    calendar = times[0].calendar
    coded = import_extra("cftime").date2num(times, "seconds since 1970-01-01", calendar=calendar)
    return np.asarray(coded, np.int64), about | {"units": "seconds since 1970-01-01", "calendar": calendar}


def _decoded_times(time: Any) -> np.ndarray:
    unit, calendar = str(time.attrs["units"]), str(time.attrs["calendar"])
    if calendar == "proleptic_gregorian":
        letter = {"days": "D", "hours": "h", "seconds": "s"}[unit.split()[0]]
        return time.values.astype(np.int64).astype(f"datetime64[{letter}]")
    return np.asarray(import_extra("cftime").num2date(time.values, unit, calendar=calendar))


def _grid(forecast: Forecast) -> tuple[tuple[str, str], dict[str, Any], dict[str, Any]]:
    """Names of the two axes, coordinates with CF attributes, attributes of the grid mapping."""
    system = known_system(forecast.crs)
    if system is None and is_longitude_latitude(forecast.crs):  # without pyproj
        return (
            ("lat", "lon"),
            _axes(forecast, ("lat", "lon"), ("latitude", "longitude"), DEGREES),
            dict(WGS84),
        )
    if system is None:
        about = {"units": "1", "long_name": "position"}
        coordinates = {"y": (("y",), forecast.y, about), "x": (("x",), forecast.x, about)}
        return ("y", "x"), coordinates, {"long_name": f"unknown system {forecast.crs!r}"}
    mapping = {key: value for key, value in system.to_cf().items() if value is not None}
    mapping["spatial_ref"] = mapping.get("crs_wkt", "")  # GDAL's name for it
    rotated = mapping.get("grid_mapping_name") == "rotated_latitude_longitude"
    if rotated:
        names, kinds, units = ("rlat", "rlon"), ("grid_latitude", "grid_longitude"), ("degrees", "degrees")
    elif system.is_geographic:
        names, kinds, units = ("lat", "lon"), ("latitude", "longitude"), DEGREES
    else:
        kinds = ("projection_y_coordinate", "projection_x_coordinate")
        names, units = ("y", "x"), (str(system.axis_info[0].unit_name).replace("metre", "m"),) * 2
    coordinates = _axes(forecast, names, kinds, units)
    if rotated or not system.is_geographic:
        longitude, latitude = longitude_latitude(forecast)
        for name, values, unit in (("lat", latitude, DEGREES[0]), ("lon", longitude, DEGREES[1])):
            kind = {"lat": "latitude", "lon": "longitude"}[name]
            coordinates[name] = (names, values, {"standard_name": kind, "units": unit})
    return names, coordinates, mapping


def _axes(forecast: Forecast, names: Any, kinds: Any, units: Any) -> dict[str, Any]:
    """y and x with their CF attributes."""
    found: dict[str, Any] = {}
    for name, values, kind, unit, axis in zip(
        names, (forecast.y, forecast.x), kinds, units, "YX", strict=True
    ):
        found[name] = ((name,), values, {"standard_name": kind, "units": unit, "axis": axis})
    return found


# GeoTIFF --------------------------------------------------------------------------------------------


def write_geotiff(forecast: Forecast, folder: str | Path, suffix: str = "") -> list[Path]:
    """A file per variable and per spread, with a band per time: `danger.tif`, `danger_spread.tif`.

    suffix: end of the files' names, before `.tif`. Raises ValueError for grids that a GeoTIFF cannot hold:
    uneven ones and rotated poles, MissingExtra without rasterio.
    """
    rasterio = import_extra("rasterio", "maps")
    system = geotiff_system(forecast)
    across, down = _cell_size(forecast.x), _cell_size(forecast.y)
    origin = float(forecast.x[0]) - across / 2, float(forecast.y[0]) - down / 2
    transform = rasterio.transform.Affine(across, 0.0, origin[0], 0.0, down, origin[1])
    layout = {
        "driver": "GTiff",
        "count": len(forecast),
        "height": len(forecast.y),
        "width": len(forecast.x),
        "dtype": "float32",
        "nodata": float("nan"),
        "compress": "deflate",
        "predictor": 3,
        "transform": transform,
        "crs": system,
    }
    if min(forecast.shape[1:]) > 256:
        layout |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    written = []
    both = [(name, maps) for name, maps in forecast.values.items()]
    both += [(name + SPREAD, maps) for name, maps in forecast.spread.items()]
    for name, maps in both:
        unit = forecast.units[name.removesuffix(SPREAD) if name not in forecast.units else name]
        tags = {"variable": name, "units": unit, "attrs": json.dumps(forecast.attrs), AS_GIVEN: forecast.crs}

        def write(file: Path, maps: np.ndarray = maps, tags: dict[str, str] = tags, unit: str = unit) -> None:
            with rasterio.open(file, "w", **layout) as out:
                out.write(maps)
                out.update_tags(**tags)
                out.units = [unit] * len(forecast)
                for band, date in enumerate(forecast.dates, start=1):
                    out.set_band_description(band, date)

        written.append(write_by_name(Path(folder) / f"{name}{suffix}.tif", write))
    return written


def geotiff_system(forecast: Forecast) -> Any:
    """The grid's system for rasterio; ValueError where a GeoTIFF cannot hold the grid."""
    for name, axis in (("y", forecast.y), ("x", forecast.x)):
        usual = _cell_size(axis)
        even = axis[0] + usual * np.arange(len(axis))
        if usual == 0 or np.abs(axis - even).max() > EVEN * abs(usual):
            raise ValueError(f"{name} is not evenly spaced, which a GeoTIFF cannot hold; use the NetCDF file")
    system = known_system(forecast.crs)
    if system is None:
        return None
    if system.is_derived and not system.is_projected:
        raise ValueError("a GeoTIFF cannot hold a rotated pole; use the NetCDF file")
    return import_extra("rasterio.crs", "maps").CRS.from_user_input(forecast.crs)


def read_geotiff(path: str | Path) -> Forecast:
    """One variable from a file of `write_geotiff`; its coordinates are even and exact to rounding."""
    rasterio = import_extra("rasterio", "maps")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected maps as GeoTIFF")
    try:
        with rasterio.open(path) as file:
            tags, t = file.tags(), file.transform
            name = tags["variable"]
            return Forecast(
                values={name: file.read()},
                times=np.array(file.descriptions, dtype="datetime64"),
                y=t.f + t.e * (np.arange(file.height) + 0.5),
                x=t.c + t.a * (np.arange(file.width) + 0.5),
                units={name: tags["units"]},
                crs=tags[AS_GIVEN],
                attrs=json.loads(tags["attrs"]),
            )
    except (rasterio.errors.RasterioError, KeyError) as error:
        raise ValueError(f"{path} is no GeoTIFF of maps written by framecast ({error})") from None


def _cell_size(axis: np.ndarray) -> float:
    """Mean distance of neighbours, negative where the axis falls; 0 for one cell, whose size is unknown."""
    return float(axis[-1] - axis[0]) / (len(axis) - 1) if len(axis) > 1 else 0.0


# Points ---------------------------------------------------------------------------------------------


def at_points(forecast: Forecast, points: Sequence[tuple[float, float]]) -> Forecast:
    """The forecast with a row per point (y, x) and one column: what the cells round the points hold.

    Points in longitude and latitude are those of `to_grid`. Raises ValueError for one outside the maps. The
    rows stay in the points' order, so y and x of the result are only numbers 0, 1, …
    """
    rows, columns = np.array([forecast.cell(y, x) for y, x in points]).T
    cut = {name: maps[:, rows, columns][..., None] for name, maps in forecast.values.items()}
    spread = {name: maps[:, rows, columns][..., None] for name, maps in forecast.spread.items()}
    order = -np.arange(len(points), dtype=np.float64)
    return replace(forecast, values=cut, spread=spread, y=order, x=np.zeros(1), crs="")


def write_points_csv(
    forecast: Forecast, places: Sequence[tuple[str, float, float]], path: str | Path
) -> Path:
    """A row per place (name, latitude, longitude), variable and time, with the spread where there is one."""
    found = at_points(forecast, [to_grid(forecast, *place[1:]) for place in places])
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("place", "latitude", "longitude", "date", "variable", "unit", "value", "spread"))
    for i, (place, latitude, longitude) in enumerate(places):
        for name, maps in found.values.items():
            for step, date in enumerate(found.dates):
                value = _figure(maps[step, i, 0])
                spread = _figure(found.spread[name][step, i, 0]) if name in found.spread else ""
                where = (place, f"{latitude:.6g}", f"{longitude:.6g}")
                table.writerow((*where, date, name, found.units[name], value, spread))
    return write_file(path, text.getvalue())


def _figure(value: np.float32) -> str:
    """Shortest text that is read back to the same number; empty where nothing is known."""
    return "" if np.isnan(value) else str(value)
