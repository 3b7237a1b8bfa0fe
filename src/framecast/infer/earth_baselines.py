"""Baselines of a run's own cube: fitted on its training side, scored on its test side, like the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from framecast.data.map_scaling import fit_scaling
from framecast.infer import danger_baselines, map_baselines
from framecast.infer.evaluation import Evaluation
from framecast.recipes.build_danger import open_danger
from framecast.recipes.build_maps import map_series, open_map_cube, scoring_from, window_from
from framecast.registry import did_you_mean
from framecast.tasks.danger import by_group
from framecast.train.config import load_recipe
from framecast.train.danger_recipe import DangerDataSettings, DangerRecipe
from framecast.train.map_recipe import MapDataSettings, MapRecipe


def evaluate_earth_baselines(
    names: Sequence[str], run: str | Path, data: str | Path | None = None
) -> dict[str, Evaluation]:
    """Scores by name; "all" is every one that the task has. data: another cube of the same variables.

    Raises ValueError for an unknown name and for a model without the recipe of its training.
    """
    recipe = load_recipe(run) if (Path(run) / "config.yaml").is_file() else None
    if not isinstance(recipe, MapRecipe | DangerRecipe):
        raise ValueError(
            f"{run} is no run folder of a model of danger or maps, whose recipe says what baselines read; "
            "train one first"
        )
    changes = {} if data is None else {"root": str(data)}
    known = tuple(map_baselines.BASELINES if isinstance(recipe, MapRecipe) else danger_baselines.BASELINES)
    wanted = list(dict.fromkeys(name for word in names for name in (known if word == "all" else [word])))
    for name in wanted:
        if name not in known:
            raise ValueError(
                f"unknown baseline {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}"
            )
    settings = recipe.data.model_copy(update=changes)
    if isinstance(settings, MapDataSettings):
        return of_maps(wanted, settings)
    return of_danger(wanted, settings)


def of_maps(names: Sequence[str], settings: MapDataSettings) -> dict[str, Evaluation]:
    cube = open_map_cube(settings)
    window = window_from(settings, cube)
    scaling = fit_scaling(cube, window, settings.train)
    train, test = (map_series(settings, part, cube, window, scaling) for part in ("train", "test"))
    validation = map_series(settings, "validation", cube, window, scaling) if settings.validation else None
    found = {}
    for name in names:
        fitted = map_baselines.fit_baseline(name, train, validation)
        scores = map_baselines.score_baseline(fitted, test, scoring_from(settings))
        groups = {"test": scores.compute(()), "by season and region": scores.compute()}
        found[name] = Evaluation(groups, settings.root, None, settings.test, len(test), name, "map")
    return found


def of_danger(names: Sequence[str], settings: DangerDataSettings) -> dict[str, Evaluation]:
    train, test = (open_danger(settings, part) for part in (settings.train, settings.test))
    scores = danger_baselines.score_baselines(tuple(names), train, test, settings.regions)
    return {
        name: Evaluation(by_group(one), settings.root, None, settings.test, len(test), name, "window")
        for name, one in scores.items()
    }
