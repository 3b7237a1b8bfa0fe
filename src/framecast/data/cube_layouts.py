"""Finds what a path names as a cube: a YAML, a store with a YAML beside it, or a data set as published.

FireCube: daily Greece at 1 km (Prapas, Kondylatos, Papoutsis; CC-BY 4.0, https://doi.org/10.5281/zenodo.6475592)
as one Zarr or NetCDF. It is recognised by its variables, and described with the ten dynamic and five static
variables and the ten shares of land cover that LOAN reads, scaled by the ranges of its released weights.
TerrSysMP-NET: weeks of a climate simulation as a folder of NetCDF files, see tsmp_weeks.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from framecast.data.cube_settings import (
    CubeSettings,
    CubeSplit,
    CubeVariable,
    inside_folder,
    read_cube_settings,
)
from framecast.data.cube_store import CubeError, Store, XarrayStore, is_zarr
from framecast.data.cube_units import UNITS, unit_name
from framecast.data.danger_patches import RELEASED_RANGES, USED_DYNAMIC, USED_STATIC

# What LOAN calls a variable -> names in the published cubes. {year}: a map per year.
FIRECUBE = {
    "1 km 16 days NDVI": ("1 km 16 days NDVI", "ndvi"),
    "LST_Day_1km": ("LST_Day_1km", "lst_day"),
    "LST_Night_1km": ("LST_Night_1km", "lst_night"),
    "era5_max_d2m": ("era5_max_d2m", "max_d2m"),
    "era5_max_t2m": ("era5_max_t2m", "max_t2m"),
    "era5_max_sp": ("era5_max_sp", "max_sp"),
    "era5_max_tp": ("era5_max_tp", "max_tp"),
    "sminx": ("sminx",),
    "era5_max_wind_speed": ("era5_max_wind_speed", "max_wind_speed"),
    "era5_min_rh": ("era5_min_rh", "min_rh"),
    "dem_mean": ("dem_mean", "DEM"),
    "slope_mean": ("slope_mean", "SLOPE"),
    "roads_distance": ("roads_distance", "ROAD_DISTANCE"),
    "waterway_distance": ("waterway_distance", "WATERWAY_DISTANCE"),
    "population_density": ("population_density_{year}", "POP_DENS_{year}", "population_density"),
}
COVER = ("CLC_{year}_%d", "clc_{year}_%d", "clc_%d")
BURNT = "burned_areas"
PUBLISHED_UNITS = {
    **dict.fromkeys(("LST_Day_1km", "LST_Night_1km", "era5_max_d2m", "era5_max_t2m"), "K"),
    "era5_max_sp": "Pa",
    "era5_max_tp": "m",
    "era5_max_wind_speed": "m s-1",
    "dem_mean": "m",
}
# Ranges are in the units of the training samples; a cube may hold NDVI unscaled, percent or metres.
OTHER_FACTORS = {
    "1 km 16 days NDVI": (1e8, 1e4, 1.0),
    "era5_min_rh": (1.0, 0.01),
    "roads_distance": (1.0, 1e-3),
    "waterway_distance": (1.0, 1e-3),
}
FIRECUBE_SPLITS = {
    "train": CubeSplit(years=tuple(range(2009, 2019))),
    "val": CubeSplit(years=(2019,)),
    "test": CubeSplit(years=(2020, 2021)),
}


def find_cube(path: Path, settings: CubeSettings | None = None) -> tuple[Store, CubeSettings, Path]:
    """Store, settings and the path for messages; FileNotFoundError or CubeError where there is none."""
    if settings is not None:
        return open_store(path), settings, path
    if path.suffix.lower() in (".yaml", ".yml"):
        return _by_yaml(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected a cube's YAML, Zarr or NetCDF")
    beside = [path.with_suffix(".yaml"), path.with_name(path.name + ".yaml")]
    if path.is_dir() and not is_zarr(path):
        beside = [path / "cube.yaml", *beside]
    for candidate in beside:
        if candidate.is_file():
            return _by_yaml(candidate, path)
    common = path.parent / "cube.yaml"
    if common.is_file():
        found = read_cube_settings(common)
        if found.store and inside_folder(found.store, common).resolve() == path.resolve():
            return _by_yaml(common)
    from framecast.data.tsmp_weeks import TsmpWeeks, is_tsmp

    if is_tsmp(path):
        weeks = TsmpWeeks(path)
        return weeks, weeks.settings(), path
    store = open_store(path)
    if is_firecube(store):
        return store, firecube_settings(store), path
    raise CubeError(
        f"{path} has no YAML beside it ({beside[0].name}) and is not published FireCube or TerrSysMP-NET; "
        "write a YAML that names its variables and their roles"
    )


def _by_yaml(path: Path, store: Path | None = None) -> tuple[Store, CubeSettings, Path]:
    settings = read_cube_settings(path)
    if settings.store:
        store = inside_folder(settings.store, path)
    if store is None or store == path:
        raise CubeError(f"{path} names no store; write `store: cube.zarr`")
    if not store.exists() and not set("*?[") & set(str(store)):
        raise FileNotFoundError(f"{path}: its store {settings.store!r} does not exist ({store})")
    return open_store(store), settings, path


def open_store(path: Path) -> Store:
    """Zarr or one NetCDF file, a folder of NetCDF files, or a folder of GeoTIFFs."""
    if path.is_dir() and not is_zarr(path):
        from framecast.data.cube_folders import open_folder

        return open_folder(path)
    return XarrayStore(path)


# FireCube -------------------------------------------------------------------------------------------


def is_firecube(store: Store) -> bool:
    """Whether at least the burnt areas and half of the variables have FireCube's names."""
    names = set(store.variables)
    known = sum(any(_matching(alias, names) for alias in aliases) for aliases in FIRECUBE.values())
    return BURNT in names and known >= len(FIRECUBE) // 2


def firecube_settings(store: Store) -> CubeSettings:
    """FireCube as published, as LOAN's released weights read it; CubeError names what is not there."""
    variables = firecube_variables(store.variables, str(store.path))
    for key, factors in OTHER_FACTORS.items():
        variable = variables[key]
        factor = _factor(_peek(store, variable), RELEASED_RANGES[key][1], factors)
        least, largest = (limit / factor for limit in RELEASED_RANGES[key])
        variables[key] = variable.model_copy(update={"least": least, "largest": largest})
    for key, unit in PUBLISHED_UNITS.items():
        stored = store.variables[str(variables[key].name)]
        declared = unit_name(str(stored.attrs.get("units", unit)))
        if declared in UNITS and UNITS[declared][0] == UNITS[unit][0]:
            variables[key] = variables[key].model_copy(update={"unit": unit})
    return CubeSettings(variables=variables, land=variables["dem_mean"].name, splits=FIRECUBE_SPLITS)


def firecube_variables(names: Iterable[str], source: str = "the cube") -> dict[str, CubeVariable]:
    """LOAN's variables in its order, under the names that a cube has, scaled by the released ranges."""
    names = set(names)
    found: dict[str, CubeVariable] = {}
    for key in (*USED_DYNAMIC, *USED_STATIC):
        name = _first(FIRECUBE[key], names, source)
        least, largest = RELEASED_RANGES[key]
        role = "dynamic" if key in USED_DYNAMIC else "static"
        found[key] = CubeVariable(
            role=role, name=name, least=least, largest=largest, per_year="{year}" in name
        )
    for code in range(10):
        name = _first(tuple(pattern % code for pattern in COVER), names, source)
        found[f"clc_{code}"] = CubeVariable(
            role="static", name=name, scale="none", per_year="{year}" in name, share_of="land_cover"
        )
    found[BURNT] = CubeVariable(role="target", name=_first((BURNT,), names, source), scale="none")
    return found


def _first(aliases: tuple[str, ...], names: set[str], source: str) -> str:
    found = next((alias for alias in aliases if _matching(alias, names)), None)
    if found is None:
        raise CubeError(f"{source} has none of {', '.join(map(repr, aliases))}, which FireCube has")
    return found


def _matching(alias: str, names: set[str]) -> list[str]:
    """Names that an alias stands for, earliest year first."""
    if "{year}" not in alias:
        return [alias] if alias in names else []
    pattern = re.compile(re.escape(alias).replace(re.escape("{year}"), r"\d{4}"))
    return sorted(name for name in names if pattern.fullmatch(name))


def _peek(store: Store, variable: CubeVariable) -> np.ndarray:
    """One map of a variable, of the middle of the time."""
    name = _matching(str(variable.name), set(store.variables))[-1]
    sizes = store.variables[name].sizes
    return store.read(name, {"time": sizes["time"] // 2} if "time" in sizes else {})


def _factor(values: np.ndarray, largest: float, factors: tuple[float, ...]) -> float:
    """From the cube's unit to that of the ranges: the largest factor that stays within them, or nearly."""
    known = values[np.isfinite(values)]
    top = float(np.abs(known).max()) if known.size else largest
    fitting = [factor for factor in factors if top * factor <= 1.5 * largest]
    return max(fitting) if fitting else min(factors)
