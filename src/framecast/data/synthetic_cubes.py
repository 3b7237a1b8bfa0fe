"""Writes made-up cubes that look like the public ones, so that everything runs offline.

The fire cube has FireCube's variables, names and units on an island with a mountain range. Weather moves
between days, soil dries and is wetted by rain, plants answer to both. Where a cell burns tomorrow depends on
today's weather in a way that its land decides: forests burn after long drought and heat, scrub in dry wind,
the more so on slopes, fields at harvest; roads and people light most fires. So a model must read the weather
in the light of the place. Wind, rain, temperature and the like are plausible for Greece; no value is real.
Shapes: T days, H rows, W columns.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from framecast.data.cube_layouts import firecube_variables
from framecast.data.cube_settings import CubeSettings, CubeSplit, save_cube_settings
from framecast.data.cube_writing import ZarrWriter
from framecast.data.synthetic_drought import write_drought_cube
from framecast.data.synthetic_land import CLASSES, Land, make_land
from framecast.data.synthetic_weather import FireWeather
from framecast.writing import fill_folder

__all__ = ["time_splits", "write_drought_cube", "write_fire_cube"]

NORTH, WEST, CELL = 39.5, 21.0, 0.01  # degrees
BLOCK = 32  # days that are in memory at a time

# Names, units and long names in the store, as in FireCube.
DYNAMIC = {
    "ndvi": ("1e-8", "NDVI, 16 days"),
    "lst_day": ("K", "land surface temperature by day"),
    "lst_night": ("K", "land surface temperature at night"),
    "max_d2m": ("K", "largest dew point at 2 m"),
    "max_t2m": ("K", "largest temperature at 2 m"),
    "max_sp": ("Pa", "largest surface pressure"),
    "max_tp": ("m", "largest precipitation"),
    "sminx": ("1", "soil moisture index"),
    "max_wind_speed": ("m s-1", "largest wind speed"),
    "min_rh": ("1", "least relative humidity"),
}
STATIC = {
    "DEM": ("m", "height"),
    "SLOPE": ("degree", "slope"),
    "ROAD_DISTANCE": ("km", "distance to the next road"),
    "WATERWAY_DISTANCE": ("km", "distance to the next waterway"),
}


def write_fire_cube(
    folder: str | Path,
    days: int = 3 * 365,
    cells: int | tuple[int, int] = 48,
    seed: int = 0,
    *,
    start: str = "2018-01-01",
    sea: bool = True,
) -> Path:
    """Write `cube.zarr` and `cube.yaml` into a folder, and return the path of the YAML.

    cells: side, or rows and columns. The splits are whole years where there are three or more (the last two
    are `val` and `test`), else 60, 20 and 20 % of the days. The store's `hidden_danger` is the probability
    that a fire starts, which no model reads: the best that a forecast can do.
    """
    height, width = (cells, cells) if isinstance(cells, int) else cells
    if days < 12 or min(height, width) < 8:
        raise ValueError(f"{days} days of {height} x {width} cells are too few; at least 12 of 8 x 8")
    folder, rng = Path(folder), np.random.default_rng(seed)
    times = np.datetime64(start) + np.arange(days)
    land = make_land(height, width, rng, sea=sea)
    settings = CubeSettings(
        store="cube.zarr",
        crs="EPSG:4326",
        land="DEM",
        variables=firecube_variables(
            (*DYNAMIC, *STATIC, *_covers(times), *_population(times), "burned_areas")
        ),
        splits=time_splits(times),
    )

    def write(temporary: Path) -> None:
        y, x = NORTH - CELL * np.arange(height), WEST + CELL * np.arange(width)
        note = "synthetic, made by framecast; no value is real"
        writer = ZarrWriter(
            temporary / "cube.zarr", times, y, x, attrs={"title": "Fire cube", "source": note}
        )
        _write_land(writer, land, times)
        for name, (unit, long_name) in DYNAMIC.items():
            writer.add(name, ("time", "y", "x"), {"units": unit, "long_name": long_name})
        writer.add("burned_areas", ("time", "y", "x"), {"units": "1", "long_name": "burnt on this day"})
        writer.add(
            "hidden_danger", ("time", "y", "x"), {"units": "1", "long_name": "chance that a fire starts"}
        )
        weather = FireWeather(land, rng)
        for first in range(0, days, BLOCK):
            part = times[first : first + BLOCK]
            for name, values in weather.block(part).items():
                writer.put(name, values, slice(first, first + len(part)))
        save_cube_settings(settings, temporary / "cube.yaml")

    fill_folder(folder, write)
    return folder / "cube.yaml"


def _write_land(writer: ZarrWriter, land: Land, times: np.ndarray) -> None:
    maps = dict(zip(STATIC, (land.height, land.slope, land.roads, land.water), strict=True))
    for name, values in maps.items():
        unit, long_name = STATIC[name]
        writer.add(name, ("y", "x"), {"units": unit, "long_name": long_name})
        writer.put(name, np.where(land.sea & (name == "DEM"), np.nan, values))
    for place, name in enumerate(_population(times)):
        writer.add(name, ("y", "x"), {"units": "humans/km2", "long_name": "people"})
        writer.put(name, land.people * (1 + 0.01 * place))
    for name in _covers(times):
        writer.add(name, ("y", "x"), {"units": "1", "long_name": "share of a class of land cover"})
        writer.put(name, land.cover[int(name.rpartition("_")[2])])


def _covers(times: np.ndarray) -> tuple[str, ...]:
    return tuple(f"CLC_2018_{code}" for code in range(CLASSES))


def _population(times: np.ndarray) -> tuple[str, ...]:
    years = np.unique(times.astype("datetime64[Y]")).astype(str)
    return tuple(f"POP_DENS_{year}" for year in years)


def time_splits(times: np.ndarray) -> dict[str, CubeSplit]:
    """train, val and test: whole years where there are three, else 60, 20 and 20 % of the time."""
    days = times.astype("datetime64[D]")
    years = sorted({int(str(day)[:4]) for day in days})
    whole = days.astype("datetime64[Y]")
    usual = max((whole == np.datetime64(str(year))).sum() for year in years)
    full = [year for year in years if (whole == np.datetime64(str(year))).sum() > 0.8 * usual]
    if len(full) >= 3:
        *train, val, test = full
        return {
            "train": CubeSplit(years=tuple(train)),
            "val": CubeSplit(years=(val,)),
            "test": CubeSplit(years=(test,)),
        }
    cuts = [0, int(0.6 * len(days)), int(0.8 * len(days)), len(days)]
    return {
        name: CubeSplit(first=days[a].item(), last=days[b - 1].item())
        for name, (a, b) in zip(("train", "val", "test"), pairwise(cuts), strict=True)
    }
