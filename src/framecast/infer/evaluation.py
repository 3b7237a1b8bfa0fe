"""Scores of a trained model on labelled data, under named protocols."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from framecast.checkpoints import load
from framecast.data.segmentation import SegmentationData, open_segmentation
from framecast.tasks.segmentation import collect_predictions
from framecast.train.atomic import write_text
from framecast.train.config import load_recipe


@dataclass(frozen=True)
class Evaluation:
    """Scores per protocol, with what they were measured on."""

    scores: dict[str, dict[str, float]]  # protocol -> accuracy, edit, f1@10, …
    data: str
    split: int | None
    num_videos: int
    model: str

    def to_json(self) -> dict[str, Any]:
        return vars(self)

    def write(self, path: Path) -> None:
        write_text(path, json.dumps(self.to_json(), indent=2) + "\n")


def evaluate_run(
    run: Path,
    *,
    data: Path | None = None,
    split: int | None = None,
    protocols: list[str] | None = None,
    device: str = "auto",
) -> Evaluation:
    """Score a run folder on the test side of its data, or on other data of the same classes.

    A saved model folder without a recipe needs `data`. Raises ValueError where the classes differ.
    """
    where = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))
    model = load(run, where)
    if (run / "config.yaml").is_file():
        recipe = load_recipe(run / "config.yaml")
        arguments = recipe.data.model_dump()
        if data is not None:
            arguments["root"] = str(data)
        if split is not None:
            arguments["split"] = split
    elif data is not None:
        arguments = {"root": str(data), "split": split, "sample_rate": model.card.sample_rate}
    else:
        raise ValueError(f"{run} has no recipe that names its data; pass --data FOLDER")
    subset = "all" if arguments["split"] is None else "test"
    return evaluate_model(model, open_segmentation(**arguments, subset=subset), str(run), protocols, where)


@torch.no_grad()
def evaluate_model(
    model: nn.Module,
    data: SegmentationData,
    name: str,
    protocols: list[str] | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    trained_on = tuple(model.card.classes)  # ty: ignore[unresolved-attribute]
    if trained_on != data.classes:
        differing = sorted(set(trained_on) ^ set(data.classes))[:4]
        raise ValueError(
            f"{name} knows {len(trained_on)} classes and {data.folder.root} has {len(data.classes)} "
            f"(differing: {', '.join(differing) or 'only their order'}); evaluate on data with the same mapping"
        )
    metrics = collect_predictions(model, data, device)
    scores = {p: metrics.compute(p) for p in protocols or data.protocols}
    return Evaluation(scores, str(data.folder.root), data.split, len(data), name)
