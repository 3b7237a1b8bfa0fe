"""Writes made-up cubes of climate and vegetation by week, and the look-alike of TerrSysMP-NET's folder.

Rain and heat fill and empty the soil; what grows answers to the soil of the weeks before, grass at once and
forest slowly; the surface is warmer where less grows. So the vegetation some weeks ahead can be forecast from
the weather so far, better where the soil is known. No value is real.
Shapes: T weeks, H rows, W columns; rows are stored from south to north, as climate models have them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.cube_settings import CubeSettings, CubeSplit, CubeVariable, save_cube_settings
from framecast.data.drought_weeks import RIM, SIMULATED, SOIL_LEVELS, STATIC, channel_names
from framecast.data.synthetic_land import make_land, smooth_field
from framecast.extras import import_extra
from framecast.writing import fill_folder

CLIMATE = {"tas": "K", "pr": "mm d-1", "hurs": "%", "rsds": "W m-2", "mrso": "1"}
SEEN = {"ndvi": "1", "bt": "K"}  # by satellites
UNITS = CLIMATE | SEEN
SOUTH, WEST, CELL = 44.0, 6.0, 0.11


def write_drought_cube(
    folder: str | Path, weeks: int = 8 * 52, cells: int | tuple[int, int] = 32, seed: int = 0
) -> Path:
    """Write `cube.nc` and `cube.yaml` into a folder, and return the path of the YAML.

    A week in fifty-two of the year; the last two years are `val` and `test` where there are three or more.
    """
    height, width = (cells, cells) if isinstance(cells, int) else cells
    if weeks < 12 or min(height, width) < 8:
        raise ValueError(f"{weeks} weeks of {height} x {width} cells are too few; at least 12 of 8 x 8")
    maps, still = simulate(weeks, height, width, np.random.default_rng(seed))
    times = week_ends(2000, weeks)
    _write(Path(folder), maps, still, times, _settings(times, UNITS))
    return Path(folder) / "cube.yaml"


def write_projection_cubes(
    folder: str | Path,
    years: tuple[int, int] = (10, 30),
    cells: tuple[int, int] = (24, 28),
    seed: int = 0,
    warming: float = 0.8,
) -> tuple[Path, Path]:
    """Write `past/` and `future/` of one land, as the past and the projection of a climate model.

    years: of the past, from 2000 on, which was observed; and of the future, from 2030 on, whose YAML names no
    observations (`grown.yaml` beside it does: what really grew, as its split `test`). It warms by so many
    degrees a decade throughout. Returns the paths of both YAMLs.
    """
    paths = []
    for name, first, count in (("past", 2000, years[0]), ("future", 2030, years[1])):
        rng, weather = np.random.default_rng(seed), np.random.default_rng([seed, first])
        maps, still = simulate(
            52 * count, *cells, rng, weather=weather, warmer=(warming * (first - 2000) / 10, warming)
        )
        times, own = week_ends(first, 52 * count), Path(folder) / name
        settings = _settings(times, CLIMATE, observed=name == "past")
        _write(own, maps, still, times, settings)
        paths.append(own / "cube.yaml")
        if name == "future":
            everything = {"test": CubeSplit(years=tuple(range(first, first + count)))}
            grown = _settings(times, CLIMATE).model_copy(update={"splits": everything})
            save_cube_settings(grown, own / "grown.yaml")
    return paths[0], paths[1]


def _write(
    folder: Path,
    maps: dict[str, np.ndarray],
    still: dict[str, tuple[np.ndarray, str]],
    times: np.ndarray,
    settings: CubeSettings,
) -> None:
    xarray = import_extra("xarray")
    data: dict[str, Any] = {
        name: (("time", "lat", "lon"), values, {"units": UNITS[name]}) for name, values in maps.items()
    }
    data |= {
        name: (("lat", "lon"), values.astype(np.float32), {"units": unit})
        for name, (values, unit) in still.items()
    }
    weeks, height, width = maps["tas"].shape
    dataset = xarray.Dataset(
        data,
        coords={
            "time": times.astype("datetime64[ns]"),
            "lat": ("lat", SOUTH + CELL * np.arange(height), {"units": "degrees_north"}),
            "lon": ("lon", WEST + CELL * np.arange(width), {"units": "degrees_east"}),
        },
        attrs={"title": "Drought cube", "source": "synthetic, made by framecast; no value is real"},
    )

    def write(temporary: Path) -> None:
        chunk = min(16, weeks), min(64, height), min(64, width)
        encoding: dict[str, Any] = {n: {"chunksizes": chunk, "zlib": True, "complevel": 1} for n in maps}
        encoding["time"] = {"units": "days since 2000-01-01", "dtype": "int64"}
        dataset.to_netcdf(temporary / "cube.nc", encoding=encoding, engine="h5netcdf")
        save_cube_settings(settings, temporary / "cube.yaml")

    fill_folder(folder, write)


def _settings(times: np.ndarray, read: dict[str, str], *, observed: bool = True) -> CubeSettings:
    """read: dynamic variables and their units; observed: there are targets, and years to train on."""
    dynamic = {name: CubeVariable(role="dynamic", unit=unit, scale="standard") for name, unit in read.items()}
    static = {
        "orog": CubeVariable(role="static", unit="m", scale="standard"),
        "soil_capacity": CubeVariable(role="static", scale="standard"),
        "forest": CubeVariable(role="static", scale="none"),
    }
    targets = {
        "NDVI": CubeVariable(role="target", name="ndvi", unit="1", scale="standard"),
        "BT": CubeVariable(role="target", name="bt", unit="K", scale="standard"),
    }
    years = sorted({int(str(day)[:4]) for day in times})
    cut = -2 if len(years) >= 3 else len(years)
    splits = {"train": CubeSplit(years=tuple(years[:cut]))} if observed else {}
    if observed and len(years) >= 3:
        splits |= {"val": CubeSplit(years=(years[-2],)), "test": CubeSplit(years=(years[-1],))}
    return CubeSettings(
        store="cube.nc",
        y="lat",
        x="lon",
        crs="EPSG:4326",
        land="land",
        variables=dynamic | static | (targets if observed else {}),
        splits=splits,
        num_days=8,
        lead=1,
    )


def week_ends(year: int, count: int) -> np.ndarray:
    """The last days of the weeks, 52 of a year: (T,) datetime64[D]."""
    return np.array(
        [np.datetime64(f"{year + i // 52}-01-01") + 7 * (i % 52) + 6 for i in range(count)], "datetime64[D]"
    )


def simulate(
    weeks: int,
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    weather: np.random.Generator | None = None,
    warmer: tuple[float, float] = (0.0, 0.0),
) -> tuple[dict[str, np.ndarray], dict[str, tuple[np.ndarray, str]]]:
    """Maps by week (T, H, W) and what does not change (H, W) with its unit; NaN at sea.

    rng: makes the land, and the weather too where that has no generator of its own. warmer: degrees at the
    start, and by how many it warms in a decade.
    """
    land = make_land(height, width, rng)
    capacity = np.clip(0.8 + 0.25 * smooth_field((height, width), rng, 2.0), 0.3, 1.6)
    forest = land.cover[6]
    soil = np.full((height, width), 0.6)
    green = np.full((height, width), 0.45)
    region, drift = np.zeros(2), smooth_field((height, width), rng, 2.5)
    found: dict[str, list[np.ndarray]] = {name: [] for name in UNITS}
    rng = weather or rng
    for week in range(weeks):
        of_year = week % 52
        summer = -np.cos(2 * np.pi * (of_year - 3) / 52)
        region = 0.75 * region + 0.66 * rng.standard_normal(2)  # a wet or dry, warm or cold spell
        drift = 0.8 * drift + 0.6 * smooth_field((height, width), rng, 2.5)
        warming = warmer[0] + warmer[1] * week / 520
        tas = 284 + warming + 9.5 * summer + 2.0 * region[0] + drift - 0.0065 * land.height
        wet = np.exp(0.4 - 0.5 * summer + 0.8 * region[1] + 0.4 * drift)
        pr = wet * rng.gamma(1.5, 0.7) * (1 + land.height / 2000)
        loss = (
            0.02
            * np.maximum(tas - 275, 0) ** 0.8
            * (0.4 + green)
            * np.clip(soil, 0, 1)
            / (capacity + 0.4)
        )  # fmt: skip
        soil = np.clip(soil + 0.022 * pr / capacity - loss, 0.02, 1.0)
        season = 0.2 * np.clip(summer + 0.3, -1, 1)
        goal = 0.32 + 0.3 * forest + season + 0.45 * (np.clip(soil, 0, 0.6) - 0.35) * (1.3 - forest)
        green = green + (np.clip(goal, 0.02, 0.95) - green) * (0.35 - 0.22 * forest)
        rsds = 150 + 110 * summer - 12 * region[1] + np.zeros_like(tas)
        bt = tas + 1.5 + (7.0 + 5.0 * summer) * (0.9 - green)
        hurs = np.clip(68 - 12 * summer + 8 * region[1] + 2 * drift + 12 * (soil - 0.5), 5, 100)
        seen = {"ndvi": green + 0.01 * rng.standard_normal(green.shape), "bt": bt}
        clouds = smooth_field((height, width), rng, 2.0) > 2.0  # a week without a clear view
        maps = {"tas": tas, "pr": pr, "hurs": hurs, "rsds": rsds, "mrso": soil}
        maps |= {name: np.where(clouds, np.nan, values) for name, values in seen.items()}
        for name, values in maps.items():
            at_sea = name in ("mrso", "ndvi", "bt")
            found[name].append(np.where(land.sea & at_sea, np.nan, values).astype(np.float32))
    still = {
        "orog": (land.height, "m"),
        "land": (1.0 - land.sea, "1"),
        "soil_capacity": (capacity, "1"),
        "forest": (forest, "1"),
    }
    return {name: np.stack(maps) for name, maps in found.items()}, still


def write_tsmp_folder(
    folder: str | Path,
    years: tuple[int, ...] = (1989, 2010, 2012),
    weeks: int = 3,
    cells: int = 30,
    seed: int = 0,
) -> Path:
    """Write a folder of weekly files in TerrSysMP-NET's layout, noise apart from NDVI and BT; returns it.

    cells: side with the rim of 7 cells at each border.
    """
    if cells <= 2 * RIM + 1:
        raise ValueError(f"{cells} cells leave nothing within a rim of {RIM}")
    xarray = import_extra("xarray")
    rng = np.random.default_rng(seed)
    maps, still = simulate(52, cells, cells, rng)
    plane = ("rlat", "rlon")
    axes = {"rlat": -23.48 + CELL * np.arange(cells), "rlon": -28.48 + CELL * np.arange(cells)}

    def write(root: Path) -> None:
        for year in years:
            for week in range(1, weeks + 1):
                save(root / f"{year}/{year}{week:03d}.nc", one_week(week))
        names = channel_names(SIMULATED)
        mean = {name: 280.0 if name == "tas" else 0.0 for name in names}
        std = {name: 10.0 if name == "tas" else 1.0 for name in names}
        low, high = ({name: sign * 3.0 for name in names} for sign in (-1, 1))
        text = json.dumps({"min": low, "max": high, "mean": mean, "std": std})
        (root / "mean_std_train.json").write_text(text, encoding="utf-8")
        for name, source in (("SMN", maps["ndvi"]), ("SMT", maps["bt"])):
            maps[name] = source
        limits = {
            key: (("week", "kind", *plane), np.repeat(_five(maps[key])[None], 52, axis=0))
            for key in ("SMN", "SMT")
        }
        save(root / "climatology_1989_2016.nc", limits)
        sea = (1 - still["land"][0]).astype(np.uint8)
        masks = {"mask_sea": (plane, sea), "mask_no_vegetation": (plane, 0 * sea)}
        save(root / "mask_valid_pixels.nc", masks)
        maps_of = {name: (plane, rng.normal(size=(cells, cells)).astype(np.float32)) for name in STATIC}
        maps_of["HSURF"] = plane, still["orog"][0].astype(np.float32)
        save(root / "static_variables.nc", maps_of)

    def one_week(week: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for name in SIMULATED:
            shape = (7, SOIL_LEVELS, cells, cells) if name == "sgw" else (7, cells, cells)
            values = rng.normal(size=shape).astype(np.float32)
            if name == "tas":
                values = values + maps["tas"][week - 1]
            data[name] = ("time", "lev", *plane) if name == "sgw" else ("time", *plane), values
        data["SMN"] = plane, maps["ndvi"][week - 1]
        data["SMT"] = plane, maps["bt"][week - 1]
        data["mask_cold_surface"] = plane, (maps["tas"][week - 1] < 273).astype(np.uint8)
        return data

    def save(path: Path, data: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        xarray.Dataset(data, coords=axes).to_netcdf(path, engine="h5netcdf")

    fill_folder(Path(folder), write)
    return Path(folder)


def _five(values: np.ndarray) -> np.ndarray:
    """(5, H, W): least, largest, mean, and two more, of which readers use the first three."""
    known = np.where(np.isnan(values), np.nanmean(values), values)
    return np.stack([known.min(0), known.max(0), known.mean(0), known.std(0), known.mean(0)]).astype(
        np.float32
    )
