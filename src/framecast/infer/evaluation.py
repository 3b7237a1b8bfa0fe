"""Scores of a trained model on labelled data, under named protocols."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from framecast.backbones.adaptive_model import AdaptiveModel
from framecast.checkpoints import ModelCard, card_of, load
from framecast.data.question_records import by_clip
from framecast.data.segmentation import SegmentationData, open_folder
from framecast.infer.danger_scores import evaluate_danger
from framecast.infer.map_forecaster import MapForecaster
from framecast.infer.token_statistics import TokenStatistics, macs_around_blocks, token_statistics
from framecast.metrics.anticipation_protocols import get_anticipation_protocol
from framecast.metrics.protocols import get_protocol
from framecast.models.video_panda import VideoPanda
from framecast.recipes.build import anticipation_sides, open_data, open_recognition_data, view_protocol
from framecast.recipes.build_maps import open_map_cube
from framecast.recipes.build_video_qa import question_sides
from framecast.tasks.danger import by_group
from framecast.tasks.forecasting import Sampling, collect_futures
from framecast.tasks.map_forecast import score_maps
from framecast.tasks.recognition import classify, collect_probabilities, views_of
from framecast.tasks.segmentation import check_features_of, collect_predictions
from framecast.tasks.video_qa import score_answers
from framecast.tasks.video_qa_samples import Clips, clip_settings
from framecast.train.anticipation_recipe import (
    AnticipationDataSettings,
    AnticipationRecipe,
    SamplingSettings,
)
from framecast.train.config import load_recipe
from framecast.train.danger_recipe import DangerDataSettings, DangerRecipe
from framecast.train.map_recipe import MapDataSettings, MapRecipe
from framecast.train.recognition_recipe import RecognitionDataSettings, RecognitionRecipe
from framecast.train.segmentation_recipe import SegmentationDataSettings, SegmentationRecipe
from framecast.train.video_qa_recipe import VideoQaDataSettings, VideoQaRecipe
from framecast.writing import json_text, write_file


@dataclass(frozen=True)
class Evaluation:
    """Scores per protocol, with what they were measured on."""

    scores: dict[str, dict[str, float]]  # protocol -> accuracy, edit, f1@10, …
    data: str
    split: int | None
    subset: str  # "test", or "all" where the data has no split
    num_items: int
    model: str
    kind: str = "video"  # or "image"
    tokens: dict[str, TokenStatistics] = field(default_factory=dict)  # per protocol, of an adaptive model
    bins: dict[str, list[float | None]] = field(default_factory=dict)  # of danger: forecast, observed, counts

    def to_json(self) -> dict[str, Any]:
        values = {key: value for key, value in vars(self).items() if key not in ("tokens", "bins")}
        if self.bins:
            values["reliability"] = self.bins
        if self.tokens:
            values["tokens"] = {protocol: found.to_json() for protocol, found in self.tokens.items()}
        return values

    def write(self, path: Path) -> None:
        write_file(path, json_text(self.to_json()) + "\n")


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
    model = load(run, device)
    recipe = load_recipe(run) if (Path(run) / "config.yaml").is_file() else None
    if recipe is None and data is None:
        raise ValueError(f"{run} has no recipe that names its data; pass --data FOLDER")
    changes: dict[str, Any] = {"root": str(data)} if data is not None else {}
    changes |= {"split": split} if split is not None else {}
    if card_of(model).task == "recognition":
        wanted = recipe.data if isinstance(recipe, RecognitionRecipe) else RecognitionDataSettings(root="")
        return evaluate_classifier(model, wanted.model_copy(update=changes), str(run), protocols, device)
    if card_of(model).task == "anticipation":
        wanted, sampling = anticipation_settings(card_of(model), recipe)
        wanted = wanted.model_copy(update=changes)
        return evaluate_forecaster(model, wanted, sampling, str(run), protocols)
    if card_of(model).task == "maps":
        wanted = recipe.data if isinstance(recipe, MapRecipe) else MapDataSettings(root="")
        return evaluate_maps(model, wanted.model_copy(update=changes), str(run), device)
    if card_of(model).task == "danger":
        wanted = recipe.data if isinstance(recipe, DangerRecipe) else DangerDataSettings(root="")
        wanted = wanted.model_copy(update=changes)
        found, count = evaluate_danger(model, wanted, device)
        bins = found.groups[""].reliability().to_json()
        scores = by_group(found)
        return Evaluation(scores, wanted.root, None, wanted.test, count, str(run), "window", bins=bins)
    if card_of(model).task == "video_qa":
        wanted = recipe.data if isinstance(recipe, VideoQaRecipe) else VideoQaDataSettings(root="")
        return evaluate_answers(model, wanted.model_copy(update=changes), str(run), recipe, device)
    for name in protocols or []:
        get_protocol(name)
    plain = SegmentationDataSettings(root="", sample_rate=card_of(model).sample_rate)
    settings = recipe.data if isinstance(recipe, SegmentationRecipe) else plain
    settings = settings.model_copy(update=changes)
    folder = open_folder(settings.root, settings.layout, settings.features)
    divided = settings.split is not None or folder.has_one_split
    opened = open_data(settings, "test" if divided else "all")
    return evaluate_model(model, opened, str(run), protocols, device)


@torch.no_grad()
def evaluate_classifier(
    model: nn.Module,
    settings: RecognitionDataSettings,
    name: str,
    protocols: list[str] | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Score a recognition model on the test side of a data set; by default under its own view protocol."""
    card, config = card_of(model), cast(Any, model).config
    data = open_recognition_data(settings, "test")
    check_classes(card.classes, data.classes, name, data.root)
    scores, tokens = {}, {}
    for wanted in protocols or [card.protocol]:
        protocol = view_protocol(wanted, data.kind)
        views = views_of(data, config, protocol, card.frames, channels=card.channels)
        recording = model.record(with_ids=False) if isinstance(model, AdaptiveModel) else nullcontext()
        with recording as record:
            scores[wanted] = collect_probabilities(model, views, data.classes, protocol, device).compute()
        if isinstance(model, AdaptiveModel) and record is not None:
            around = macs_around_blocks(model, views[0]["pixels"].to(device), classify)
            tokens[wanted] = token_statistics(model, record, around)
    split = settings.split if data.held_back else None
    return Evaluation(scores, str(data.root), split, data.subset, len(data), name, data.kind, tokens)


def anticipation_settings(
    card: ModelCard, recipe: object = None
) -> tuple[AnticipationDataSettings, SamplingSettings]:
    """The data and the sampling of a model's recipe, or what its card says of them."""
    if isinstance(recipe, AnticipationRecipe):
        return recipe.data, recipe.sampling
    observe = card.notes.get("observe", "labels")
    data = AnticipationDataSettings(root="", sample_rate=card.sample_rate, observe=observe)
    return data, SamplingSettings(**card.notes.get("sampling", {}))


def evaluate_forecaster(
    model: nn.Module,
    settings: AnticipationDataSettings,
    sampling: SamplingSettings,
    name: str,
    protocols: list[str] | None = None,
) -> Evaluation:
    """Score futures on the test side of a data set: accuracy, uncertainty and order of actions."""
    train_side, test_side = anticipation_sides(settings)
    data = test_side or train_side
    check_classes(card_of(model).classes, data.classes, name, data.folder.root)
    drawn, scores = Sampling(**sampling.model_dump()), {}
    for wanted in protocols or [card_of(model).protocol]:
        protocol = get_anticipation_protocol(wanted)
        own = replace(drawn, samples=protocol.samples or drawn.samples)
        metrics = collect_futures(model, data, protocol, own)
        scores[wanted] = (
            metrics.compute(protocol) | metrics.uncertainty(protocol) | metrics.transcript(protocol)
        )
    return Evaluation(scores, str(data.folder.root), data.split, data.subset, len(data), name)


def evaluate_maps(
    model: nn.Module, settings: MapDataSettings, name: str, device: torch.device | str = "cpu"
) -> Evaluation:
    """Score maps on the test split of a cube, whole and by season and region, against its climatology."""
    forecaster = MapForecaster(model, device=device)
    series = forecaster.series(open_map_cube(settings), train=settings.train, split=settings.test)
    scoring = replace(forecaster.scoring, regions=settings.regions)
    found = score_maps(model, series, scoring, device)
    groups = {"test": (), "by season and region": None}
    scores = {title: found.compute(wanted) for title, wanted in groups.items()}
    return Evaluation(scores, settings.root, None, settings.test, len(series), name, "map")


def evaluate_answers(
    model: nn.Module,
    settings: VideoQaDataSettings,
    name: str,
    recipe: object = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Score greedy answers to the held-back questions of a data set, by exact and by loose match."""
    panda, length = cast(VideoPanda, model), 32
    if isinstance(recipe, VideoQaRecipe):
        length = recipe.max_new_tokens
    _, held = question_sides(settings)
    if not held:
        raise ValueError(f"{settings.root} holds no questions back; set data.test, or data.holdout above 0")
    clips, blind = Clips(clip_settings(panda), settings.keep_mb), bool(card_of(model).notes.get("blind"))
    found = score_answers(panda, by_clip(held), clips, device, length, blind=blind)
    by_type = {f"type {kind}": scores for kind, scores in found.per_type().items()}
    scores = {"answers": found.compute(), **by_type}
    return Evaluation(scores, settings.root, None, "test", len(held), name, "question")


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
    check_classes(card.classes, data.classes, name, data.folder.root)
    check_features_of(card.features, data, wanted_dim=cast(Any, model).config.feature_dim)
    metrics = collect_predictions(model, data, device)
    scores = {p: metrics.compute(p) for p in protocols or data.protocols}
    return Evaluation(scores, str(data.folder.root), data.split, data.subset, len(data), name)


def check_classes(known: tuple[str, ...], found: tuple[str, ...], name: str, root: Path) -> None:
    """ValueError where the data has other classes than the model, or another order."""
    if known != found:
        differing = sorted(set(known) ^ set(found))[:4]
        raise ValueError(
            f"{name} knows {len(known)} classes and {root} has {len(found)} "
            f"(differing: {', '.join(differing) or 'only their order'}); "
            "evaluate on data with the same mapping"
        )
