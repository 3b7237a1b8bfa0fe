"""Recipes as YAML, and single values changed from the command line.

recipe = apply_overrides(load_recipe("runs/a/config.yaml"), ["optim.lr=3e-4", "epochs=20"])
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from framecast.registry import did_you_mean
from framecast.settings import parse_value, read_yaml, validated, yaml_text
from framecast.train.anticipation_recipe import AnticipationRecipe
from framecast.train.danger_recipe import DangerRecipe
from framecast.train.map_recipe import MapRecipe
from framecast.train.recipe import Recipe
from framecast.train.recognition_recipe import RecognitionRecipe
from framecast.train.segmentation_recipe import SegmentationRecipe
from framecast.train.video_qa_recipe import VideoQaRecipe
from framecast.writing import write_file

RECIPES: dict[str, type[Recipe]] = {
    "segmentation": SegmentationRecipe,
    "recognition": RecognitionRecipe,
    "anticipation": AnticipationRecipe,
    "maps": MapRecipe,
    "danger": DangerRecipe,
    "video_qa": VideoQaRecipe,
}

# What a resumed run may change: none of it alters which numbers the model has seen.
RESUMABLE = {
    *("epochs", "steps", "num_workers", "data.root", "parallel", "accumulate", "activation_checkpointing"),
    *("eval_every", "save_every", "eval_every_steps", "save_every_steps", "keep_last"),
    *("log", "log_every", "watch_every", "expected", "name", "unused_parameters"),
}


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from YAML; ValueError names the file and the setting that is wrong."""
    path = Path(path)
    if path.is_dir():
        path = path / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"no recipe at {path}; pass a .yaml file or a run folder with config.yaml")
    return _validated(read_yaml(path, "epochs: 20"), str(path))


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML text that `load_recipe` reads back to an equal recipe."""
    return yaml_text(recipe.model_dump(mode="json"))


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    write_file(Path(path), dump_recipe(recipe))


def apply_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A recipe with `key=value` changes, for example `["optim.lr=3e-4", "model.config.num_stages=3"]`.

    Values are YAML. Setting `steps` drops `epochs` and the other way round. Unknown keys and wrong
    values raise ValueError with the nearest known key.
    """
    values = recipe.model_dump(mode="json")
    given: set[str] = set()
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ValueError(f"override {override!r} is not of the form key=value, for example optim.lr=3e-4")
        try:
            value = parse_value(text)
        except yaml.YAMLError:
            raise ValueError(f"override {override!r}: {text!r} is not a YAML value; quote it") from None
        _set(values, recipe, key, value)
        given.add(key)
    for length, other in (("steps", "epochs"), ("epochs", "steps")):
        if length in given and other not in given:
            values[other] = None
    return _validated(values, "--set")


def differences(new: Recipe, old: dict[str, Any]) -> list[str]:
    """Settings in which a run may not be resumed with `new` after it was started with `old` (dumped).

    A setting that did not exist yet when the run was started counts as having had its default.
    """
    mine, theirs = _flat(new.model_dump(mode="json")), _flat(old)
    needed = {name: old[name] for name in ("name", "task", "model", "data", "epochs", "steps")}
    defaults = (
        _flat(type(new).model_validate(needed).model_dump(mode="json")) if new.task == old["task"] else {}
    )
    theirs = defaults | theirs
    return [
        f"{key} is {mine.get(key)!r} now and was {theirs.get(key)!r}"
        for key in sorted(set(mine) | set(theirs))
        if key not in RESUMABLE and mine.get(key) != theirs.get(key)
    ]


def _set(values: dict[str, Any], recipe: Recipe, key: str, value: Any) -> None:
    """Put value at the dotted key; free dictionaries such as model.config take any key."""
    settings: Any = recipe
    *parents, last = key.split(".")
    for depth, part in enumerate([*parents, last]):
        if isinstance(settings, BaseModel):
            if part not in type(settings).model_fields:
                raise ValueError(_unknown(recipe, key, ".".join(key.split(".")[:depth]), settings))
            settings = getattr(settings, part)
        elif isinstance(settings, dict):
            settings = settings.get(part, {})
        else:
            raise ValueError(
                f"{'.'.join(key.split('.')[:depth])} is a single value, it has no setting {part!r}; "
                f"set it with {'.'.join(key.split('.')[:depth])}=VALUE"
            )
    for part in parents:
        values = values.setdefault(part, {})
    values[last] = value


def _unknown(recipe: Recipe, key: str, owner: str, settings: BaseModel) -> str:
    """Message for an unknown key: the nearest full key, else what the owner has."""
    keys = list(_keys(recipe))
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    if not near:  # `lr` for `optim.lr`
        leaf = key.rpartition(".")[2]
        ends = {k.rpartition(".")[2]: k for k in reversed(keys)}
        near = [ends[match] for match in difflib.get_close_matches(leaf, list(ends), n=1, cutoff=0.6)]
    hint = f", did you mean {near[0]!r}?" if near else ""
    known = ", ".join(type(settings).model_fields)
    return f"the recipe has no setting {key!r}{hint}; settings of {owner or 'a recipe'} are {known}"


def _keys(settings: BaseModel, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings."""
    for name in type(settings).model_fields:
        yield prefix + name
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{prefix}{name}.")


def _validated(values: dict[str, Any], source: str) -> Recipe:
    """The recipe of its task."""
    task = values.get("task", "segmentation")  # may be left out there
    if task not in RECIPES:
        near = did_you_mean(str(task), RECIPES)
        raise ValueError(f"{source}: unknown task {task!r}{near}; known: {', '.join(RECIPES)}")
    return validated(RECIPES[task], values, source)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out
