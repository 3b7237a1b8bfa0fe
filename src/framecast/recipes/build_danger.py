"""From a recipe of wildfire danger to the task that trains: cubes, or FireCube's published samples."""

from __future__ import annotations

from pathlib import Path

from framecast.data.cube import open_cube
from framecast.data.danger_patches import DangerPatches
from framecast.data.danger_windows import DangerInput, DangerWindows, is_patch_folder
from framecast.tasks.danger import DangerData, DangerTask
from framecast.train.danger_recipe import DangerDataSettings, DangerRecipe


def danger_task(recipe: DangerRecipe) -> DangerTask:
    """Training and scored windows, and the task on them."""
    train_data, validation = open_danger(recipe.data, recipe.data.train), recipe.data.validation
    return DangerTask(
        train_data,
        open_danger(recipe.data, validation) if validation else None,
        model=recipe.model.name,
        model_config=recipe.model.config,
        class_weights=recipe.loss.class_weights,
        noise=recipe.augment.noise if recipe.augment.enabled else None,
        regions=recipe.data.regions,
    )


def open_danger(settings: DangerDataSettings, split: str, reads: DangerInput | None = None) -> DangerData:
    """The windows of one split; reads: what a trained model reads, None = as the cube says."""
    if not settings.root:
        raise ValueError("the recipe names no data; pass --data cube.yaml, or FireCube's folder of samples")
    negatives = settings.negatives if split == settings.train else settings.test_negatives
    if is_patch_folder(settings.root):
        return DangerPatches(
            Path(settings.root),
            split,  # ty: ignore[invalid-argument-type]
            val_year=settings.val_year,
            negatives=negatives,
            seed=settings.sampling_seed,
        )
    return DangerWindows(
        open_cube(settings.root),
        split,
        reads=reads,
        target=settings.target,
        negatives=negatives,
        seed=settings.sampling_seed,
        keep_mb=settings.keep_mb,
    )
