"""A small forecast of maps: danger over an island, a few days, with spread."""

from __future__ import annotations

from typing import Any

import numpy as np

from framecast.structures import Forecast

ROTATED = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +type=crs"


def island(days: int = 3, height: int = 12, width: int = 16, **changes: Any) -> Forecast:
    """Danger rises from west to east; north of the third row is sea; the hottest cell is known."""
    x = np.linspace(0.1, 0.8, width, dtype=np.float32)
    maps = np.broadcast_to(x, (days, height, width)).copy()
    maps[:, :3] = np.nan
    maps[:, 5, 9] = 0.95
    maps += 0.01 * np.arange(days, dtype=np.float32)[:, None, None]
    values: dict[str, Any] = {
        "values": {"danger": maps},
        "times": np.datetime64("2021-07-01") + np.arange(days),
        "y": 39.5 - 0.01 * np.arange(height),
        "x": 21.0 + 0.01 * np.arange(width),
        "units": {"danger": "1"},
        "spread": {"danger": (0.1 * maps).astype(np.float32)},
        "attrs": {"model": "loan_cnn", "source": "island/cube.yaml"},
    }
    return Forecast(**(values | changes))
