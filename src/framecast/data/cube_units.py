"""Units of measurement as files spell them, and conversions between those that people mix up.

A unit is (dimension, factor, offset): value in the dimension's base unit = factor value + offset. One
kilogram of water on a square metre is one millimetre.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

Array = np.ndarray

UNITS: dict[str, tuple[str, float, float]] = {
    "K": ("temperature", 1.0, 0.0),
    "degC": ("temperature", 1.0, 273.15),
    "degF": ("temperature", 5 / 9, 273.15 - 32 * 5 / 9),
    "m": ("length", 1.0, 0.0),
    "mm": ("length", 1e-3, 0.0),
    "cm": ("length", 1e-2, 0.0),
    "km": ("length", 1e3, 0.0),
    "1": ("share", 1.0, 0.0),
    "%": ("share", 1e-2, 0.0),
    "1e-8": ("share", 1e-8, 0.0),
    "1e-4": ("share", 1e-4, 0.0),
    "Pa": ("pressure", 1.0, 0.0),
    "hPa": ("pressure", 1e2, 0.0),
    "kPa": ("pressure", 1e3, 0.0),
    "m s-1": ("speed", 1.0, 0.0),
    "km h-1": ("speed", 1 / 3.6, 0.0),
    "knot": ("speed", 1852 / 3600, 0.0),
    "mm d-1": ("rain", 1.0, 0.0),
    "m d-1": ("rain", 1e3, 0.0),
    "mm s-1": ("rain", 86400.0, 0.0),
    "mm h-1": ("rain", 24.0, 0.0),
    "degree": ("angle", 1.0, 0.0),
    "rad": ("angle", 180 / np.pi, 0.0),
    "km-2": ("density", 1.0, 0.0),
    "W m-2": ("flux", 1.0, 0.0),
    "J m-2 d-1": ("flux", 1 / 86400, 0.0),
}

SPELLINGS = {
    "K": "kelvin kelvins degk deg_k degree_kelvin degrees_kelvin °k",
    "degC": "c °c celsius deg_c degree_celsius degrees_celsius degreec degreesc degree_c degrees_c",
    "degF": "f °f fahrenheit deg_f degree_fahrenheit degrees_fahrenheit",
    "m": "metre metres meter meters",
    "mm": "millimetre millimetres millimeter millimeters kg_m-2 kg_m^-2 kg_m**-2 kg/m2 kg/m^2 kg/m**2",
    "cm": "centimetre centimetres centimeter centimeters",
    "km": "kilometre kilometres kilometer kilometers",
    "1": "- unitless dimensionless none fraction ratio (0-1) 0-1 kg/kg m3_m-3 m3/m3 m**3_m**-3 kg_kg**-1",
    "%": "percent pct percentage",
    "1e-8": "1e-08",
    "1e-4": "0.0001 1e-04",
    "Pa": "pascal pascals n_m-2",
    "hPa": "hectopascal mbar millibar millibars mb",
    "kPa": "kilopascal",
    "m s-1": "m/s m_s**-1 m_s^-1 meters/second ms-1 metre_per_second",
    "km h-1": "km/h km/hr kmh kph km_h**-1",
    "knot": "knots kt kts kn",
    "mm d-1": "mm/day mm/d mm_day-1 mm_day**-1 kg_m-2_day-1 kg_m-2_d-1 mm_d**-1 kg_m**-2_d**-1",
    "m d-1": "m/day m_day-1 m/d",
    "mm s-1": "kg_m-2_s-1 kg_m**-2_s**-1 kg/m2/s mm/s kg_m^-2_s^-1",
    "mm h-1": "mm/h mm/hr mm_hr-1 mm_h**-1 kg_m-2_h-1",
    "degree": "deg degrees °",
    "rad": "radian radians",
    "km-2": "humans/km2 people/km2 persons/km2 inhabitants/km2 1/km2 km**-2 people_per_square_kilometre",
    "W m-2": "w/m2 w/m^2 w_m**-2 watt/m2",
    "J m-2 d-1": "j_m**-2_d**-1 j_m-2_day-1",
}  # fmt: skip


def unit_name(text: str) -> str:
    """Our spelling of a unit ("degrees_celsius" -> "degC"); an unknown one stays as it is."""
    return _KNOWN.get(_plain(str(text)), str(text).strip())


def _plain(text: str) -> str:
    """Without capitals, signs of powers and kinds of spaces: "m s**-1" -> "m_s-1"."""
    return re.sub(r"[\s.·*]+", "_", text.strip().lower().replace("**", "").replace("^", ""))


_KNOWN = {_plain(name): name for name in UNITS} | {
    _plain(word): name for name, words in SPELLINGS.items() for word in words.split()
}


def converter(source: str, target: str) -> Callable[[Array], Array] | None:
    """Function that brings values from one unit to another, None where they are the same unit.

    Raises ValueError for units that measure different things or are not known.
    """
    ours, theirs = unit_name(source), unit_name(target)
    if ours == theirs:
        return None
    if ours not in UNITS or theirs not in UNITS or UNITS[ours][0] != UNITS[theirs][0]:
        raise ValueError(f"{source!r} cannot be converted to {target!r}")
    (_, factor, offset), (_, other, base) = UNITS[ours], UNITS[theirs]
    scale, shift = factor / other, (offset - base) / other

    def convert(values: Array) -> Array:
        return values * scale + shift

    return convert


# What values in a unit can be on this planet's surface, generously; beyond it the unit must be wrong.
PLAUSIBLE = {"K": (150.0, 400.0), "degC": (-95.0, 90.0), "Pa": (2e4, 1.15e5), "hPa": (200.0, 1150.0)}


def implausible(unit: str, least: float, largest: float) -> str:
    """What is odd about a range in its unit, with the unit that it looks like; "" if nothing is."""
    name = unit_name(unit)
    if name not in PLAUSIBLE:
        return ""
    low, high = PLAUSIBLE[name]
    if low <= least and largest <= high:
        return ""
    fits = [
        other
        for other, (a, b) in PLAUSIBLE.items()
        if UNITS[other][0] == UNITS[name][0] and a <= least and largest <= b
    ]
    looks = f"; they look like {fits[0]}" if fits else ""
    return f"values from {least:g} to {largest:g} cannot be in {unit}{looks}"
