"""Recipes: YAML round trip, overrides, messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framecast.settings import parse_value
from framecast.train.config import (
    apply_overrides,
    differences,
    dump_recipe,
    load_recipe,
    save_recipe,
)
from framecast.train.segmentation_recipe import SegmentationRecipe

from .tiny_task import tiny_recipe


def test_yaml_round_trip(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        optim={"lr": 1e-5, "betas": (0.9, 0.95)},
        schedule={"name": "cosine", "hold": 15, "t_max": 165, "min_lr": 5e-5},
        model={"name": "ltcontext", "config": {"num_stages": 4, "dropout": 2e-1}},
        log=("tensorboard",),
        expected="60 % F1@50 – 2 h on one GPU",
    )
    save_recipe(recipe, tmp_path / "config.yaml")
    assert load_recipe(tmp_path / "config.yaml") == recipe
    assert load_recipe(tmp_path) == recipe  # a run folder


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_every_float_survives_yaml_and_the_command_line(value: float) -> None:
    assert parse_value(repr(value)) == value
    recipe = apply_overrides(tiny_recipe(), [f"model.config.x={value!r}"])
    assert recipe.model.config["x"] == value
    assert SegmentationRecipe.model_validate(parse_value(dump_recipe(recipe))) == recipe


def test_overrides_are_typed() -> None:
    recipe = apply_overrides(
        tiny_recipe(),
        [
            "optim.lr=3e-4",
            "optim.betas=[0.8, 0.9]",
            "ema_decay=0.99",
            "model.config.num_stages=3",
            "select=f1@50",
        ],
    )
    assert recipe.optim.lr == 3e-4
    assert recipe.optim.betas == (0.8, 0.9)
    assert recipe.ema_decay == 0.99
    assert recipe.model.config == {"num_stages": 3}
    assert recipe.select == "f1@50"
    assert apply_overrides(recipe, ["ema_decay=null"]).ema_decay is None


def test_steps_replace_epochs() -> None:
    recipe = apply_overrides(tiny_recipe(epochs=3), ["steps=100"])
    assert (recipe.steps, recipe.epochs) == (100, None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", "did you mean 'optim.lr'"),
        ("lr=1", "did you mean 'optim.lr'"),
        ("optim.lr=fast", "optim.lr.*valid number.*'fast'"),
        ("optim.lr=-1", "optim.lr.*greater than 0"),
        ("optim.lr", "not of the form key=value"),
        ("seed.x=1", "seed is a single value"),
        ("epochs=null", "either epochs or steps"),
        ("optim={lrr: 1}", "unknown setting 'optim.lrr', did you mean 'optim.lr'"),
        ("precision=fp8", "precision.*'fp8'"),
        ("optim.lr=[1", "not a YAML value"),
        ("schedule.name=warmup_cosine", "needs warmup"),
    ],
)
def test_a_wrong_override_is_explained_in_one_line(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        apply_overrides(tiny_recipe(), [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: [", "not valid YAML"),
        ("- 1", "holds list"),
        ("name: a", "model: Field required"),
        ("epochs: 1\nnam: a", "did you mean 'name'"),
        ("a: !!python/object/apply:os.system ['echo']", "not valid YAML"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recipe at"):
        load_recipe(tmp_path / "nothing.yaml")


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        tiny_recipe().seed = 3  # ty: ignore[invalid-assignment]


def test_length_may_change_on_resume_and_learning_rate_may_not() -> None:
    old = tiny_recipe().model_dump(mode="json")
    del old["optim"]["nesterov"]  # a run of a version that did not know it
    assert differences(tiny_recipe(epochs=99, num_workers=2), old) == []
    assert differences(tiny_recipe(optim={"lr": 0.5, "weight_decay": 0.01}), old) == [
        "optim.lr is 0.5 now and was 0.01"
    ]
