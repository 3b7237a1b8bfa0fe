"""Colours of maps: the same quantity looks the same in every picture, for colour-blind readers too.

Every scale goes one way in lightness (departures: from the middle both ways), so that it can be read without
colours. Drought and vegetation health have classes with a colour each. What is not known is grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.colors import BoundaryNorm, Colormap, LinearSegmentedColormap, ListedColormap, Normalize

from framecast.data.vegetation_indices import DROUGHT_CLASSES, DROUGHT_LIMITS
from framecast.viz.palette import readable

UNKNOWN = "#d3d6db"  # sea, lakes, borders without a forecast
DANGER = ("#fff3cf", "#fdd07a", "#f89540", "#e2544b", "#a8296d", "#5a1668", "#1d0a3d")
SPREAD = ("#f4f1fa", "#cfc6e6", "#9d8cc7", "#6a53a0", "#33216b")
GREEN = ("#f6efd9", "#d9d68b", "#9dbb58", "#55953f", "#1e6a38", "#063f2b")
WET = ("#f3f7fa", "#bcd9ea", "#74b2d6", "#357fb8", "#12508f", "#06275c")
WARM = ("#2b2f6b", "#5a50a0", "#a763a4", "#e07b7d", "#f9ae63", "#fde9a0")
NEUTRAL = ("#f5f3f0", "#c9cdc9", "#8fa3a3", "#557a80", "#26515d", "#0a2933")
DEPARTURE = ("#7a3a06", "#b9711e", "#e3b873", "#f5f3f0", "#93c4c0", "#3b8f8a", "#064f4b")  # brown = less
WARMING = ("#0a3a6b", "#3c7fb5", "#a3cbe1", "#f5f3f0", "#f2b08e", "#cc5a45", "#7c0f25")  # red = more
DROUGHT = ("#4a0d1f", "#98272b", "#d9622f", "#f2a95b", "#f9e2a4", "#6fb3c9")  # exceptional … normal
P_NAMES = ("< 0.01", "< 0.05", "< 0.1", "< 0.3", "above")


@dataclass(frozen=True)
class MapStyle:
    """How one quantity is drawn: colours from the least to the largest value, or one per class."""

    colors: tuple[str, ...]
    least: float = 0.0
    largest: float = 1.0
    limits: tuple[float, ...] = ()  # between classes; empty = a continuous scale
    names: tuple[str, ...] = ()  # of the classes
    title: str = ""  # of the colour bar
    unit: str = ""  # below the title

    @property
    def colormap(self) -> Colormap:
        if self.limits:
            found: Colormap = ListedColormap(list(self.colors))
        else:
            found = LinearSegmentedColormap.from_list("map", list(self.colors))
        return found.with_extremes(bad=UNKNOWN)

    @property
    def norm(self) -> Normalize:
        if self.limits:
            edges = [self.least, *self.limits, self.largest]
            return BoundaryNorm(edges, len(self.colors), clip=True)
        return Normalize(self.least, self.largest)


def style_of(name: str, unit: str, values: Sequence[np.ndarray], *, spread: bool = False) -> MapStyle:
    """The style of a variable by its name and unit; the scale spans what all the maps hold.

    values: all maps that share the scale. Shares of danger run from 0 to 1, indices from 0 to 100, in classes
    of drought where they are VHI; departures and trends have their middle at 0.
    """
    low, high = _range(values)
    style = _style(set(name.casefold().replace("_", " ").replace("-", " ").split()), unit, low, high)
    if spread:
        style = MapStyle(SPREAD, 0.0, _nice(high), unit=style.unit)
    title = f"spread of {readable(name)}" if spread else readable(name)
    return replace(style, title=title, unit=style.unit or ("" if unit in ("", "1") else unit))


def _style(words: set[str], unit: str, low: float, high: float) -> MapStyle:
    share = low >= 0 and high <= 1
    apart = (low, high) if low < high else (low - 0.5, high + 0.5)
    if words & {"p"} and share:
        return MapStyle(SPREAD[::-1], 0.0, 1.0, (0.01, 0.05, 0.1, 0.3), P_NAMES, unit="p-value")
    if words & {"trend", "departure", "anomaly", "difference", "change", "slope"}:
        reach = _nice(max(abs(low), abs(high)))
        bad_if_more = {"temperature", "t2m", "tas", "bt", "danger", "drought", "frequency"}
        return MapStyle(WARMING if words & bad_if_more else DEPARTURE, -reach, reach)
    if words & {"frequency"} and share:
        return MapStyle(DANGER, 0.0, _nice(high), unit="share of time")
    if words & {"class"} and words & {"drought", "vhi"}:
        return MapStyle(DROUGHT, -0.5, 5.5, tuple(i + 0.5 for i in range(5)), DROUGHT_CLASSES)
    if words & {"vhi"}:
        return MapStyle(DROUGHT, 0.0, 100.0, DROUGHT_LIMITS, DROUGHT_CLASSES)
    if words & {"danger", "fire", "burned", "probability", "susceptibility"} and share:
        return MapStyle(DANGER, 0.0, 1.0, unit="probability")
    if words & {"vci", "tci"}:
        return MapStyle(GREEN, 0.0, 100.0, unit="0 to 100")
    if words & {"ndvi", "evi", "lai", "vegetation"}:
        return MapStyle(GREEN, low if low < -0.05 else 0.0, max(_nice(high), 0.1))
    if words & {"rain", "precipitation", "tp", "pr"}:
        return MapStyle(WET, 0.0, _nice(high))
    if words & {"temperature", "t2m", "tas", "bt", "lst", "tg", "tx", "tn"} or unit in ("K", "degC", "°C"):
        return MapStyle(WARM, *apart)
    return MapStyle(NEUTRAL, *apart)


def with_range(style: MapStyle, least: float, largest: float) -> MapStyle:
    """The style over another range; ValueError where it is empty."""
    if not least < largest:
        raise ValueError(f"a scale from {least:g} to {largest:g} is empty")
    return replace(style, least=least, largest=largest)


def _range(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Least and largest known value, 0 and 1 where there is none."""
    known = [(np.nanmin(v), np.nanmax(v)) for v in values if np.isfinite(v).any()]
    if not known:
        return 0.0, 1.0
    return float(min(a for a, _ in known)), float(max(b for _, b in known))


def _nice(value: float) -> float:
    """The next number of 1, 2, 2.5, 5 times a power of ten that is not below the value."""
    if not value > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * next(step for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9)))
