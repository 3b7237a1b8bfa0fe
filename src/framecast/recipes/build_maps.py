"""From a recipe of maps ahead to its cube, its samples and its task."""

from __future__ import annotations

from typing import Any, Literal

from framecast.data.cube import Cube, open_cube
from framecast.data.map_scaling import MapScaling, MapWindow, fit_scaling
from framecast.data.map_series import MapSeries
from framecast.nn.perceptual import PerceptualDistance
from framecast.registry import did_you_mean
from framecast.tasks.map_forecast import MapForecastTask, MapScoring
from framecast.train.map_recipe import MapDataSettings, MapLossSettings, MapRecipe
from framecast.weight_files import read_weights


def map_task(recipe: MapRecipe) -> MapForecastTask:
    """Open the cube, fit standardisation and climatology on its training split, and make the task."""
    settings = recipe.data
    cube = open_map_cube(settings)
    window = window_from(settings, cube)
    scaling = fit_scaling(cube, window, settings.train)
    augment = recipe.augment.model_dump()
    eval_data = None
    if settings.validation is not None:
        eval_data = map_series(settings, "validation", cube, window, scaling)
    return MapForecastTask(
        map_series(settings, "train", cube, window, scaling, **augment),
        eval_data,
        model=recipe.model.name,
        model_config=recipe.model.config,
        difference=recipe.loss.difference,
        loss_weights=recipe.loss.weights,
        perceptual=perceptual_of(recipe.loss),
        perceptual_weight=recipe.loss.perceptual_weight,
        scoring=scoring_from(settings),
    )


def open_map_cube(settings: MapDataSettings) -> Cube:
    """The cube that the recipe names; ValueError where it names none."""
    if not settings.root:
        raise ValueError("the recipe names no data; pass --data CUBE.yaml (or --set data.root=CUBE.yaml)")
    return open_cube(settings.root)


def window_from(settings: MapDataSettings, cube: Cube) -> MapWindow:
    """What samples read and are asked; ValueError for targets that the cube does not have."""
    targets = settings.targets or cube.target_names
    for key in ("targets", "vegetation", "temperature"):
        given = getattr(settings, key)
        for name in (given,) if isinstance(given, str) else given or ():
            if name not in targets or name not in cube.target_names:
                known = ", ".join(cube.target_names) or "none"
                raise ValueError(
                    f"data.{key} names {name!r}, which is no target of {cube.path}"
                    f"{did_you_mean(name, cube.target_names)}; it has {known}"
                )
    shared = {"steps", "leads", "past_targets", "season", "place", "corrects", "anomalies", "periods"}
    return MapWindow(targets=tuple(targets), **settings.model_dump(include=shared))


def scoring_from(settings: MapDataSettings) -> MapScoring:
    return MapScoring(settings.vegetation, settings.temperature, settings.regions)


def map_series(
    settings: MapDataSettings,
    part: Literal["train", "validation", "test"],
    cube: Cube,
    window: MapWindow,
    scaling: MapScaling,
    **augment: Any,
) -> MapSeries:
    """Samples of a part of the cube, by the name that the recipe gives to it."""
    split = getattr(settings, part)
    return MapSeries(cube, window, scaling, split=split, keep_mb=settings.keep_mb, **augment)


def perceptual_of(loss: MapLossSettings) -> PerceptualDistance | None:
    """VGG19 with the weights that the recipe names, or None."""
    if loss.perceptual is None:
        return None
    distance = PerceptualDistance()
    distance.load_vgg19(read_weights(loss.perceptual).tensors)
    return distance.eval()
