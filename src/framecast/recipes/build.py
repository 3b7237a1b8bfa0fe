"""From a recipe to the objects that train: data, task."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import Any, Literal, cast

import numpy as np
from torch import nn

from framecast.checkpoints import load
from framecast.data.anticipation import AnticipationData, open_anticipation
from framecast.data.folders import AnnotationFolder
from framecast.data.holdout import num_shares
from framecast.data.recognition import RecognitionData, Subset, open_recognition
from framecast.data.segmentation import SegmentationData, open_folder, open_segmentation
from framecast.data.transforms import BatchMix, TransformSettings
from framecast.infer.backbone import open_backbone, start_model
from framecast.metrics.view_protocols import (
    ViewProtocol,
    default_view_protocol,
    get_view_protocol,
    list_view_protocols,
)
from framecast.recipes.build_danger import danger_task
from framecast.recipes.build_maps import map_task
from framecast.recipes.build_video_qa import video_qa_task
from framecast.registry import entries, find
from framecast.tasks.anticipation import DenseAnticipationTask, ObservedShares
from framecast.tasks.forecasting import Sampling
from framecast.tasks.imitation import MaskedPretrainingTask, SelfDistillationTask
from framecast.tasks.label_anticipation import LabelAnticipationTask
from framecast.tasks.linear_probe import LinearProbeTask
from framecast.tasks.recognition import RecognitionTask, checked_classes
from framecast.tasks.segmentation import SegmentationTask
from framecast.tasks.segmentation_augment import Augmentation
from framecast.train.anticipation_recipe import AnticipationDataSettings, AnticipationRecipe
from framecast.train.danger_recipe import DangerRecipe
from framecast.train.map_recipe import MapRecipe
from framecast.train.recipe import Recipe
from framecast.train.recognition_recipe import RecognitionDataSettings, RecognitionRecipe
from framecast.train.segmentation_recipe import SegmentationDataSettings, SegmentationRecipe
from framecast.train.task import Task
from framecast.train.video_qa_recipe import VideoQaRecipe

NO_DATA = "the recipe names no data; pass --data FOLDER (or --set data.root=FOLDER)"


def get_recipe(name: str) -> Recipe:
    """The registered recipe of that name."""
    return find("recipe", name).load()()


def build_task(recipe: Recipe) -> Task:
    """Open the data that the recipe names and make its task; errors name the folder or setting."""
    match recipe:
        case SegmentationRecipe():
            return segmentation_task(recipe)
        case RecognitionRecipe():
            return recognition_task(recipe)
        case AnticipationRecipe():
            return anticipation_task(recipe)
        case MapRecipe():
            return map_task(recipe)
        case DangerRecipe():
            return danger_task(recipe)
        case VideoQaRecipe():
            return video_qa_task(recipe)
    raise AssertionError(f"no task for {type(recipe).__name__}")


def recognition_task(recipe: RecognitionRecipe) -> RecognitionTask:
    data, augment, name = recipe.data, recipe.augment, recipe.model.name
    train_data, eval_data = open_recognition_data(data, "train"), open_recognition_data(data, "test")
    protocol = view_protocol(data.protocol, train_data.kind)
    config = dict(recipe.model.config)
    config["num_classes"] = checked_classes(config, train_data)
    start = start_model(name, recipe.weights, config) if recipe.weights else None
    mixing = {"mixup", "cutmix", "mix_prob", "mix_switch", "repeats"}

    def transform(config: Any) -> TransformSettings:
        given = augment.model_dump(exclude=mixing)
        return TransformSettings(image_size=config.image_size, mean=config.mean, std=config.std, **given)

    def mix(num_classes: int) -> BatchMix:
        return BatchMix(
            num_classes,
            mixup=augment.mixup,
            cutmix=augment.cutmix,
            prob=augment.mix_prob,
            switch=augment.mix_switch,
            smoothing=recipe.loss.smoothing,
        )

    kinds: dict[str, type[RecognitionTask]] = {
        "classes": LinearProbeTask if recipe.trainable == "head" else RecognitionTask,
        "self_distillation": SelfDistillationTask,
        "masked_pretraining": MaskedPretrainingTask,
    }
    task = kinds[recipe.loss.objective](
        train_data,
        eval_data,
        model=name,
        model_config=config if start is None else asdict(cast(Any, start).config),
        protocol=protocol,
        transform=transform,
        frames=data.frames,
        sampling=data.sampling,
        stride=data.stride,
        fps=data.fps,
        channels=data.channels,
        repeats=augment.repeats,
        mix=mix if augment.mixup or augment.cutmix else None,
        smoothing=recipe.loss.smoothing,
        start=start,
    )
    if isinstance(task, LinearProbeTask):
        if start is None:
            raise ValueError('trainable=head needs trained weights below the head; set weights (or "known")')
        made_by = recipe.model_dump(include={"model", "weights"}) | {"data": recipe.data.model_dump()}
        del made_by["data"]["split"], made_by["data"]["holdout"]  # do not change what an item looks like
        task.known = features_made_by(json.dumps(made_by, sort_keys=True))
    if isinstance(task, SelfDistillationTask | MaskedPretrainingTask):
        task.set_teacher(open_teacher(recipe.loss.teacher or ""))
    if isinstance(task, SelfDistillationTask):
        task.weight = recipe.loss.teacher_weight
    if isinstance(task, MaskedPretrainingTask):
        task.keep = recipe.loss.keep
    return task


def open_teacher(name: str) -> nn.Module:
    """A backbone by name with its known weights, or a saved model."""
    return open_backbone(name)[0] if name in entries("model") else load(name)


@cache
def features_made_by(settings: str) -> dict[str, np.ndarray]:
    """Frozen features by source, kept while the process lives: runs of a study share them."""
    return {}


def view_protocol(name: str | None, kind: Literal["image", "video"]) -> ViewProtocol:
    """The protocol of that name, or the plainest for the kind; ValueError where it is for the other kind."""
    protocol = get_view_protocol(name) if name else default_view_protocol(kind)
    if protocol.kind != kind:
        known = ", ".join(p for p in list_view_protocols() if get_view_protocol(p).kind == kind)
        raise ValueError(
            f"protocol {name} is for {protocol.kind}s and the data are {kind}s; take one of {known}"
        )
    return protocol


def open_recognition_data(settings: RecognitionDataSettings, subset: Subset) -> RecognitionData:
    if not settings.root:
        raise ValueError(NO_DATA)
    opening = {"layout", "annotations", "holdout", "group_by", "label_by", "split", "keep_mb"}
    return open_recognition(settings.root, subset=subset, **settings.model_dump(include=opening))


def segmentation_task(recipe: SegmentationRecipe) -> SegmentationTask:
    augment = recipe.augment.model_dump()
    folder = _folder(recipe.data)
    divided = recipe.data.split is not None or folder.has_one_split
    train_data = open_data(recipe.data, "train" if divided else "all")
    eval_data = open_data(recipe.data, "test") if divided else None
    return SegmentationTask(
        train_data,
        eval_data,
        model=recipe.model.name,
        model_config=recipe.model.config,
        smoothing=recipe.loss.smoothing,
        clip=recipe.loss.clip,
        average=recipe.loss.average,
        augmentation=Augmentation(**augment) if any(augment.values()) else None,
    )


def open_data(settings: SegmentationDataSettings, subset: str) -> SegmentationData:
    return open_segmentation(**settings.model_dump(), subset=subset)  # ty: ignore[invalid-argument-type]


def _folder(settings: SegmentationDataSettings) -> AnnotationFolder:
    if not settings.root:
        raise ValueError(NO_DATA)
    return open_folder(settings.root, settings.layout, settings.features)


def anticipation_task(recipe: AnticipationRecipe) -> DenseAnticipationTask | LabelAnticipationTask:
    train_data, eval_data = anticipation_sides(recipe.data)
    given: dict[str, Any] = {
        "model": recipe.model.name,
        "model_config": recipe.model.config,
        "protocol": recipe.protocol,
        "sampling": Sampling(**recipe.sampling.model_dump()),
        "class_weight": recipe.loss.class_weight,
    }
    if "labels" in find("model", recipe.model.name).tags:
        return LabelAnticipationTask(train_data, eval_data, **given)
    shares = ObservedShares(**recipe.observed.model_dump())
    return DenseAnticipationTask(
        train_data, eval_data, shares=shares, noise_bias=recipe.loss.noise_bias, **given
    )


def anticipation_sides(
    settings: AnticipationDataSettings,
) -> tuple[AnticipationData, AnticipationData | None]:
    """Training and test side; without a split everything is trained on."""
    if settings.split is None and not _folder(settings).has_one_split:
        return open_anticipation(**settings.model_dump(), subset="all"), None
    train_data = open_anticipation(**settings.model_dump(), subset="train")
    return train_data, open_anticipation(**settings.model_dump(), subset="test")


def split_names(recipe: Recipe, wanted: str) -> list[int]:
    """ "all" or "1,3" as split numbers of the recipe's data; ValueError where it does not have them."""
    known = known_splits(recipe)
    if wanted == "all":
        return known
    try:
        numbers = [int(part) for part in wanted.split(",")]
    except ValueError:
        raise ValueError(f'splits {wanted!r} are neither "all" nor numbers such as 1,3') from None
    if missing := [number for number in numbers if number not in known]:
        raise ValueError(f"{recipe.data.root} has no split {missing[0]}; its splits are {known}")
    return list(dict.fromkeys(numbers))


def known_splits(recipe: Recipe) -> list[int]:
    """Numbers of the data's own splits, its folds, or its hold-outs; data with fixed sides has one."""
    if isinstance(recipe, RecognitionRecipe):
        held_back = open_recognition_data(recipe.data.model_copy(update={"split": None}), "test").held_back
        return list(range(1, num_shares(recipe.data.holdout) + 1)) if held_back else [1]
    if isinstance(recipe, MapRecipe | DangerRecipe | VideoQaRecipe):
        return [1]  # a cube says itself what is trained on and what is tested; questions have one division
    assert isinstance(recipe, SegmentationRecipe | AnticipationRecipe)
    if recipe.data.folds:
        return list(range(1, recipe.data.folds + 1))
    folder = _folder(recipe.data)
    if folder.has_one_split:
        return [1]
    return folder.splits or list(range(1, min(5, len(folder.videos)) + 1))
