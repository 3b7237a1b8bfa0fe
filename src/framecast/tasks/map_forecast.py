"""Maps ahead: a network reads maps of the past and writes target maps, and is scored on years it never saw.

The loss is that of `map_loss`. Scores are in units, per target and lead, season and region; where the targets
are NDVI (and brightness temperature), also of VCI, TCI, VHI and drought classes.
Shapes: B batch, D dynamic channels, S past steps, K still channels, N outputs, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framecast.data.cube_axes import season_of, within
from framecast.data.map_scaling import MapWindow, window_notes
from framecast.data.map_series import MapSeries
from framecast.data.vegetation_indices import drought_class, tci, vci, vhi
from framecast.metrics.drought import DroughtMetrics
from framecast.metrics.maps import MapMetrics
from framecast.nn.perceptual import PerceptualDistance
from framecast.registry import create_model, find
from framecast.tasks.map_loss import Difference, map_loss
from framecast.tasks.ranks import gather_over_ranks, own_items

MAPS_AT_ONCE = 16
BY_MAP = {"MAE": "mae", "RMSE": "rmse", "R2": "r2", "Rs": "rank_correlation", "Rp": "correlation"}


@dataclass(frozen=True)
class MapScoring:
    """Which targets are indices' ingredients, and which regions have scores of their own."""

    vegetation: str | None = None  # target that is the NDVI
    temperature: str | None = None  # target that is the brightness temperature
    regions: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)


def model_input(dynamic: Tensor, still: Tensor, *, by_steps: bool) -> Tensor:
    """(B, D, S, H, W) and (B, K, H, W) as a network reads them.

    by_steps: (B, D + K, S, H, W), what does not change repeated; else steps are channels, oldest first per
    variable: (B, D S + K, H, W).
    """
    if by_steps:
        repeated = still[:, :, None].expand(-1, -1, dynamic.shape[2], -1, -1)
        return torch.cat([dynamic, repeated], dim=1)
    return torch.cat([dynamic.flatten(1, 2), still], dim=1)


def reads_steps(model: str) -> bool:
    """Whether a registered network reads a sequence of maps; ValueError where it reads no maps."""
    tags = find("model", model).tags
    if "maps" not in tags:
        raise ValueError(f"{model} does not read maps; take focal_tsmp, its families or convlstm")
    return "steps" in tags


class MapForecastTask:
    """Trains a network on one split of a cube and scores it on another, which chooses the weights.

    loss: settings of `map_loss` beside the tensors. loss_weights: λ_v per target. perceptual: VGG features,
    None = left out.
    """

    def __init__(
        self,
        train_data: MapSeries,
        eval_data: MapSeries | None,
        *,
        model: str,
        model_config: dict[str, Any] | None = None,
        difference: Difference = "l1",
        loss_weights: Mapping[str, float] | None = None,
        perceptual: PerceptualDistance | None = None,
        perceptual_weight: float = 0.0,
        scoring: MapScoring | None = None,
    ) -> None:
        self.train_data, self.eval_data = train_data, eval_data
        self.window: MapWindow = train_data.window
        self.model_name, self.by_steps = model, reads_steps(model)
        self.difference: Difference = difference
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.scoring = scoring or MapScoring()
        factors = dict(loss_weights or {})
        if unknown := sorted(set(factors) - set(self.window.targets)):
            raise ValueError(
                f"loss weights name {unknown[0]!r}; targets are {', '.join(self.window.targets)}"
            )
        pairs = zip(self.window.output_names, self.window.outputs, strict=True)
        self.factors = {name: factors.get(target, 1.0) for name, (target, _) in pairs}
        cube = train_data.cube
        dynamic, still = self.window.num_channels(cube.dynamic_names, cube.static_names)
        channels = dynamic + still if self.by_steps else dynamic * self.window.steps + still
        self.model_config = dict(model_config or {})
        self._from_data("in_channels", channels)
        self._from_data("targets", self.window.output_names)
        if not channels:
            raise ValueError(f"{cube.path} has nothing to read: no dynamic variable, no past of the targets")
        with torch.device("meta"):  # what is wrong with the settings is said before a run folder is made
            create_model(model, **self.model_config)

    def _from_data(self, key: str, value: Any) -> None:
        given = self.model_config.setdefault(key, value)
        if (tuple(given) if isinstance(given, list | tuple) else given) != value:
            raise ValueError(
                f"model.config.{key} is {given} but the data has {value}; leave {key} out, it is read from "
                "the data"
            )

    @property
    def metric_names(self) -> list[str]:
        names = self.window.output_names
        return ["skill", *(f"{n}: {key}" for n in names for key in ("mae", "rmse", "r2", "skill"))]

    def build_model(self) -> nn.Module:
        return create_model(self.model_name, **self.model_config)

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """x as the network reads it, target (B, N, H, W), land (B, H, W)."""
        parts = {
            key: torch.from_numpy(np.stack([sample[key] for sample in samples]))
            for key in ("dynamic", "still", "target", "land")
        }
        x = model_input(parts["dynamic"], parts["still"], by_steps=self.by_steps)
        return {"x": x, "target": parts["target"], "land": parts["land"]}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Mean over cells on land; sum over outputs."""
        if self.perceptual is not None:
            self.perceptual.to(batch["x"].device)
        total, parts = map_loss(
            model(batch["x"]).float(),
            batch["target"],
            batch["land"],
            targets=self.window.output_names,
            difference=self.difference,
            target_weights=self.factors,
            perceptual=self.perceptual,
            perceptual_weight=self.perceptual_weight,
        )
        return total, {name: float(part.detach()) for name, part in parts.items()}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores on the evaluation split, "skill" = mean over outputs of that over the climatology."""
        assert self.eval_data is not None
        scores = score_maps(model, self.eval_data, self.scoring, device)
        return scores.compute(groups=())

    def card(self) -> dict[str, Any]:
        cube = self.train_data.cube
        return {
            "task": "maps",
            "source": f"trained on {len(self.train_data)} samples of {cube.path.name}",
            "notes": window_notes(self.window, self.train_data.scaling)
            | {"units": {name: cube.units.get(name) or "" for name in self.window.targets}}
            | {"vegetation": self.scoring.vegetation, "temperature": self.scoring.temperature},
        }


# Prediction and scores ------------------------------------------------------------------------------


@torch.no_grad()
def predict_maps(
    model: nn.Module,
    series: MapSeries,
    issues: Sequence[int] | np.ndarray,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """(I, N, H, W) in units, of several issue times at once."""
    found = [series.inputs(int(issue)) for issue in issues]
    dynamic, still = (torch.from_numpy(np.stack([f[key] for f in found])) for key in ("dynamic", "still"))
    by_steps = reads_steps(str(getattr(model, "registered_name", "convlstm")))
    answers = model(model_input(dynamic, still, by_steps=by_steps).to(device)).float().cpu().numpy()
    leads = np.array(series.window.leads)
    return np.stack(
        [
            series.in_units(answer, int(issue), valid_times(series, int(issue), leads))
            for answer, issue in zip(answers, issues, strict=True)
        ]
    )


def valid_times(series: MapSeries, issue: int, leads: np.ndarray) -> np.ndarray:
    """Dates of the leads; beyond the cube's end by its usual step."""
    inside = np.minimum(issue + leads, len(series.cube.times) - 1)
    times = series.times(inside)
    beyond = issue + leads - inside
    if not beyond.any():
        return times
    return np.array([t + int(n) * series.cube.step for t, n in zip(times, beyond, strict=True)])


class MapScores:
    """All scores of a set of forecasts: values, indices and drought classes."""

    def __init__(self) -> None:
        self.maps = MapMetrics()
        self.classes: dict[str, DroughtMetrics] = {}  # by group

    def merge(self, other: MapScores) -> MapScores:
        self.maps.merge(other.maps)
        for group, found in other.classes.items():
            self.classes.setdefault(group, DroughtMetrics()).merge(found)
        return self

    def compute(self, groups: Iterable[str] | None = None) -> dict[str, float]:
        """As `MapMetrics.compute`, with class scores "drought: accuracy", and the mean "skill".

        With all groups also the release's means over maps, "NDVI, mean of maps: mae".
        """
        out = self.maps.compute(groups)
        for group, found in self.classes.items():
            if groups is None or group.rpartition(", ")[2] in groups or ", " not in group:
                ending = group.removeprefix("drought")
                wanted = ("accuracy", "drought_f1", "drought_recall", "drought_precision")
                values = found.compute()
                out |= {f"{group}: {key}": values[key] for key in wanted if key in values}
                if groups is None and ", " not in group:
                    out |= {
                        f"{name}{ending}, mean of maps: {title}": value
                        for key, value in values.items()
                        for name, _, measure in [key.rpartition("_")]
                        if (title := BY_MAP.get(measure))
                    }
        plain = [v for k, v in out.items() if k.endswith(": skill") and ", " not in k]
        indices = tuple(f"{name}{sep}" for name in ("VCI", "TCI", "VHI") for sep in ("+", ":"))
        skills = [
            out[k] for k in out if k.endswith(": skill") and ", " not in k and not k.startswith(indices)
        ]
        return {"skill": float(np.mean(skills or plain or [np.nan])), **out}


def score_maps(
    model: nn.Module,
    series: MapSeries,
    scoring: MapScoring | None = None,
    device: torch.device | str = "cpu",
) -> MapScores:
    """Scores of a network on all samples of a series; ranks share the work."""

    def predict(issues: Sequence[int]) -> np.ndarray:
        return predict_maps(model, series, issues, device)

    return score_predictions(predict, series, scoring)


def score_predictions(predict: Any, series: MapSeries, scoring: MapScoring | None = None) -> MapScores:
    """Scores of anything that answers issue times (I,) with maps (I, N, H, W) in units."""
    scoring, scores = scoring or MapScoring(), MapScores()
    cells = series.cube.y[series.rows], series.cube.x[series.columns]
    regions = {name: within(box, *cells) for name, box in scoring.regions.items()}
    mine = [int(series.issues[i]) for i in own_items(len(series))]
    for start in range(0, len(mine), MAPS_AT_ONCE):
        issues = mine[start : start + MAPS_AT_ONCE]
        for issue, predicted in zip(issues, predict(issues), strict=True):
            add_forecast(scores, series, scoring, regions, issue, predicted)
    everywhere = gather_over_ranks(scores)
    merged = MapScores()
    for part in everywhere:
        merged.merge(part)
    return merged


def add_forecast(
    scores: MapScores,
    series: MapSeries,
    scoring: MapScoring,
    regions: Mapping[str, np.ndarray],
    issue: int,
    predicted: np.ndarray,
) -> None:
    """Score one issue time's maps (N, H, W) against climatology and truth."""
    window, climatology = series.window, series.scaling.climatology
    target = series.target_maps(issue)
    target[:, ~series.land] = np.nan
    leads = np.array(window.leads)
    valid = valid_times(series, issue, leads)
    for index, ((name, lead), title) in enumerate(zip(window.outputs, window.output_names, strict=True)):
        when = valid[window.leads.index(lead)]
        groups: dict[str, np.ndarray | None] = {season_of(when): None, **regions}
        usual = series.usual_at(name, np.array([when]))[2][0] if name in climatology else None
        scores.maps.update(title, predicted[index], target[index], usual, groups)
    if scoring.vegetation is None:
        return
    for position, (lead, when) in enumerate(zip(leads, valid, strict=True)):
        ending = "" if window.leads == (0,) else f"+{lead}"
        sides = [condition_maps(series, scoring, values, position, when) for values in (predicted, target)]
        usual_maps = condition_maps(series, scoring, climatology_maps(series, valid), position, when)
        groups = {season_of(when): None, **regions}
        for index_name, ours in sides[0].items():
            scores.maps.update(
                index_name + ending, ours, sides[1][index_name], usual_maps[index_name], groups
            )
        health = "VHI" if scoring.temperature else "VCI"
        kinds = [drought_class(side[health]) for side in sides]
        for group, mask in {"": None, **groups}.items():
            pairs = {} if group else compared(window, position, predicted, target, sides)
            found = kinds if mask is None else [np.where(mask, k, np.nan) for k in kinds]
            title = f"drought{ending}" + (f", {group}" if group else "")
            scores.classes.setdefault(title, DroughtMetrics()).update(
                pairs, classes=(found[0], found[1]), name=str(when)
            )


def compared(
    window: MapWindow,
    position: int,
    predicted: np.ndarray,
    target: np.ndarray,
    sides: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(predicted, target) of every target and index at one lead, for scores map by map as in the release."""
    places = {name: i * len(window.leads) + position for i, name in enumerate(window.targets)}
    pairs = {name: (predicted[place], target[place]) for name, place in places.items()}
    return pairs | {key: (ours, sides[1][key]) for key, ours in sides[0].items()}


def climatology_maps(series: MapSeries, valid: np.ndarray) -> np.ndarray:
    """(N, H, W) usual values of the outputs."""
    return np.concatenate([series.usual_at(name, valid)[2] for name in series.window.targets])


def condition_maps(
    series: MapSeries, scoring: MapScoring, values: np.ndarray, position: int, when: Any
) -> dict[str, np.ndarray]:
    """VCI, and TCI and VHI where the temperature is a target, of outputs (N, H, W) at one lead."""
    window, found = series.window, {}
    for key, name, formula in (("VCI", scoring.vegetation, vci), ("TCI", scoring.temperature, tci)):
        if name is not None:
            lowest, highest, _ = series.usual_at(name, np.array([when]))
            own = values[window.targets.index(name) * len(window.leads) + position]
            found[key] = formula(own, lowest[0], highest[0])
    if len(found) == 2:
        found["VHI"] = vhi(found["VCI"], found["TCI"])
    return found
