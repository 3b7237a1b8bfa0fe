"""Wildfire danger: windows of weather and land in, the probability that the cell in the middle burns out.

Scores are those of `metrics/danger.py`, whole and by season and region, and the mean loss, taken over batches
as the release takes it.
Shapes: B batch, V dynamic and S static variables, T days with the latest first, H and W cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framecast.data.cube_axes import SEASONS
from framecast.data.danger_patches import DangerPatches, Window, augment
from framecast.data.danger_windows import DangerWindows
from framecast.metrics.danger import DangerMetrics
from framecast.models.loan import danger_loss
from framecast.registry import create_model, find
from framecast.tasks.ranks import gather_over_ranks, own_items

DangerData = DangerWindows | DangerPatches
BATCH = 64  # windows at a time when scored
REPORTED = ("auroc", "auprc", "brier", "skill", "ece", "precision_fire", "recall_fire", "f1_fire", "oa")
Regions = Mapping[str, tuple[float, float, float, float]]


class AugmentedWindows:
    """Training samples with noise, turns and flips."""

    def __init__(self, data: DangerData, noise: float, fractions: int) -> None:
        self.data, self.noise, self.fractions = data, noise, fractions

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = dict(self.data[index])
        rng = np.random.default_rng(np.random.randint(2**31))  # noqa: NPY002 - the loop seeds that one
        window = Window(sample["dynamic"], sample["static"])
        return sample | augment(window, rng, self.noise, self.fractions)._asdict()


class DangerTask:
    """Trains a model on windows of one split and scores it on another.

    noise: None = samples are not augmented.
    """

    metric_names = (*REPORTED, "loss")

    def __init__(
        self,
        train_data: DangerData,
        eval_data: DangerData | None,
        *,
        model: str,
        model_config: dict[str, Any] | None = None,
        class_weights: tuple[float, ...] = (0.5, 0.5),
        noise: float | None = None,
        regions: Regions | None = None,
    ) -> None:
        if "danger" not in find("model", model).tags:
            raise ValueError(f"{model} is no model of danger; `framecast list` shows which are")
        self.source, self.eval_data = train_data, eval_data
        self.model_name, self.model_config = model, dict(model_config or {})
        self.class_weights, self.regions = class_weights, dict(regions or {})
        fractions = sum("CLC" in name or "clc" in name for name in channel_names(train_data)[1])
        self.train_data = train_data if noise is None else AugmentedWindows(train_data, noise, fractions)
        for key, value in shapes_of(train_data).items():
            if (given := self.model_config.setdefault(key, value)) != value:
                raise ValueError(
                    f"model.config.{key} is {given} but the data has {value}; leave {key} out, it is read "
                    "from the data"
                )
        with torch.device("meta"):  # what is wrong with the settings is said before a run folder is made
            create_model(model, **self.model_config)

    def build_model(self) -> nn.Module:
        return create_model(self.model_name, **self.model_config)

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """dynamic (B, V, T, H, W), static (B, S, H, W), day (B,), label (B,)."""
        return collate(samples)

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        log_prob = model(batch["dynamic"], batch["static"], batch["day"]).float()
        right = log_prob.detach().argmax(1) == batch["label"]
        loss = danger_loss(log_prob, batch["label"], self.class_weights)
        return loss, {"accuracy": 100 * right.double().mean().item()}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores on the evaluation split; the same on all processes, which share the work."""
        assert self.eval_data is not None
        return score_model(model, self.eval_data, device, self.regions, self.class_weights).compute(())

    def card(self) -> dict[str, Any]:
        data = self.source
        dynamic, static = channel_names(data)
        notes: dict[str, Any] = {"dynamic": list(dynamic), "static": list(static)}
        if isinstance(data, DangerWindows):
            notes = data.reads.to_notes()
        name = data.cube.path.name if isinstance(data, DangerWindows) else data.root.name
        return {
            "task": "danger",
            "classes": ["background", "fire"],
            "source": f"trained on {len(data)} windows of {name}",
            "notes": notes,
        }


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    maps = {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in ("dynamic", "static")}
    return maps | {key: torch.tensor([s[key] for s in samples]) for key in ("day", "label")}


def channel_names(data: DangerData) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of dynamic and static channels, in the order in which a model reads them."""
    if isinstance(data, DangerWindows):
        return data.reads.dynamic, data.reads.static
    return data.dynamic.names, (*data.static.names, *(f"clc_{i}" for i in range(10)))


def shapes_of(data: DangerData) -> dict[str, int]:
    """Fields of a model's config that the data decides."""
    dynamic, static = channel_names(data)
    cells = data.reads.window_cells if isinstance(data, DangerWindows) else 25
    days = data.reads.num_days if isinstance(data, DangerWindows) else data.num_days
    counts = {"num_dynamic": len(dynamic), "num_static": len(static)}
    return {**counts, "num_days": days, "window_cells": cells}


# Scores ---------------------------------------------------------------------------------------------


class DangerScores:
    """Scores of all samples, of each season and of each region; and the mean loss of batches."""

    def __init__(self) -> None:
        self.groups: dict[str, DangerMetrics] = {}
        self.losses: list[float] = []

    def add(self, probability: np.ndarray, burnt: np.ndarray, groups: Sequence[Sequence[str]]) -> None:
        """(B,) each; groups: names of the seasons and regions that a sample counts for."""
        known = self._known(groups)
        names = np.array([[name in own for own in groups] for name in known])
        self.groups.setdefault("", DangerMetrics()).update(probability, burnt)
        for name, chosen in zip(known, names, strict=True):
            self.groups.setdefault(name, DangerMetrics()).update(probability[chosen], burnt[chosen])

    @staticmethod
    def _known(groups: Sequence[Sequence[str]]) -> list[str]:
        return list(dict.fromkeys(name for own in groups for name in own))

    def merge(self, other: DangerScores) -> DangerScores:
        for name, metrics in other.groups.items():
            self.groups.setdefault(name, DangerMetrics()).merge(metrics)
        self.losses += other.losses
        return self

    def compute(self, groups: Sequence[str] | None = None) -> dict[str, float]:
        """Scores of all samples, then "JJA: auroc" and the like for the groups; None = all of them."""
        named = [n for n in self.groups if n and (groups is None or n in groups)]
        out: dict[str, float] = {}
        for name in ["", *sorted(named, key=lambda n: (n not in SEASONS, n))]:
            prefix = f"{name}: " if name else ""
            out |= {prefix + key: value for key, value in self.groups[name].compute().items()}
        if self.losses:
            out["loss"] = float(np.mean(self.losses))
        return out


def by_group(scores: DangerScores) -> dict[str, dict[str, float]]:
    """Scores of all samples as "test", then those of every season and region."""
    groups: dict[str, dict[str, float]] = {}
    for key, value in scores.compute().items():
        group, _, score = key.rpartition(": ")
        groups.setdefault(group or "test", {})[score] = value
    return groups


def groups_of(data: DangerData, regions: Regions) -> list[list[str]]:
    """Season and regions of every sample; published samples say only when they were."""
    if isinstance(data, DangerWindows):
        return data.groups(dict(regions))
    if regions:
        raise ValueError("published samples have grid places only; leave data.regions out")
    return [[SEASONS[int(sample.name[4:6]) % 12 // 3]] for sample in data.samples]


@torch.no_grad()
def score_model(
    model: nn.Module,
    data: DangerData,
    device: torch.device | str = "cpu",
    regions: Regions | None = None,
    class_weights: tuple[float, ...] = (0.5, 0.5),
) -> DangerScores:
    """A model's scores on all samples; ranks share the work."""
    scores, groups = DangerScores(), groups_of(data, regions or {})
    mine = list(own_items(len(data)))
    for start in range(0, len(mine), BATCH):
        chosen = mine[start : start + BATCH]
        batch = collate([data[i] for i in chosen])
        parts = [batch[key].to(device) for key in ("dynamic", "static", "day")]
        log_prob = model(*parts).float().cpu()
        scores.losses.append(float(danger_loss(log_prob, batch["label"], class_weights)))
        fire = log_prob[:, -1].exp().numpy()
        scores.add(fire, batch["label"].numpy(), [groups[i] for i in chosen])
    first, *rest = gather_over_ranks(scores)
    for other in rest:
        first.merge(other)
    return first
