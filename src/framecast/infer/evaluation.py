"""Scores of a trained model on labelled data, under named protocols."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from framecast.checkpoints import card_of, load
from framecast.data.segmentation import SegmentationData, open_folder
from framecast.metrics.protocols import get_protocol
from framecast.recipes.build import open_data
from framecast.tasks.segmentation import check_data, collect_predictions
from framecast.train.config import load_recipe
from framecast.train.segmentation_recipe import SegmentationDataSettings
from framecast.writing import write_file


@dataclass(frozen=True)
class Evaluation:
    """Scores per protocol, with what they were measured on."""

    scores: dict[str, dict[str, float]]  # protocol -> accuracy, edit, f1@10, …
    data: str
    split: int | None
    subset: str  # "test", or "all" where the data has no split
    num_videos: int
    model: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def write(self, path: Path) -> None:
        write_file(path, json.dumps(self.to_json(), indent=2) + "\n")


def evaluate_run(
    run: str | Path,
    *,
    data: str | Path | None = None,
    split: int | None = None,
    protocols: list[str] | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Score a run folder on the test side of its data, or on other data of the same classes.

    A saved model folder without a recipe needs `data`. Raises ValueError where the classes differ or the
    features were made in another way.
    """
    for name in protocols or []:
        get_protocol(name)
    model = load(run, device)
    if (Path(run) / "config.yaml").is_file():
        settings = load_recipe(run).data
    elif data is not None:
        settings = SegmentationDataSettings(root=str(data), sample_rate=card_of(model).sample_rate)
    else:
        raise ValueError(f"{run} has no recipe that names its data; pass --data FOLDER")
    changes = {"root": data and str(data), "split": split}
    settings = settings.model_copy(update={k: v for k, v in changes.items() if v is not None})
    folder = open_folder(settings.root, settings.layout, settings.features)
    divided = settings.split is not None or folder.has_one_split
    opened = open_data(settings, "test" if divided else "all")
    return evaluate_model(model, opened, str(run), protocols, device)


@torch.no_grad()
def evaluate_model(
    model: nn.Module,
    data: SegmentationData,
    name: str,
    protocols: list[str] | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Score a model on every video of an opened data set; `name` is the model's, for messages and records."""
    card = card_of(model)
    if card.classes != data.classes:
        differing = sorted(set(card.classes) ^ set(data.classes))[:4]
        raise ValueError(
            f"{name} knows {len(card.classes)} classes and {data.folder.root} has {len(data.classes)} "
            f"(differing: {', '.join(differing) or 'only their order'}); "
            "evaluate on data with the same mapping"
        )
    check_data(card.features, data, wanted_dim=cast(Any, model).config.feature_dim)
    metrics = collect_predictions(model, data, device)
    scores = {p: metrics.compute(p) for p in protocols or data.protocols}
    return Evaluation(scores, str(data.folder.root), data.split, data.subset, len(data), name)
