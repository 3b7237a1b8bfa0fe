"""Weeks of TerrSysMP-NET: a regional climate simulation (TSMP) and what satellites saw of vegetation.

Source: Shams Eddin, Gall, GMD 2024 (https://doi.org/10.5194/gmd-17-2987-2024); satellite data NOAA/STAR, at
https://doi.org/10.5281/zenodo.10008814. Layout of the folder:

    {year}/{year}{week:03d}.nc        variables (7 days, [15 levels,] rlat, rlon), SMN = NDVI and SMT = BT
    mean_std_train.json               {min, max, mean, std} -> variable; levels are sgw_1 … sgw_15
    climatology_1989_2016.nc          SMN, SMT (52 weeks, [min, max, mean, …], rlat, rlon)
    mask_valid_pixels.nc, static_variables.nc

Files hold rows from south to north; samples have north first, without the rim where the simulation is driven.
Shapes: D days, S satellites, H rows, W columns, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from framecast.data.vegetation_indices import COLD, drought_class, tci, vci, vhi

# fmt: off
SIMULATED = (
    "awt", "capec", "capeml", "ceiling", "cli", "clt", "clw", "evspsbl", "hfls", "hfss", "hudiv",
    "hur2", "hur200", "hur500", "hur850", "hus2", "hus200", "hus500", "hus850", "incml", "pr", "prc",
    "prg", "prsn", "prso", "prt", "ps", "psl", "rlds", "sgw", "snt", "ta200", "ta500", "ta850", "tas",
    "tch", "td2", "trspsbl", "ua200", "ua500", "ua850", "uas", "va200", "va500", "va850", "vas", "wtd",
    "zg200", "zg500", "zg850", "zmla",
)
# fmt: on
STATIC = ("FR_LAND", "HSURF", "ZBOT", "DIS_SEA", "ROUGHNESS", "SLOPE")
SOIL_LEVELS = 15
RIM = 7  # cells at each side
# standardised z -> value: offset + scale z
SCALING = {"NDVI": (0.20188083, 0.14982702), "BT": (289.30905, 17.59524)}
FAR_OFF = 15.0  # predictions are kept within so many deviations
YEARS = {
    "train": (*range(1989, 2010), *range(2013, 2017)),
    "validation": (2010, 2011, 2017),
    "test": (2012, 2018, 2019),  # 2019 to week 35
}


@dataclass
class DroughtWeek:
    """One week: what the model reads, what it shall say, and what is needed to judge that."""

    variables: np.ndarray  # (C, H, W) float32, standardised, 0 where missing
    ndvi: np.ndarray  # (H, W) float32, NaN where missing
    bt: np.ndarray  # (H, W) float32, kelvin
    climatology: np.ndarray  # (10, H, W): min, max, mean and two more of NDVI, then of BT
    cold: np.ndarray  # (H, W) 1 = frozen or under snow
    sea: np.ndarray  # (H, W) 1 = sea
    no_vegetation: np.ndarray  # (H, W) 1 = nothing grows


def channel_names(variables: Sequence[str], static: Sequence[str] = ()) -> list[str]:
    """Names of the channels in order; the soil's levels take the place of their variable."""
    names: list[str] = []
    for name in variables:
        layered = name in ("sgw", "pgw")
        names += [f"{name}_{level}" for level in range(1, SOIL_LEVELS + 1)] if layered else [name]
    return [*names, *static]


def read_week(
    week: Mapping[str, Any],
    *,
    variables: Sequence[str] = SIMULATED,
    static: Mapping[str, Any],
    statistics: Mapping[str, Mapping[str, float]],
    climatology: Any,
    sea: Any,
    no_vegetation: Any,
    rim: int = RIM,
    days: Sequence[int] | None = None,
) -> DroughtWeek:
    """A sample from one week's arrays, all south first with the rim, as the files hold them.

    week: variable -> (D, [levels,] H, W), SMN, SMT and mask_cold_surface ([S,] H, W); xarray's do.
    static: name -> (H, W). statistics: {"mean", "std"} -> channel. climatology: (10, H, W) of that week.
    days: only these are averaged, all by default. Raises ValueError for variables that are not there.
    """
    missing = [name for name in (*variables, "SMN", "SMT", "mask_cold_surface") if name not in week]
    unknown = [
        n for n in channel_names(variables) if n not in statistics["mean"] or n not in statistics["std"]
    ]
    if missing or unknown:
        raise ValueError(
            f"the week has no variables {missing} and the statistics none of {unknown}; "
            "name the variables that there are"
        )
    channels = [day_mean(name, np.asarray(week[name]), days) for name in variables]
    data = np.concatenate([c if c.ndim == 3 else c[None] for c in channels])
    names = channel_names(variables)
    mean, std = (np.array([statistics[key][n] for n in names])[:, None, None] for key in ("mean", "std"))
    data = (data - mean) / std
    still = np.array([standardised(np.asarray(values)) for values in static.values()])
    data = np.concatenate([data, still.reshape(-1, *data.shape[1:])])
    masks = np.asarray(week["mask_cold_surface"])

    def placed(x: Any) -> np.ndarray:
        """North first, without the rim."""
        x = np.asarray(x, dtype=np.float32)[..., ::-1, :]
        return np.ascontiguousarray(x[..., rim : x.shape[-2] - rim, rim : x.shape[-1] - rim])

    return DroughtWeek(
        variables=placed(np.where(np.isfinite(data), data, 0.0)),
        ndvi=placed(over_satellites(week["SMN"])),
        bt=placed(over_satellites(week["SMT"])),
        climatology=placed(climatology),
        cold=placed(masks.max(0) if masks.ndim == 3 else masks),
        sea=placed(sea),
        no_vegetation=placed(no_vegetation),
    )


def day_mean(name: str, values: np.ndarray, days: Sequence[int] | None = None) -> np.ndarray:
    """Mean over the days that are there: (D, …) -> (…), NaN where there is none."""
    values = values.astype(np.float64)
    if name in ("sgw", "pgw"):  # far below what is possible: the simulation's sign for no value
        values[values < -1000] = np.nan
    if name == "clt":
        values[values < 0] = 0.0
    return nan_mean(values if days is None else values[list(days)])


def over_satellites(values: Any) -> np.ndarray:
    """Mean of what the satellites saw, ([S,] H, W) -> (H, W)."""
    values = np.asarray(values, dtype=np.float64)
    return nan_mean(values) if values.ndim == 3 else values


def nan_mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis without NaN; infinities stay, as in the release."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0.0).sum(0) / known.sum(0)


def standardised(values: np.ndarray) -> np.ndarray:
    """A static map by its own mean and deviation, over the whole domain with the rim."""
    values = values.astype(np.float64)
    spread = np.nanstd(values)
    return (values - np.nanmean(values)) / (spread if spread > 0 else 1.0)


def destandardise(z: Any, name: str) -> Any:
    """NDVI, or BT in kelvin, from a model's standardised answer."""
    offset, scale = SCALING[name]
    return offset + scale * np.clip(z, -FAR_OFF, FAR_OFF)


def augment(week: DroughtWeek, rng: np.random.Generator, noise: float = 0.01) -> DroughtWeek:
    """Half a turn, a mirror image (west to east), noise on all channels: each in half of the cases."""
    turned, mirrored, noisy = rng.random(3) < 0.5

    def moved(x: np.ndarray) -> np.ndarray:
        x = x[..., ::-1, ::-1] if turned else x
        return np.ascontiguousarray(x[..., ::-1] if mirrored else x)

    new = DroughtWeek(**{name: moved(values) for name, values in vars(week).items()})
    if noisy:
        drawn = rng.standard_normal(new.variables.shape).astype(np.float32)
        new.variables = new.variables + np.float32(noise) * drawn
    return new


@dataclass
class DroughtMaps:
    """Indices and classes of one week, beside those that the target gives."""

    values: dict[str, tuple[np.ndarray, np.ndarray]]  # (predicted, target), NaN where a cell does not count
    classes: tuple[np.ndarray, np.ndarray]  # (predicted, target) drought class of every cell


def judge_week(week: DroughtWeek, ndvi: np.ndarray, bt: np.ndarray) -> DroughtMaps:
    """What `DroughtMetrics` compares: NDVI, BT, their anomalies, VCI, TCI, VHI and classes.

    ndvi, bt: (H, W) predicted values (not standardised). Indices count where the target has a drought class;
    NDVI, BT and anomalies there and where it is cold, as in the release also on cold sea.
    """
    masked = (week.sea > 0) | (week.no_vegetation > 0)
    lowest, highest, usual = week.climatology[0:3]
    coolest, hottest, usual_bt = week.climatology[5:8]
    sides: list[dict[str, np.ndarray]] = []
    kinds: list[np.ndarray] = []
    for n, t in ((ndvi, bt), (week.ndvi, week.bt)):
        n, t = np.where(np.isnan(week.ndvi), np.nan, n), np.where(np.isnan(week.bt), np.nan, t)
        green, cool = vci(n, lowest, highest), tci(t, coolest, hottest)
        health = vhi(green, cool)
        kinds.append(drought_class(health, masked=masked, cold=week.cold))
        sides.append(
            {"NDVI": n, "BT": t, "NDVI_a": n - usual, "BT_a": t - usual_bt}
            | {"VCI": green, "TCI": cool, "VHI": health}
        )
    known = np.isfinite(kinds[1])
    judged = known & (kinds[1] != COLD)
    values = {}
    for key, ours in sides[0].items():
        counts = judged if key in ("VCI", "TCI", "VHI") else known
        values[key] = np.where(counts, ours, np.nan), np.where(counts, sides[1][key], np.nan)
    return DroughtMaps(values, (kinds[0], kinds[1]))
