"""Every registered recipe is valid and trains on the look-alike of its data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import framecast as fc
from framecast.data.synthetic import write_lookalike
from framecast.data.synthetic_cubes import write_fire_cube
from framecast.data.synthetic_drought import write_tsmp_folder
from framecast.data.synthetic_recognition import write_recognition_lookalike
from framecast.recipes.build import build_task, get_recipe, split_names
from framecast.train.config import apply_overrides, dump_recipe
from framecast.train.danger_recipe import DangerRecipe
from framecast.train.loop import check_selection
from framecast.train.map_recipe import MapRecipe
from framecast.train.recipe import Recipe
from framecast.train.recognition_recipe import RecognitionRecipe
from framecast.train.video_qa_recipe import VideoQaRecipe
from map_cube import write_map_cube
from tiny_language_model import tiny_language_model
from video_factory import write_video

LOOKALIKES = {"auto": "mstcn"}
SMALL = {"image_size": 32, "patch_size": 8, "depth": 2, "width": 48, "num_heads": 3, "num_frames": 4}


def on_lookalike(name: str, folder: Path):
    recipe = get_recipe(name)
    if isinstance(recipe, RecognitionRecipe):
        return small_on_lookalike(recipe, folder)
    if isinstance(recipe, MapRecipe):
        return maps_on_lookalike(recipe, folder)
    if isinstance(recipe, DangerRecipe):
        cube = write_fire_cube(folder, days=120, cells=48, start="2018-06-01")
        return apply_overrides(recipe, [f"data.root={cube}"])
    if isinstance(recipe, VideoQaRecipe):
        return questions_on_lookalike(recipe, folder)
    layout = LOOKALIKES.get(recipe.data.layout, recipe.data.layout)
    write_lookalike(layout, folder, seed=1, num_videos=10, feature_dim=recipe.data.feature_dim or 16)
    return apply_overrides(recipe, [f"data.root={folder}"])


def small_on_lookalike(recipe: RecognitionRecipe, folder: Path) -> Recipe:
    """A small model of the recipe's kind, from random weights, so without a teacher."""
    with torch.device("meta"):
        config = fc.create_model(recipe.model.name, **recipe.model.config).config
    settings = {k: v for k, v in SMALL.items() if getattr(config, k, None)}
    if hasattr(config, "group_frames"):
        settings |= {"num_frames": 8, "group_frames": 4}
    clips = recipe.data.frames or getattr(config, "num_frames", None)
    layout = "folders" if recipe.data.layout == "auto" else recipe.data.layout
    kind = "video" if clips else "image"
    write_recognition_lookalike(layout, folder, seed=1, kind=None if layout == "ssv2" else kind)
    changes = [f"model.config.{key}={value}" for key, value in settings.items()]
    changes += ["weights=null", "trainable=all", "data.group_by=null", "data.split=null"]
    changes += ["loss.objective=classes", "loss.teacher=null"]
    return apply_overrides(recipe, [f"data.root={folder}", *changes])


def maps_on_lookalike(recipe: MapRecipe, folder: Path) -> Recipe:
    """The published setting on weeks of a simulation, the others on half-months of a small region."""
    if recipe.data.targets:
        widths = ["model.config.widths=[6, 12, 24]", f"data.root={write_tsmp_folder(folder, cells=24)}"]
        return apply_overrides(recipe, widths)
    return apply_overrides(recipe, [f"data.root={write_map_cube(folder)}"])


def questions_on_lookalike(recipe: VideoQaRecipe, folder: Path) -> Recipe:
    """A tiny language model, two clips with a question each."""
    language = tiny_language_model(folder / "language")
    talks = []
    for name in ("a", "b"):
        write_video(folder / f"{name}.mp4", 8)
        said = [{"from": "human", "value": "<video>\nwhat?"}, {"from": "gpt", "value": "cat"}]
        talks.append({"video": f"{name}.mp4", "conversations": said})
    (folder / "talks.json").write_text(json.dumps(talks))
    eyes = {
        "width": 16,
        "num_heads": 2,
        "temporal_heads": 2,
        "patch_size": 8,
        "image_size": 32,
        "num_frames": 4,
    }
    changes = [f"data.root={folder / 'talks.json'}", "data.layout=instructions", f"data.videos={folder}"]
    changes += [f"model.config.language_model={language}", f"model.config.stab={json.dumps(eyes)}"]
    return apply_overrides(recipe, [*changes, "alignment.teacher=null", "data.holdout=0"])


@pytest.mark.parametrize("name", fc.list_recipes())
def test_recipe_takes_a_step_on_its_lookalike(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = on_lookalike(name, tmp_path / "data")
    task = build_task(recipe)
    model = task.build_model()
    loss, parts = task.loss(model, task.collate([task.train_data[i] for i in range(2)]))
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 0
    assert parts.get("cross_entropy", 1) > 0
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    check_selection(recipe, task)


@pytest.mark.parametrize("name", fc.list_recipes())
def test_recipe_says_its_name_its_cost_and_its_command(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    doc = fc.registry.find("recipe", name).doc
    assert f"framecast train {name}" in doc
    assert dump_recipe(recipe)


def test_without_data_the_remedy_is_named() -> None:
    with pytest.raises(ValueError, match="pass --data FOLDER"):
        build_task(get_recipe("segmentation"))


def test_all_splits_of_recognition_are_its_shares(tmp_path: Path) -> None:
    write_recognition_lookalike("table", tmp_path / "data", kind="image")
    write_recognition_lookalike("folders", tmp_path / "sides", kind="image")  # has train/ and test/
    recipe = apply_overrides(get_recipe("recognition"), [f"data.root={tmp_path / 'data'}"])
    assert split_names(recipe, "all") == [1, 2, 3, 4, 5]
    assert split_names(apply_overrides(recipe, ["data.holdout=0.3"]), "all") == [1, 2, 3]
    assert split_names(apply_overrides(recipe, [f"data.root={tmp_path / 'sides'}"]), "all") == [1]
    with pytest.raises(ValueError, match="has no split 6"):
        split_names(recipe, "1,6")


def test_all_splits_are_those_of_the_folder(tmp_path: Path) -> None:
    recipe = on_lookalike("breakfast_ltcontext", tmp_path / "data")
    assert split_names(recipe, "all") == [1, 2, 3, 4]
    assert split_names(recipe, "2,4") == [2, 4]
    with pytest.raises(ValueError, match="neither"):
        split_names(recipe, "first")
    with pytest.raises(ValueError, match=r"has no split 9; its splits are \[1, 2, 3, 4\]"):
        split_names(recipe, "1,9")
