"""What a trained run adds to a profile: the scores of its summary and an input of its own data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framecast.checkpoints import ModelCard, read_about
from framecast.data.segmentation import open_folder
from framecast.profile.subjects import Subject
from framecast.recipes.build import open_data, open_recognition_data, view_protocol
from framecast.tasks.recognition import views_of
from framecast.train.config import load_recipe
from framecast.train.recognition_recipe import RecognitionDataSettings, RecognitionRecipe
from framecast.train.records import read_summary
from framecast.train.segmentation_recipe import SegmentationDataSettings, SegmentationRecipe

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


def own_input(subject: Subject, data: Path | None = None, count: int = 1) -> tuple[Tensor, str] | None:
    """A batch of a run's own test data and what it is called; None for a model without a recipe.

    Segmentation: features (1, C, T) of the video of median length. Recognition: `count` images or clips,
    evenly spread over the test side, each as the run's protocol looks at it first. data: folder in the place
    of the one that the run was trained on, or for a saved model without a recipe. Raises ValueError or
    OSError where the data cannot be opened.
    """
    run = Path(subject.folder).parent
    if not (run / "config.yaml").is_file():
        recognises = read_about(Path(subject.folder))["card"].get("task") == "recognition"
        if data is None or not recognises:
            return None
        return _pixels(subject, RecognitionDataSettings(root=str(data)), count)
    recipe: Any = load_recipe(run)
    settings = recipe.data if data is None else recipe.data.model_copy(update={"root": str(data)})
    if isinstance(recipe, RecognitionRecipe):
        return _pixels(subject, settings, count)
    assert isinstance(recipe, SegmentationRecipe)
    return _features(subject, settings)


def _pixels(subject: Subject, settings: RecognitionDataSettings, count: int) -> tuple[Tensor, str]:
    opened = open_recognition_data(settings, "test")
    card = ModelCard.from_json(read_about(Path(subject.folder))["card"])
    config: Any = subject.build("meta").config
    protocol = view_protocol(card.protocol, opened.kind)
    views = views_of(opened, config, protocol, card.frames, channels=card.channels)
    chosen = [len(views) * (2 * i + 1) // (2 * count) for i in range(count)]
    first = torch.stack([views[i]["pixels"][0] for i in chosen])  # (B, 3, …)
    if first.ndim - 1 > len(subject.shape):
        first = first[:, :, 0]  # an image model reads the frames of a clip one by one
    name = opened.source(chosen[0])
    return first, name if count == 1 else f"{name} and {count - 1} more"


def _features(subject: Subject, settings: SegmentationDataSettings) -> tuple[Tensor, str]:
    folder = open_folder(settings.root, settings.layout, settings.features)
    divided = settings.split is not None or folder.has_one_split
    opened = open_data(settings, "test" if divided else "all")
    by_length = sorted(range(len(opened)), key=lambda i: len(opened.annotation(i)))
    sample = opened[by_length[len(by_length) // 2]]
    features = torch.tensor(sample["features"], dtype=torch.float32)
    if features.shape[0] != subject.shape[0]:
        raise ValueError(
            f"{subject.name} reads features of {subject.shape[0]} channels, {settings.root} has "
            f"{features.shape[0]}"
        )
    return features[None], sample["video"]
