"""Axes of a cube: which dimension is which, when and where its cells are, and what is wrong with them.

Shapes: T time steps, H rows, W columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.cube_settings import CubeSettings
from framecast.data.cube_store import CubeError, Store
from framecast.registry import did_you_mean

Say = Callable[[str], None]

# Names that files give to the axes, for settings that keep the default.
USUAL = {
    "time": ("time", "t", "date", "valid_time", "Time"),
    "y": ("y", "lat", "latitude", "rlat", "northing", "Y", "Latitude"),
    "x": ("x", "lon", "longitude", "rlon", "easting", "X", "Longitude"),
}
UNEVEN = 0.05  # share of the usual distance; Gaussian latitudes stay below it


@dataclass(frozen=True)
class Axes:
    """Names of the dimensions, and coordinates in the order in which they are handed out."""

    time: str
    y_name: str
    x_name: str
    times: np.ndarray  # (T,) datetime64[D], [h] or [s], or objects of another calendar (cftime)
    y: np.ndarray  # (H,) float64, north first
    x: np.ndarray  # (W,) float64, west first
    y_flipped: bool  # stored the other way round
    x_flipped: bool
    calendar: str | None = None


def refuse_in(path: Path) -> Say:
    """Raise the first problem as a CubeError that starts with the path."""

    def say(message: str) -> None:
        raise CubeError(f"{path}: {message}")

    return say


def read_axes(store: Store, settings: CubeSettings, say: Say | None = None) -> Axes:
    """Axes of a store; problems are raised, or told to `say` one by one.

    With `say`, a dimension that is not there or without numbers still raises, since nothing can follow.
    """
    refuse = refuse_in(store.path)
    say = say or refuse
    names = {}
    dims = sorted({dim for variable in store.variables.values() for dim in variable.dims})
    for axis, usual in USUAL.items():
        wanted = getattr(settings, axis)
        found = [wanted, *(usual if wanted == axis else ())]
        names[axis] = next((name for name in found if name in dims), "")
        if not names[axis]:
            near = did_you_mean(wanted, dims)
            refuse(
                f"no dimension {wanted!r}{near}; it has {', '.join(dims)}; write `{axis}: NAME` in the YAML"
            )
    times, calendar = _times(store, names["time"], say)
    y, x = (_places(store, names[axis], say) for axis in ("y", "x"))
    y_flipped, x_flipped = len(y) > 1 and y[1] > y[0], len(x) > 1 and x[1] < x[0]
    return Axes(
        *names.values(),
        times,
        y[::-1] if y_flipped else y,
        x[::-1] if x_flipped else x,
        bool(y_flipped),
        bool(x_flipped),
        calendar,
    )


def _times(store: Store, name: str, say: Say) -> tuple[np.ndarray, str | None]:
    values = store.coordinate(name)
    if values is None:
        raise CubeError(f"{store.path}: dimension {name!r} has no coordinate, so its steps have no date")
    calendar = store.calendar(name)
    if not len(values):
        raise CubeError(f"{store.path}: dimension {name!r} has no steps")
    if values.dtype.kind == "O" and hasattr(values[0], "calendar"):
        calendars = sorted({value.calendar for value in values})
        if len(calendars) > 1:
            raise CubeError(f"{store.path}: times of several calendars ({', '.join(calendars)}); use one")
        calendar = calendars[0]
    elif values.dtype.kind != "M":
        raise CubeError(
            f"{store.path}: {name} holds {values.dtype} without a date; CF has units such as "
            "'days since 2000-01-01'"
        )
    else:
        unknown = np.flatnonzero(np.isnat(values))
        if len(unknown):
            raise CubeError(f"{store.path}: {name} has no date at step {unknown[0]}")
        values = _coarsest(values)
    steps = np.diff(values)
    zero = steps[0] * 0 if len(steps) else None
    wrong = np.flatnonzero([bool(step <= zero) for step in steps])
    if len(wrong):
        first, when = wrong[0] + 1, dates_of(values[wrong[:1] + 1])[0]
        if steps[wrong[0]] == zero:
            say(f"time {when} is there twice (steps {first - 1} and {first}); keep one of them")
        else:
            say(f"times are not in order: {when} at step {first} is before that at {first - 1}; sort them")
    return values, calendar


def _coarsest(times: np.ndarray) -> np.ndarray:
    """Days where there is one time per day at the same hour, else hours, else seconds."""
    days = times.astype("datetime64[D]")
    if len(np.unique(times - days)) == 1:
        return days
    hours = times.astype("datetime64[h]")
    return hours if np.array_equal(hours, times) else times.astype("datetime64[s]")


def _places(store: Store, name: str, say: Say) -> np.ndarray:
    values = store.coordinate(name)
    if values is None or values.dtype.kind not in "fiu":
        kind = "no coordinate" if values is None else f"a coordinate of type {values.dtype}"
        raise CubeError(f"{store.path}: dimension {name!r} has {kind}; expected its positions as numbers")
    values = values.astype(np.float64)
    if not len(values):
        raise CubeError(f"{store.path}: dimension {name!r} has no cells")
    unknown = np.flatnonzero(~np.isfinite(values))
    if len(unknown):
        raise CubeError(f"{store.path}: coordinate {name} is {values[unknown[0]]} at {unknown[0]}")
    steps = np.diff(values)
    if len(steps) and (steps == 0).any():
        say(f"coordinate {name} holds {values[np.flatnonzero(steps == 0)[0]]:g} twice")
    elif len(steps) and (np.sign(steps) != np.sign(steps[0])).any():
        place = int(np.flatnonzero(np.sign(steps) != np.sign(steps[0]))[0]) + 1
        say(f"coordinate {name} turns round at {place} ({values[place]:g}); it must go one way")
    elif len(steps):
        usual = float(np.median(steps))
        odd = np.flatnonzero(np.abs(steps - usual) > UNEVEN * abs(usual))
        if len(odd):
            say(
                f"coordinate {name} is not evenly spaced: {abs(steps[odd[0]]):g} after {values[odd[0]]:g}, "
                f"usually {abs(usual):g}; regrid the cube"
            )
    return values


def dates_of(times: np.ndarray) -> list[str]:
    """ "2021-07-02", or with hours where there are several steps a day; any calendar."""
    if times.dtype.kind == "M":
        return [str(when) for when in times]
    return [when.strftime("%Y-%m-%d") for when in times]


SEASONS = ("DJF", "MAM", "JJA", "SON")


def season_of(time: Any) -> str:
    """DJF, MAM, JJA or SON of a datetime64 or cftime date."""
    month = int(str(np.datetime64(time, "M"))[5:7]) if isinstance(time, np.datetime64) else time.month
    return SEASONS[month % 12 // 3]


def within(region: Sequence[float], y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(H, W) bool: cells whose middle lies in [west, south, east, north]."""
    west, south, east, north = region
    return ((y >= south) & (y <= north))[:, None] & ((x >= west) & (x <= east))[None]


def runs(times: Any, count: int) -> Iterator[slice]:
    """Times as slices of neighbours, so that each is one read."""
    try:
        chosen = np.arange(count)[times]
    except IndexError:
        raise ValueError(f"time steps {times} are asked, but the cube has 0..{count - 1}") from None
    chosen = np.atleast_1d(chosen)
    if not len(chosen):
        yield slice(0, 0)
        return
    cuts = np.flatnonzero(np.diff(chosen) != 1) + 1
    for part in np.split(chosen, cuts):
        yield slice(int(part[0]), int(part[-1]) + 1)


def flipped(part: slice, count: int, flip: bool) -> slice:
    """Where cells `part` (north or west first) lie in a store; to be turned round after reading if flip."""
    start, stop, step = part.indices(count)
    if step != 1:
        raise ValueError(f"cells are read as a box without gaps, not with step {step}")
    stop = max(start, stop)
    return slice(count - stop, count - start) if flip else slice(start, stop)


def box(region: Sequence[float] | None, y: np.ndarray, x: np.ndarray, source: str) -> tuple[slice, slice]:
    """Rows and columns of the cells whose centres lie in [west, south, east, north]."""
    if region is None:
        return slice(0, len(y)), slice(0, len(x))
    west, south, east, north = region
    tolerance = 1e-9 * max(1.0, float(np.abs(y).max()), float(np.abs(x).max()))
    rows = np.flatnonzero((y >= south - tolerance) & (y <= north + tolerance))
    columns = np.flatnonzero((x >= west - tolerance) & (x <= east + tolerance))
    if not len(rows) or not len(columns):
        raise ValueError(
            f"{source}: region {list(region)} holds no cell; the cube reaches from "
            f"[{x.min():g}, {y.min():g}] to [{x.max():g}, {y.max():g}] (west, south, east, north)"
        )
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


# Coordinate reference systems ------------------------------------------------------------------------


def find_crs(store: Store, settings: CubeSettings, axes: Axes, say: Say | None = None) -> str:
    """What x and y mean: the settings' or the store's, "EPSG:4326" where nothing is said.

    Told to `say` (raised by default): two that differ, and degrees that cannot be such.
    """
    say = say or refuse_in(store.path)
    stored = stored_crs(store)
    given = settings.crs
    if given and stored and (epsg(given) or given) != (epsg(stored) or stored):
        shown = stored if len(stored) < 60 else stored[:57] + "..."
        say(f"crs is {given!r} in the YAML, but {shown!r} in the store; correct the YAML or reproject")
    crs = given or stored or "EPSG:4326"
    crs = f"EPSG:{epsg(crs)}" if epsg(crs) else crs
    far_y, low_x, high_x = float(np.abs(axes.y).max()), float(axes.x.min()), float(axes.x.max())
    if crs == "EPSG:4326" and (far_y > 90.5 or low_x < -180.5 or high_x > 360.5):
        say(
            f"coordinates reach y = {far_y:g} and x = {low_x:g} … {high_x:g}, which are no degrees; "
            "write the cube's system, for example `crs: EPSG:32634`"
        )
    return crs


def stored_crs(store: Store) -> str | None:
    """As text: "EPSG:…", WKT, or a PROJ string for CF's rotated pole."""
    holders = [v.attrs for v in store.variables.values()] + [store.attrs]
    for attrs in holders:
        if attrs.get("grid_mapping_name") == "rotated_latitude_longitude":
            longitude = float(attrs.get("grid_north_pole_longitude", 0.0))
            turned = float(attrs.get("north_pole_grid_longitude", 0.0))
            return (
                f"+proj=ob_tran +o_proj=longlat +o_lon_p={turned:g} "
                f"+o_lat_p={float(attrs.get('grid_north_pole_latitude', 90)):g} "
                f"+lon_0={(longitude + 180 + 180) % 360 - 180:g} +type=crs"
            )
    for attrs in holders:
        for key in ("crs_wkt", "spatial_ref", "epsg_code", "crs"):
            text = attrs.get(key)
            if isinstance(text, str) and (epsg(text) or "[" in text or text.startswith("+proj")):
                return text
    return None


def epsg(text: str) -> str | None:
    """EPSG number of a text, of WKT that of the whole system."""
    text = text.strip()
    if text.upper() in ("OGC:CRS84", "CRS84", "WGS84", "WGS 84"):
        return "4326"
    plain = re.fullmatch(r"(?i)(?:urn:ogc:def:crs:)?epsg::?(\d+)", text)
    if plain:
        return plain[1]
    inner = re.findall(r'(?:AUTHORITY\["EPSG","(\d+)"\]|ID\["EPSG",(\d+)\])\s*\]$', text)
    return next((a or b for a, b in inner), None)
