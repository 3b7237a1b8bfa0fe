"""What the coordinates of maps mean: degrees, metres of a projection, a rotated pole.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from framecast.extras import import_extra
from framecast.structures import Forecast


def known_system(crs: str) -> Any:
    """The coordinate system as pyproj reads it; None for a text that it does not know, or without pyproj."""
    try:
        pyproj = import_extra("pyproj", "maps")
    except ImportError:
        return None
    try:
        return pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError:
        return None


def longitude_latitude(forecast: Forecast) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) longitude and latitude of every cell, for grids of any known system; needs pyproj."""
    pyproj = import_extra("pyproj", "maps")
    turn = pyproj.Transformer.from_crs(forecast.crs, "EPSG:4326", always_xy=True)
    x, y = np.meshgrid(forecast.x, forecast.y)
    longitude, latitude = turn.transform(x, y)
    return longitude, latitude


def is_longitude_latitude(crs: str) -> bool:
    """Whether x and y are plain degrees east and north."""
    if crs == "EPSG:4326":
        return True
    system = known_system(crs)
    return system is not None and system.is_geographic and not system.is_derived


def to_grid(forecast: Forecast, latitude: float, longitude: float) -> tuple[float, float]:
    """(y, x) of a place in the system of the maps; ValueError where the system is not known."""
    if is_longitude_latitude(forecast.crs):
        around = 360.0 * round((float(forecast.x.mean()) - longitude) / 360.0)  # 0..360 or -180..180
        return latitude, longitude + around
    system = known_system(forecast.crs)
    if system is None:
        raise ValueError(
            f"the maps' system {forecast.crs!r} cannot be read here, so latitude and longitude have no "
            'place on them; write `crs:` into the YAML, or install pyproj: pip install "framecast[maps]"'
        )
    pyproj = import_extra("pyproj", "maps")
    turn = pyproj.Transformer.from_crs("EPSG:4326", system, always_xy=True)
    x, y = turn.transform(longitude, latitude)
    return float(y), float(x)
