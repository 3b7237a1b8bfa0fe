"""From a recipe to the objects that train: data, task."""

from __future__ import annotations

from framecast.data.folders import AnnotationFolder
from framecast.data.segmentation import SegmentationData, open_folder, open_segmentation
from framecast.registry import find
from framecast.tasks.segmentation import SegmentationTask
from framecast.tasks.segmentation_augment import Augmentation
from framecast.train.recipe import Recipe
from framecast.train.segmentation_recipe import SegmentationDataSettings, SegmentationRecipe
from framecast.train.task import Task


def get_recipe(name: str) -> Recipe:
    """The registered recipe of that name."""
    return find("recipe", name).load()()


def build_task(recipe: Recipe) -> Task:
    """Open the data that the recipe names and make its task; errors name the folder or setting."""
    assert isinstance(recipe, SegmentationRecipe)
    return segmentation_task(recipe)


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
        raise ValueError("the recipe names no data; pass --data FOLDER (or --set data.root=FOLDER)")
    return open_folder(settings.root, settings.layout, settings.features)


def split_names(recipe: Recipe, wanted: str) -> list[int]:
    """ "all" or "1,3" as split numbers of the recipe's data: its own splits, or its folds."""
    if wanted != "all":
        try:
            return [int(part) for part in wanted.split(",")]
        except ValueError:
            raise ValueError(f'splits {wanted!r} are neither "all" nor numbers such as 1,3') from None
    assert isinstance(recipe, SegmentationRecipe)
    if recipe.data.folds:
        return list(range(1, recipe.data.folds + 1))
    folder = _folder(recipe.data)
    return folder.splits or list(range(1, min(5, len(folder.videos)) + 1))
