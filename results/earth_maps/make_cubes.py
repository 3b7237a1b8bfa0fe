"""Turns the packed real series into NetCDF cubes with their YAML: what a user's own data looks like.

    python results/earth_maps/make_cubes.py DATA/earth runs/earth_maps/cubes

iberia: winter days 1982-2002. NCEP/NCAR Reanalysis 1 (public) interpolated to the grid of E-OBS, with the
temperature and rain that E-OBS observed (non-commercial research and education only; cite ECA&D E-OBS).
kilimanjaro, bale: half-monthly NDVI of GIMMS NDVI3g (Pinzon & Tucker 2014) at two mountains of East Africa.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml
from scipy.interpolate import RegularGridInterpolator

NDVI_SPLITS = {
    "train": {"last": "2000-12-31"},
    "val": {"first": "2001-01-01", "last": "2004-12-31"},
    "test": {"first": "2005-01-01"},
}
SPLITS = {
    "iberia": {  # whole winters
        "train": {"last": "1994-02-28"},
        "val": {"first": "1994-12-01", "last": "1997-02-28"},
        "test": {"first": "1997-12-01"},
    },
    "kilimanjaro": NDVI_SPLITS,
    "bale": NDVI_SPLITS,
}


def interpolated(values: np.ndarray, lat: np.ndarray, lon: np.ndarray, to: tuple[Any, Any]) -> np.ndarray:
    """Bilinear (T, H, W) -> (T, H', W'); beyond the outermost points the nearest counts."""
    y, x = (np.clip(new, old.min(), old.max()) for new, old in zip(to, (lat, lon), strict=True))
    grid = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
    found = RegularGridInterpolator((lat, lon), np.moveaxis(values.astype(np.float64), 0, -1))(grid)
    return np.moveaxis(found, -1, 0).astype(np.float32)


def unpacked(values: np.ndarray, packing: dict[str, float]) -> np.ndarray:
    known = values != packing["fill"]
    return np.where(known, values * np.float32(packing["scale"]), np.nan).astype(np.float32)


def iberia(source: Path, out: Path) -> None:
    packed = np.load(source / "iberia_daily_djf_1982_2002.npz", allow_pickle=False)
    meta = json.loads(str(packed["meta"]))
    lat, lon = packed["eobs_lat"].astype(np.float64), packed["eobs_lon"].astype(np.float64)
    units = {"psl": "Pa", "ta850": "K", "hus850": "kg kg-1", "tas": "degC", "pr": "mm day-1"}
    variables: dict[str, Any] = {}
    for name in units:
        values, y, x = (packed[f"ncep_{name}{end}"] for end in ("", "_lat", "_lon"))
        fine = interpolated(values, y.astype(np.float64), x.astype(np.float64), (lat, lon))
        if name == "pr":
            fine = np.sqrt(np.maximum(fine * 86400, 0))  # rain is skewed; its root is easier to read
        variables[f"ncep_{name}"] = (fine, "mm0.5 day-0.5" if name == "pr" else units[name])
    for name in ("tas", "pr"):
        variables[name] = (unpacked(packed[f"eobs_{name}"], meta["packing"][f"eobs_{name}"]), units[name])
    times = packed["date"].astype("datetime64[ns]")
    data = {
        key: (("time", "lat", "lon"), values, {"units": unit}) for key, (values, unit) in variables.items()
    }
    land = np.isfinite(variables["tas"][0]).any(0)
    data["land"] = (("lat", "lon"), land.astype(np.float32), {"units": "1"})
    described: dict[str, Any] = {
        key: {"role": "target" if key in ("tas", "pr") else "dynamic", "scale": "standard"}
        for key in variables
    }
    described["on_land"] = {"role": "static", "name": "land", "scale": "none"}
    write_cube(
        out / "iberia", data, {"time": times, "lat": lat, "lon": lon}, described, "iberia", land="land"
    )


def vegetation(source: Path, out: Path, key: str, name: str) -> None:
    packed = np.load(source / "gimms_ndvi3g_bale_kili.npz", allow_pickle=False)
    west, east, south, north = json.loads(str(packed["meta"]))[f"extent_{key}"]
    values = packed[key].astype(np.float32)
    values[values <= -0.3] = np.nan  # the product's sign for no value
    rows, columns = values.shape[1:]
    lat = north - (np.arange(rows) + 0.5) * (north - south) / rows
    lon = west + (np.arange(columns) + 0.5) * (east - west) / columns
    days = [f"{text[:7]}-{'08' if text.endswith('a') else '23'}" for text in packed[f"{key}_date"]]
    data = {"ndvi": (("time", "lat", "lon"), values, {"units": "1", "long_name": "GIMMS NDVI3g"})}
    coords = {"time": np.array(days, dtype="datetime64[ns]"), "lat": lat, "lon": lon}
    write_cube(out / name, data, coords, {"ndvi": {"role": "target"}}, name)


def write_cube(
    folder: Path,
    data: dict[str, Any],
    coords: dict[str, Any],
    variables: dict[str, Any],
    name: str,
    **more: Any,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cube = xr.Dataset(data, coords, {"Conventions": "CF-1.10", "title": name})
    cube["lat"].attrs = {"units": "degrees_north", "standard_name": "latitude"}
    cube["lon"].attrs = {"units": "degrees_east", "standard_name": "longitude"}
    cube.to_netcdf(folder / "maps.nc", engine="h5netcdf")
    described = {
        "store": "maps.nc",
        "y": "lat",
        "x": "lon",
        **more,
        "variables": variables,
        "splits": {split: dict(days) for split, days in SPLITS[name].items()},
    }
    (folder / "cube.yaml").write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    print(f"wrote {folder}: {dict(cube.sizes)}")


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    iberia(source, out)
    vegetation(source, out, "kili", "kilimanjaro")
    vegetation(source, out, "bale", "bale")


if __name__ == "__main__":
    main()
