"""From a recipe to the objects that train: data, task."""

from __future__ import annotations

from framecast.data.segmentation import SegmentationData, open_segmentation
from framecast.registry import did_you_mean, find
from framecast.tasks.segmentation import SegmentationTask
from framecast.train.recipe import Recipe, SegmentationDataSettings

TASKS = ("segmentation",)


def get_recipe(name: str) -> Recipe:
    """The registered recipe of that name."""
    return find("recipe", name).load()()


def build_task(recipe: Recipe) -> SegmentationTask:
    """Open the data that the recipe names and make its task; errors name the folder or setting."""
    if recipe.task not in TASKS:
        raise ValueError(f"unknown task {recipe.task!r}{did_you_mean(recipe.task, TASKS)}; known: {', '.join(TASKS)}")
    train_data = open_data(recipe.data, "train" if recipe.data.split is not None else "all")
    eval_data = open_data(recipe.data, "test") if recipe.data.split is not None else None
    return SegmentationTask(
        train_data,
        eval_data,
        model=recipe.model.name,
        model_config=recipe.model.config,
        smoothing=recipe.loss.smoothing,
        clip=recipe.loss.clip,
    )


def open_data(settings: SegmentationDataSettings, subset: str) -> SegmentationData:
    if not settings.root:
        raise ValueError("the recipe names no data; pass --data FOLDER (or --set data.root=FOLDER)")
    return open_segmentation(**settings.model_dump(), subset=subset)  # ty: ignore[invalid-argument-type]
