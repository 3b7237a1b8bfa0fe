"""Maps ahead: from maps of the past, and what does not change, to target maps some steps later.

    window = MapWindow(targets=("ndvi",), steps=12, leads=(1, 2, 4), past_targets=True, anomalies=True)
    fitted = fit_scaling(cube, window)                      # from the training split alone
    series = MapSeries(cube, window, fitted, split="train")
    series[0]["target"]                                     # (N, H, W) standardised, N = targets x leads

A sample is named by its issue time: dynamic maps up to it are read, and target maps that are known by then.
A lead of 0 asks for the target of the last map that is read (simulation to observation); the targets that are
read then end one step earlier. A sample belongs to a split when all times that it is asked for do.
Shapes: D dynamic channels, S past steps, K channels that do not change, N outputs, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from framecast.data.cube import Cube, scaled_map
from framecast.data.map_scaling import (
    MapScaling,
    MapWindow,
    calendar,
    mean_and_deviation,
    moments,
    whole_samples,
)
from framecast.data.vegetation_indices import period_of_year


class MapSeries:
    """Samples of one split of a cube, or of any issue times.

    split: its name. issues: time indices instead. crop: side of a square that is cut out at random for each
    sample, None = whole maps. noise: standard deviation that is added to dynamic maps; flip: mirror images
    (west to east) of half of the samples, turn: half turns, for data where that makes sense. keep_mb: a cube
    whose maps are smaller than this is read once and kept.
    Raises ValueError where the cube lacks what the scaling, so the model, knows, or no sample is whole.
    """

    def __init__(
        self,
        cube: Cube,
        window: MapWindow,
        scaling: MapScaling,
        *,
        split: str | None = None,
        issues: Sequence[int] | np.ndarray | None = None,
        crop: int | None = None,
        noise: float = 0.0,
        flip: bool = False,
        turn: bool = False,
        keep_mb: int = 512,
    ) -> None:
        self.cube, self.window, self.scaling = cube, window, scaling
        self.crop, self.noise, self.flip, self.turn = crop, noise, flip, turn
        known = (*cube.dynamic_names, *cube.static_names)
        if list(known) != list(scaling.channels):
            differing = sorted(set(known) ^ set(scaling.channels)) or "only their order"
            raise ValueError(
                f"{cube.path} has the variables {', '.join(known)} and the model reads "
                f"{', '.join(scaling.channels)} (differing: {differing}); name the same in the cube's YAML"
            )
        if (window.anomalies or window.place) and set(window.targets) - set(scaling.climatology):
            raise ValueError("anomalies and place need the climatology of every target; fit or pass it")
        check_not_read(cube, window)
        self.rows, self.columns = slice(None), slice(None)
        if split is not None:
            times, self.rows, self.columns = cube.split(split)
            self.issues = whole_samples(cube, window, times)
            if not len(self.issues):
                raise ValueError(
                    f"{cube.path}: split {split!r} has no sample of {window.steps} steps with leads "
                    f"{window.leads} without a gap in time"
                )
        else:
            self.issues = np.arange(len(cube.times)) if issues is None else np.asarray(issues)
        self.shape = (len(cube.y[self.rows]), len(cube.x[self.columns]))
        count = len(cube.dynamic_names) + len(window.targets)
        self._kept: dict[str, np.ndarray] | None = None
        if 4 * count * len(cube.times) * self.shape[0] * self.shape[1] <= keep_mb << 20:
            everything = np.arange(len(cube.times))
            self._kept = {key: self._read(key, everything) for key in ("dynamic", *self.stored_targets)}
        self._still: dict[int, np.ndarray] = {}

    @property
    def stored_targets(self) -> tuple[str, ...]:
        """Targets that the cube holds; a simulation to be projected has none."""
        return tuple(name for name in self.window.targets if name in self.cube.target_names)

    def __len__(self) -> int:
        return len(self.issues)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """dynamic (D, S, H, W), still (K, H, W), target (N, H, W) with NaN, land (H, W), issue."""
        issue = int(self.issues[index])
        sample = self.inputs(issue)
        sample |= {"target": self.standardised_targets(issue), "land": self.land.astype(np.float32)}
        if self.crop is not None:
            sample = cropped(sample, self.crop)
        if self.flip and torch.rand(()) < 0.5:
            sample = {key: values[..., ::-1].copy() for key, values in sample.items()}
        if self.turn and torch.rand(()) < 0.5:
            sample = {key: values[..., ::-1, ::-1].copy() for key, values in sample.items()}
        if self.noise:
            drawn = torch.randn(sample["dynamic"].shape).numpy()
            sample["dynamic"] = sample["dynamic"] + np.float32(self.noise) * drawn
        return sample | {"issue": issue}

    @property
    def land(self) -> np.ndarray:
        return self.cube.land[self.rows, self.columns]

    def times(self, issues: Any) -> np.ndarray:
        """Dates of these steps."""
        return calendar(self.cube, issues)

    # What is read -----------------------------------------------------------------------------------

    def inputs(self, issue: int) -> dict[str, np.ndarray]:
        """What a model may see at that time: dynamic (D, S, H, W), still (K, H, W), nothing later."""
        window = self.window
        first = issue - window.steps + 1
        if first < 0 or (window.past_targets and first < window.delay):
            raise ValueError(
                f"{self.cube.path} begins {window.before - issue} steps too late for a forecast of "
                f"step {issue}; the model reads {window.before + 1}"
            )
        past = np.arange(first, issue + 1)
        maps = [self._get("dynamic", past)]
        if window.past_targets:
            maps += [self._past(name, past - window.delay)[None] for name in window.targets]
        still = [self._static(int(str(self.times(issue))[:4]))]
        if window.season:
            still.append(season_planes(self.times([issue]), self.shape))
        if window.place:
            still += [place_planes(self.shape), self._usual_planes(issue)]
        return {"dynamic": np.concatenate(maps), "still": np.concatenate(still)}

    def _usual_planes(self, issue: int) -> np.ndarray:
        """(targets, H, W) climatology at the issue time, standardised over the map, 0 where unknown."""
        maps = np.concatenate([self.usual(name, [issue]) for name in self.window.targets])
        maps = np.where(self.land, maps, np.nan)
        scaled = []
        for values in maps:
            offset, factor = mean_and_deviation(moments(values))
            scaled.append(np.nan_to_num((values - offset) / factor))
        return np.array(scaled, dtype=np.float32)

    def _past(self, name: str, times: np.ndarray) -> np.ndarray:
        if name not in self.cube.target_names:
            raise ValueError(
                f"{self.cube.path} has no {name}, whose past the model reads; add it as a target"
            )
        return np.nan_to_num(self.standardised(name, times))

    def standardised(self, name: str, times: np.ndarray) -> np.ndarray:
        """(T, H, W) of a target, NaN where unknown."""
        offset, factor = self.scaling.targets[name]
        values = self._get(name, times)
        if self.window.anomalies:
            values = values - self.usual(name, times)
        return ((values - offset) / factor).astype(np.float32)

    def usual(self, name: str, times: Any) -> np.ndarray:
        """(T, H, W) mean of that time of year in the training split."""
        return self.usual_at(name, self.times(times))[2]

    def usual_at(self, name: str, dates: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(lowest, highest, mean), each (T, H, W), of the training split at these times of the year."""
        found = self.scaling.climatology[name].at(dates)
        lowest, highest, mean = (values[:, self.rows, self.columns] for values in found)
        return lowest, highest, mean

    def _static(self, year: int) -> np.ndarray:
        if year not in self._still:
            self._still = {year: self._scaled(self.cube.static_names, self._raw_static(year))}
        return self._still[year]

    def _raw_static(self, year: int) -> np.ndarray:
        return self.cube.static(self.rows, self.columns, year=year, scaled=False)

    def _get(self, key: str, times: np.ndarray) -> np.ndarray:
        if self._kept is not None:
            return self._kept[key][..., times, :, :]
        return self._read(key, times)

    def _read(self, key: str, times: np.ndarray) -> np.ndarray:
        if key != "dynamic":
            return self.cube.target(key, times, self.rows, self.columns)
        if not self.cube.dynamic_names:
            return np.zeros((0, len(times), *self.shape), dtype=np.float32)
        values = self.cube.dynamic(times, self.rows, self.columns, scaled=False)
        return self._scaled(self.cube.dynamic_names, values)

    def _scaled(self, names: Sequence[str], values: np.ndarray) -> np.ndarray:
        """Channels (C, …) standardised, 0 where unknown."""
        channels = self.scaling.channels
        scaled = [scaled_map(one, *channels[name]) for one, name in zip(values, names, strict=True)]
        return np.stack(scaled) if scaled else np.zeros(values.shape, dtype=np.float32)

    # What is asked for ------------------------------------------------------------------------------

    def standardised_targets(self, issue: int) -> np.ndarray:
        """(N, H, W), NaN where unknown."""
        leads = issue + np.array(self.window.leads)
        asked = np.concatenate([self.standardised(name, leads) for name in self.window.targets])
        return asked - self._start(issue) if self.window.corrects else asked

    def _start(self, issue: int) -> np.ndarray:
        """(N, H, W) damped newest departures, standardised; 0 where unknown."""
        newest = {
            name: self._past(name, np.array([issue - self.window.delay])) for name in self.window.targets
        }
        place = self.rows, self.columns
        maps = []
        for output, (name, _) in zip(self.window.output_names, self.window.outputs, strict=True):
            maps.append(self.scaling.damping[output][place].astype(np.float32) * newest[name])
        return np.concatenate(maps)

    def target_maps(self, issue: int) -> np.ndarray:
        """(N, H, W) in units, NaN where unknown and beyond the cube's end."""
        times = issue + np.array(self.window.leads)
        out = np.full((len(self.window.outputs), *self.shape), np.nan, dtype=np.float32)
        there = times < len(self.cube.times)
        for index, name in enumerate(self.window.targets):
            place = index * len(times) + np.flatnonzero(there)
            out[place] = self._get(name, times[there])
        return out

    def in_units(self, outputs: np.ndarray, issue: int, valid: Any) -> np.ndarray:
        """Outputs (N, H, W) of a model as values; valid: dates of the leads (L,)."""
        outputs = outputs + self._start(issue) if self.window.corrects else outputs
        leads = len(self.window.leads)
        out = np.empty(outputs.shape, dtype=np.float32)
        for index, name in enumerate(self.window.targets):
            part = slice(index * leads, (index + 1) * leads)
            offset, factor = self.scaling.targets[name]
            out[part] = outputs[part] * factor + offset
            if self.window.anomalies:
                out[part] += self.usual_at(name, valid)[2]
        return out


def season_planes(times: Any, shape: tuple[int, int]) -> np.ndarray:
    """(2, H, W) sine and cosine of the time of year."""
    angle = 2 * np.pi * (period_of_year(times, 365)[0] + 0.5) / 365
    return np.array([np.sin(angle), np.cos(angle)], dtype=np.float32)[:, None, None] * np.ones(
        shape, dtype=np.float32
    )


def place_planes(shape: tuple[int, int]) -> np.ndarray:
    """(2, H, W) row and column from -1 to 1."""
    axes = [np.linspace(-1, 1, size, dtype=np.float32) for size in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def cropped(sample: dict[str, np.ndarray], side: int) -> dict[str, np.ndarray]:
    """A square at a random place, or the whole map where that is smaller."""
    height, width = sample["land"].shape
    top, left = (int(torch.randint(max(size - side, 0) + 1, ())) for size in (height, width))
    return {key: values[..., top : top + side, left : left + side] for key, values in sample.items()}


def check_not_read(cube: Cube, window: MapWindow) -> None:
    """ValueError where a lead of 0 asks for a map that the store hands in as a dynamic variable too."""
    if 0 not in window.leads:
        return
    named = {key: variable.name or key for key, variable in cube.settings.variables.items()}
    for target in window.targets:
        for key in cube.dynamic_names:
            if named.get(target) == named[key]:
                raise ValueError(
                    f"{cube.path}: {key}, which is read, holds the {target} that is asked for at a lead of "
                    "0; ask for a later lead, or leave it out of the dynamic variables"
                )
