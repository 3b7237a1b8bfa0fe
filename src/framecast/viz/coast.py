"""Coast lines of Natural Earth, where its files are on this machine already; nothing is downloaded."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

RESOLUTIONS = ("10m", "50m", "110m")  # finest first
BOX = tuple[float, float, float, float]  # west, south, east, north in degrees


@cache
def coast_file() -> Path | None:
    """The finest shapefile of coast lines in cartopy's folders, None where there is none."""
    try:
        import cartopy
    except ImportError:
        return None
    config: Any = cartopy.config
    folders = [config.get(key) or "-" for key in ("pre_existing_data_dir", "data_dir", "repo_data_dir")]
    for resolution in RESOLUTIONS:
        for folder in folders:
            path = Path(folder) / "shapefiles/natural_earth/physical" / f"ne_{resolution}_coastline.shp"
            if path.is_file():
                return path
    return None


def coast_lines(box: BOX) -> list[np.ndarray]:
    """Lines (N, 2) of longitude and latitude that touch a box; empty where no file is on this machine.

    Longitudes are -180..180 as in the file.
    """
    path = coast_file()
    if path is None:
        return []
    from cartopy.io.shapereader import Reader

    west, south, east, north = box
    found = []
    for shape in Reader(path).geometries():
        x1, y1, x2, y2 = shape.bounds
        if x1 <= east and x2 >= west and y1 <= north and y2 >= south:
            found += [np.asarray(line.coords)[:, :2] for line in _lines(shape)]
    return found


def _lines(shape: Any) -> list[Any]:
    return list(shape.geoms) if hasattr(shape, "geoms") else [shape]
