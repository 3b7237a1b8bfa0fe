"""Trained models that ship with framecast: found by name, small, attributed, and able to do their job."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import framecast as fc
from framecast.checkpoints import card_of, model_folder
from framecast.cli import run
from framecast.data.timelines import read_timelines
from framecast.infer.evaluation import anticipation_settings
from framecast.weights import HOME, kitchen_timeline, shipped_models

NAMES = sorted(shipped_models())


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_loads_by_its_name(name: str) -> None:
    model = fc.load(name)
    assert not model.training
    assert all(p.dtype == torch.float32 for p in model.parameters())  # whatever the file holds
    assert card_of(model).task == "anticipation"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_says_whose_data_it_learned_from(name: str) -> None:
    folder = model_folder(name)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    for needed in ("Kuehne", "Breakfast Actions", "CC BY 4.0", "What it is for", "What it is not for"):
        assert needed in card
    assert card_of(fc.load(name)).licence == "CC BY 4.0"


def test_it_can_be_scored_without_the_recipe_of_its_training() -> None:
    settings, sampling = anticipation_settings(card_of(fc.load("breakfast_futures")))
    assert settings.observe == "labels"
    assert settings.sample_rate > 1
    assert sampling.samples == 25


def test_the_kitchen_timeline_is_one_that_the_model_knows_the_words_of() -> None:
    classes = card_of(fc.load("breakfast_futures")).classes
    (whole,) = read_timelines(kitchen_timeline(), classes)
    assert whole.limits_s is not None
    assert whole.limits_s[-1, 1] == pytest.approx(113.0)
    assert not (whole.labels < 0).any()
    words = (kitchen_timeline().parent / "README.md").read_text(encoding="utf-8")
    assert "Kuehne" in words
    assert "CC BY 4.0" in words


def test_a_folder_of_the_user_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_folder("breakfast_futures").is_relative_to(HOME)
    fc.save(fc.load("breakfast_futures"), tmp_path / "breakfast_futures")
    assert model_folder("breakfast_futures") == Path("breakfast_futures")


def test_list_and_info_show_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "--kind", "weights"]) == 0
    assert "breakfast_futures" in capsys.readouterr().out
    assert run(["info", "breakfast_futures"]) == 0
    assert "CC BY 4.0" in capsys.readouterr().out


def test_an_unknown_name_is_told_which_there_are() -> None:
    with pytest.raises(FileNotFoundError, match="breakfast_futures"):
        fc.load("breakfast_future")
