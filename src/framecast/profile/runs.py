"""What a trained run adds to a profile: the scores of its summary and an input of its own data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framecast.data.segmentation import open_folder, open_segmentation
from framecast.profile.subjects import Subject
from framecast.train.config import load_recipe
from framecast.train.records import read_summary
from framecast.train.segmentation_recipe import SegmentationRecipe

PREFERRED = ("top1", "top-1", "accuracy")  # metrics to set beside the cost, the first that is there


def scores_of(folder: str | Path) -> dict[str, float]:
    """Finite metrics of a finished run, or their mean over a study; {} where there is no summary."""
    summary = read_summary(Path(folder)) or {}
    found = summary.get("metrics") or summary.get("mean") or {}
    return {
        key: float(value)
        for key, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def choose_metric(scores: list[dict[str, float]], wanted: str | None = None) -> str | None:
    """The metric to compare by: the wanted one, else the usual one that all scored runs share.

    Raises ValueError for a wanted metric that no run has.
    """
    scored = [one for one in scores if one]
    known = list(dict.fromkeys(key for one in scored for key in one))
    if wanted is not None:
        if wanted not in known:
            has = f"they have {', '.join(known)}" if known else "none of the models has scores"
            raise ValueError(f"no run was scored by {wanted!r}; {has}")
        return wanted
    shared = [key for key in known if all(key in one for one in scored)]
    return next((key for key in PREFERRED if key in shared), shared[0] if shared else None)


def own_input(subject: Subject, data: Path | None = None) -> tuple[Tensor, str] | None:
    """Features (1, C, T) of the test video of median length, and its name; None for other kinds of runs.

    data: folder in the place of the one that the run was trained on. Raises ValueError or OSError where the
    data cannot be opened.
    """
    run = Path(subject.folder).parent
    if not (run / "config.yaml").is_file():
        return None
    recipe: Any = load_recipe(run)
    if not isinstance(recipe, SegmentationRecipe):
        return None
    settings = recipe.data if data is None else recipe.data.model_copy(update={"root": str(data)})
    folder = open_folder(settings.root, settings.layout, settings.features)
    divided = settings.split is not None or folder.has_one_split
    subset: Any = "test" if divided else "all"
    opened = open_segmentation(**settings.model_dump(), subset=subset)
    by_length = sorted(range(len(opened)), key=lambda i: len(opened.annotation(i)))
    sample = opened[by_length[len(by_length) // 2]]
    features = torch.tensor(sample["features"], dtype=torch.float32)
    if features.shape[0] != subject.shape[0]:
        raise ValueError(
            f"{subject.name} reads features of {subject.shape[0]} channels, {settings.root} has "
            f"{features.shape[0]}"
        )
    return features[None], sample["video"]
