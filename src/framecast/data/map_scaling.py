"""What maps ahead are about: which maps are read and asked, and how they are standardised.

All numbers come from the training split alone: offsets and factors of the channels, the climatology of the
targets, and how fast departures from it fade.
Shapes: T time steps, N outputs, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from framecast.data.cube import Cube
from framecast.data.vegetation_indices import PERIODS, Climatology

SHRINKAGE = 0.2
CHUNK = 64  # time steps that are read at once where statistics are fitted


@dataclass(frozen=True)
class MapWindow:
    """What a sample reads and what it is asked for."""

    targets: tuple[str, ...]
    steps: int = 1  # maps of the past, the last one at the issue time
    leads: tuple[int, ...] = (0,)  # steps after the issue time
    past_targets: bool = False  # also read the targets themselves, as far as they are known
    season: bool = False  # sine and cosine of the time of year
    place: bool = False  # row, column and the usual value of every target then: which cell it is
    anomalies: bool = False  # targets are departures from the climatology of the training split
    corrects: bool = False  # outputs are added to the newest known departure, damped by lead
    periods: int = 52  # parts of the year that have a climatology each

    def __post_init__(self) -> None:
        if not self.targets:
            raise ValueError("a window of maps asks for no targets; name at least one")
        if self.steps < 1 or not self.leads or min(self.leads) < 0 or len(set(self.leads)) < len(self.leads):
            raise ValueError(
                f"steps {self.steps} and leads {self.leads}: read one step or more, and ask for different "
                "leads of 0 or more"
            )
        if self.corrects and not (self.anomalies and self.past_targets):
            raise ValueError("corrects starts from the newest departure: set anomalies and past_targets too")
        if self.periods not in PERIODS:
            raise ValueError(f"a year has {', '.join(map(str, PERIODS))} periods, not {self.periods}")

    @property
    def delay(self) -> int:
        """Steps from the newest target map that may be read to the issue time."""
        return 1 if min(self.leads) == 0 else 0

    @property
    def before(self) -> int:
        """Steps before the issue time that a sample reaches back."""
        return self.steps - 1 + (self.delay if self.past_targets else 0)

    @property
    def outputs(self) -> tuple[tuple[str, int], ...]:
        """(target, lead) of every output, target by target."""
        return tuple((target, lead) for target in self.targets for lead in self.leads)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs: the target's own where only the present is asked for."""
        return tuple(t if self.leads == (0,) else f"{t}+{lead}" for t, lead in self.outputs)

    def num_channels(self, dynamic: Sequence[str], static: Sequence[str]) -> tuple[int, int]:
        """(D, K) for a cube with these variables."""
        still = len(static) + 2 * self.season + self.place * (2 + len(self.targets))
        return len(dynamic) + self.past_targets * len(self.targets), still


@dataclass
class MapScaling:
    """How channels and targets are standardised: z = (value - offset) / factor."""

    channels: dict[str, tuple[float, float]]
    targets: dict[str, tuple[float, float]]  # of the departures where the window asks for those
    climatology: dict[str, Climatology] = field(default_factory=dict)  # per target
    damping: dict[str, np.ndarray] = field(default_factory=dict)  # (H, W) per output, of the newest departure

    def to_json(self) -> dict[str, Any]:
        """Without climatology and damping, which are as large as maps."""
        return {key: {k: list(v) for k, v in getattr(self, key).items()} for key in ("channels", "targets")}

    @classmethod
    def from_json(
        cls,
        values: Mapping[str, Any],
        climatology: Mapping[str, Climatology] | None = None,
        damping: Mapping[str, np.ndarray] | None = None,
    ) -> Self:
        """Raises ValueError for entries that are no pairs of numbers."""
        try:
            parts = [
                {str(k): (float(v[0]), float(v[1])) for k, v in values[key].items()}
                for key in ("channels", "targets")
            ]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise ValueError("the model's scaling is not readable; train it again") from None
        return cls(parts[0], parts[1], dict(climatology or {}), dict(damping or {}))


# Statistics -----------------------------------------------------------------------------------------


def fit_scaling(cube: Cube, window: MapWindow, split: str = "train") -> MapScaling:
    """Standardisation and climatologies from the times and place of one split, read in pieces.

    Variables whose scaling the cube's YAML or its statistics give are scaled by those.
    """
    channels = {name: given_scaling(cube, name) for name in (*cube.dynamic_names, *cube.static_names)}
    missing = [name for name, found in channels.items() if found is None]
    times, rows, columns = cube.split(split)
    sums = {name: np.zeros(3) for name in missing if name in cube.dynamic_names}
    climatology = fit_climatology(cube, window, split)
    for part in pieces(times) if sums else ():
        values = cube.dynamic(part, rows, columns, scaled=False)
        for name, total in sums.items():
            total += moments(values[cube.dynamic_names.index(name)])
    if any(name in cube.static_names for name in missing):
        for name, values in zip(cube.static_names, cube.static(rows, columns, scaled=False), strict=True):
            sums |= {name: moments(values)} if name in missing else {}
    known = {name: found for name, found in channels.items() if found is not None}
    known |= {name: mean_and_deviation(total) for name, total in sums.items()}
    totals = {name: np.zeros(3) for name in window.targets}
    for part in pieces(times):
        for name, total in totals.items():
            values = cube.target(name, part, rows, columns).astype(np.float64)
            if window.anomalies:
                values -= climatology[name].at(calendar(cube, part))[2][:, rows, columns]
            total += moments(values)
    empty = [name for name, total in totals.items() if not total[0]]
    if empty:
        raise ValueError(f"{cube.path}: target {empty[0]} has no known value in split {split!r}")
    targets = {name: mean_and_deviation(total) for name, total in totals.items()}
    for name in window.targets:  # as the YAML says, so that weights of elsewhere fit
        variable = cube.settings.variables[name]
        if variable.scale == "standard" and variable.mean is not None and variable.std is not None:
            targets[name] = variable.mean, variable.std
    if window.anomalies:
        targets = {name: (0.0, factor) for name, (_, factor) in targets.items()}
    ordered = {name: known[name] for name in (*cube.dynamic_names, *cube.static_names)}
    found = MapScaling(ordered, targets, climatology)
    if window.corrects:
        found.damping = fit_damping(cube, window, climatology, split)
    return found


def fit_damping(
    cube: Cube, window: MapWindow, climatology: Mapping[str, Climatology], split: str = "train"
) -> dict[str, np.ndarray]:
    """Share 0 … 1 of the newest departure that is left at every lead: (H, W) of the cube per output.

    A regression through the origin per cell, drawn towards that of all cells as if each had SHRINKAGE more
    of the mean cell's samples that say so.
    """
    times = cube.split(split)[0]

    def departure(name: str, indices: np.ndarray) -> np.ndarray:
        values = cube.target(name, indices).astype(np.float64)
        return values - climatology[name].at(calendar(cube, indices))[2]

    issues = whole_samples(cube, window, times)
    issues = issues[np.isin(issues - window.delay, times)]
    found = {}
    for output, (name, lead) in zip(window.output_names, window.outputs, strict=True):
        products = np.zeros((2, len(cube.y), len(cube.x)))
        for part in pieces(issues):
            now, later = departure(name, part - window.delay), departure(name, part + lead)
            known = np.isfinite(now) & np.isfinite(later)
            now, later = np.where(known, now, 0.0), np.where(known, later, 0.0)
            products += (now * later).sum(0), np.square(now).sum(0)
        more = SHRINKAGE * products.mean((1, 2), keepdims=True)
        both, own = products + more
        found[output] = np.clip(np.divide(both, own, out=np.zeros_like(own), where=own > 0), 0, 1)
    return found


def fit_climatology(cube: Cube, window: MapWindow, split: str = "train") -> dict[str, Climatology]:
    """The climatology of every target at the times of one split, of all cells of the cube."""
    times = cube.split(split)[0]
    shape = (len(cube.y), len(cube.x))
    found = {name: Climatology.empty(shape, window.periods) for name in window.targets}
    for part in pieces(times):
        for name, one in found.items():
            one.update(cube.target(name, part), calendar(cube, part))
    return found


def given_scaling(cube: Cube, name: str) -> tuple[float, float] | None:
    """What the cube itself says; None where it has to be fitted. Classes of a variable stay 0 and 1."""
    key = next((c.variable for c in cube.channels if c.name == name), name)
    if cube.settings.variables[key].role == "categorical":
        return 0.0, 1.0
    try:
        return cube.scaling(key)
    except ValueError:
        return None


def pieces(times: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(times), CHUNK):
        yield times[start : start + CHUNK]


def calendar(cube: Cube, indices: Any) -> np.ndarray:
    return np.asarray(cube.times)[indices]


def moments(values: np.ndarray) -> np.ndarray:
    """Count, sum and sum of squares of the finite values."""
    finite = values[np.isfinite(values)].astype(np.float64)
    return np.array([finite.size, finite.sum(), np.square(finite).sum()])


def mean_and_deviation(total: np.ndarray) -> tuple[float, float]:
    """A deviation of 0, or of no values, becomes 1."""
    count, first, second = total
    if not count:
        return 0.0, 1.0
    mean = first / count
    return float(mean), float(np.sqrt(max(second / count - mean**2, 0.0))) or 1.0


def whole_samples(cube: Cube, window: MapWindow, times: np.ndarray) -> np.ndarray:
    """Issue times whose asked times all lie in `times`, and whose window has no gap."""
    asked = np.zeros(len(cube.times), dtype=bool)
    asked[times] = True
    issues = np.arange(len(cube.times))
    keep = cube.without_gap(issues, window.before, max(window.leads))
    for lead in window.leads:
        later = np.minimum(issues + lead, len(issues) - 1)
        keep &= asked[later]
    return issues[keep]


def window_of(notes: Mapping[str, Any]) -> MapWindow:
    """The window that a model's card tells."""
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in notes["window"].items()}
    return MapWindow(**known)


def window_notes(window: MapWindow, scaling: MapScaling) -> dict[str, Any]:
    """What a model's card says of its data."""
    return {"window": asdict(window), "scaling": scaling.to_json()}
