"""Made-up weather, soil, plants and fires over made-up land, day by day.

Regional anomalies and smooth maps both follow first-order autoregression, so that today says something about
tomorrow. Each block of days goes on where the one before it ended.
Shapes: T days, H rows, W columns.
"""

from __future__ import annotations

import numpy as np

from framecast.data.synthetic_land import CLASSES, Land, smooth_field

GREEN = (0.25, 0.3, 0.45, 0.5, 0.5, 0.5, 0.75, 0.5, 0.3, 0.0)  # NDVI of each class of land cover in spring
DROPS = (0.05, 0.05, 0.25, 0.12, 0.22, 0.18, 0.08, 0.15, 0.1, 0.0)  # and how much of it a dry summer takes
FUEL = (0.15, 0.5, 0.6, 0.5, 0.8, 0.8, 1.0, 1.15, 0.5, 0.0)
MEMORY = 10  # days over which drought counts
RATE = -8.6  # of fires: logit on an ordinary day


class FireWeather:
    """FireCube's dynamic variables, fires, and the hidden chance of them, in blocks of days."""

    def __init__(self, land: Land, rng: np.random.Generator) -> None:
        self.land, self.rng = land, rng
        self.shape = land.height.shape
        self.region = np.zeros(4)  # anomalies of temperature, humidity, wind, pressure
        self.maps = [smooth_field(self.shape, rng, 2.5) for _ in range(3)]  # temperature, humidity, wind
        self.soil = np.full(self.shape, 0.55)
        self.dryness = np.zeros(self.shape)  # of the last days
        self.ndvi = np.full(self.shape, 0.4)
        self.raining = False
        self.before: dict[str, np.ndarray] | None = None  # drivers of the day before, which decide on fires
        self.share = land.cover / np.maximum(land.cover.sum(0), 1e-6)

    def block(self, times: np.ndarray) -> dict[str, np.ndarray]:
        """(T, H, W) float32 of each variable on days that follow those of the block before."""
        days = [self._day(day) for day in times]
        return {name: np.stack([day[name] for day in days]).astype(np.float32) for name in days[0]}

    def _day(self, when: np.datetime64) -> dict[str, np.ndarray]:
        rng, height = self.rng, self.land.height
        of_year = int((when - when.astype("datetime64[Y]")).astype("timedelta64[D]").astype(int)) + 1
        summer = -np.cos(2 * np.pi * (of_year - 20) / 365.25)  # -1 in January, 1 in July
        keep = np.array([0.8, 0.7, 0.55, 0.85])
        self.region = keep * self.region + np.sqrt(1 - keep**2) * rng.standard_normal(4)
        self.maps = [
            0.85 * old + np.sqrt(1 - 0.85**2) * smooth_field(self.shape, rng, 2.5) for old in self.maps
        ]
        chance = (0.55 if self.raining else 0.16) * np.exp(-1.1 * summer) * np.exp(0.5 * self.region[1])
        self.raining = bool(rng.random() < min(chance, 0.9))
        shower = np.maximum(smooth_field(self.shape, rng, 2.2) + 0.3, 0) * rng.gamma(1.2, 0.006)
        rain = shower * (1 + height / 1500) if self.raining else np.zeros(self.shape)
        temperature = (
            288.5
            + 10.5 * summer
            + 3.0 * self.region[0]
            + 1.2 * self.maps[0]
            - 0.0065 * height
            - 3.0 * self.raining
        )
        depression = np.maximum(
            13.0 + 7.0 * summer - 4.0 * self.region[1] - 2.5 * self.maps[1] - 7.0 * self.raining, 0.8
        )  # fmt: skip
        dew = temperature - depression * (1 + self.soil) ** -0.4
        wind = np.exp(1.35 + 0.35 * self.region[2] + 0.22 * self.maps[2]) * (1 + height / 4000)
        pressure = (101600 + 600 * self.region[3] - 300 * summer) * np.exp(-height / 8300)
        humidity = np.clip(vapour_pressure(dew) / vapour_pressure(temperature), 0.02, 0.99)
        self.soil = np.clip(
            self.soil + 7.0 * rain - 0.0014 * np.maximum(temperature - 278, 0) * self.soil**0.7, 0.02, 0.98
        )
        thirst = np.clip((0.45 - self.soil) / 0.3, 0, 1)
        goal = (
            np.einsum("k,khw->hw", GREEN, self.share) - np.einsum("k,khw->hw", DROPS, self.share) * thirst * 2
        )
        self.ndvi += (goal + 0.06 * np.sin(2 * np.pi * of_year / 365.25) - self.ndvi) / 16
        sun = (4.0 + 5.0 * (summer + 1) / 2) * (1.1 - self.ndvi) * (0.3 if self.raining else 1.0)
        drivers = {
            "ndvi": np.clip(self.ndvi, -0.2, 1.0) * 1e8,
            "lst_day": temperature + sun,
            "lst_night": temperature - 9.0 - 2.0 * summer + 0.5 * self.maps[0],
            "max_d2m": dew,
            "max_t2m": temperature,
            "max_sp": pressure,
            "max_tp": rain,
            "sminx": self.soil,
            "max_wind_speed": np.clip(wind, 0.3, 19.9),
            "min_rh": humidity,
        }
        danger = self._danger(of_year)
        burnt = self._burn(danger)
        self.dryness += (np.clip((0.55 - humidity) / 0.4, -0.5, 1.0) - self.dryness) / MEMORY
        self.before = drivers | {"soil": self.soil.copy(), "dryness": self.dryness.copy()}
        out = {name: np.where(self.land.sea, np.nan, values) for name, values in drivers.items()}
        clouds = smooth_field(self.shape, rng, 2.0) > (0.3 if self.raining else 1.7)
        for name in ("lst_day", "lst_night"):  # satellites see no ground through clouds
            out[name] = np.where(clouds, np.nan, out[name])
        return out | {"burned_areas": burnt, "hidden_danger": danger}

    def _danger(self, of_year: int) -> np.ndarray:
        """Chance that a fire starts, from the drivers of the days before and from the land."""
        land, share, before = self.land, self.share, self.before
        if before is None:
            return np.zeros(self.shape)
        heat = (before["max_t2m"] - 299) / 5
        windy = (before["max_wind_speed"] - 4.5) / 2
        dry_air = (0.45 - before["min_rh"]) / 0.15
        dry_soil = (0.35 - before["soil"]) / 0.15
        forest, scrub, fields = share[6], share[7] + share[8], share[2:6].sum(0)
        harvest = np.exp(-(((of_year - 190) / 25) ** 2))
        steep = np.clip(land.slope / 12, 0, 2)
        score = (
            RATE
            + forest * (1.3 * np.maximum(dry_soil, -2) + 0.9 * heat + 1.5 * before["dryness"])
            + scrub * (1.4 * windy + 1.1 * dry_air + 0.6 * heat)
            + fields * (2.2 * harvest + 0.9 * dry_air)
            + 0.35 * steep * np.clip(windy, -1, 2)
            + 1.8 * np.exp(-land.roads / 2.5)
            + 0.6 * np.log1p(land.people / 100)
            - 2.0 * (before["max_tp"] > 1e-3)
        )
        fuel = np.einsum("k,khw->hw", FUEL[:CLASSES], share)
        return np.where(land.sea, 0.0, np.minimum(fuel, 1.0) / (1 + np.exp(-np.clip(score, -30, 4))))

    def _burn(self, danger: np.ndarray) -> np.ndarray:
        """1 where it burns: fires start by chance and may take a neighbour that could burn too."""
        rng = self.rng
        burning = rng.random(self.shape) < danger
        for _ in range(2):
            near = np.zeros(self.shape, dtype=bool)
            for axis in (0, 1):
                for shift in (-1, 1):
                    moved = np.roll(burning, shift, axis)
                    edge = [slice(None), slice(None)]
                    edge[axis] = slice(0, 1) if shift == 1 else slice(-1, None)
                    moved[tuple(edge)] = False  # nothing jumps from one border to the other
                    near |= moved
            burning |= near & (rng.random(self.shape) < 0.25) & (danger > np.median(danger))
        return burning.astype(np.float32)


def vapour_pressure(kelvin: np.ndarray) -> np.ndarray:
    """Of saturated air over water in hPa (Magnus)."""
    celsius = kelvin - 273.15
    return 6.112 * np.exp(17.62 * celsius / (celsius + 243.12))
