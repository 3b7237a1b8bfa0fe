"""`framecast adapt`: a trained run becomes cheaper, and is scored, profiled and fine-tuned like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_world import framecast, succeed

import framecast as fc
from framecast.checkpoints import card_of
from framecast.cli.adaptation import number
from framecast.data.synthetic_recognition import write_recognition_lookalike

SMALL = ("image_size=32", "patch_size=4", "width=24", "depth=4", "num_heads=3")
SETTINGS = (
    *("--set", "steps=2", "--set", "eval_every_steps=2", "--set", "batch_size=4", "--device", "cpu"),
    *("--set", "schedule.name=constant", "--set", "schedule.warmup=0"),
    *(word for s in SMALL for word in ("--set", f"model.config.{s}")),
)
QUICK = ("--seconds", "0", "--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a ViT trained on them, and the same at 60 % of the multiply-adds."""
    folder = tmp_path_factory.mktemp("adapt")
    write_recognition_lookalike("folders", folder / "images", kind="image")
    succeed("train", "cifar_vit", "--data", "images", "--out", "run", *SETTINGS, cwd=folder)
    done = succeed("adapt", "run", "--macs", "60%", "--out", "adapted", "--device", "cpu", cwd=folder)
    assert "MACs wanted (60.0% of the unmodified model)" in done.out
    assert "tokens left" in done.out
    return folder


def test_the_result_is_a_model_like_any_other(folder: Path) -> None:
    noted = card_of(fc.load(folder / "adapted")).notes["calibration"]
    assert noted["met"]
    assert noted["statistics"]["share"] == pytest.approx(0.6, rel=0.01)
    done = succeed("predict", "images", "--model", "adapted", "--out", "out", "--no-pages", cwd=folder)
    assert "labels.csv" in done.out


def test_evaluate_says_how_many_tokens_were_left(folder: Path) -> None:
    words = ("evaluate", "adapted", "--data", "images", "--device", "cpu", "--out", "scores.json")
    answer = succeed(*words, "--json", cwd=folder).json
    (found,) = answer["tokens"].values()
    assert found["inputs"] == answer["num_items"]
    assert all(sum(histogram) == found["inputs"] for histogram in found["histograms"])
    assert found["share"] == pytest.approx(0.6, abs=0.05)
    assert json.loads((folder / "scores.json").read_text())["tokens"] == answer["tokens"]
    text = succeed(*words, cwd=folder).out
    assert "tokens left" in text
    assert "of the unmodified model" in text
    assert "tokens" not in succeed("evaluate", "run", "--device", "cpu", "--json", cwd=folder).json


def test_profile_counts_what_real_images_leave(folder: Path) -> None:
    words = ("profile", "run", "adapted", "--data", "images", *QUICK)
    run, adapted = succeed(*words, "--json", cwd=folder).json["profiles"]
    found = adapted["tokens"]
    assert adapted["total"]["macs"] == run["total"]["macs"] == found["full_macs"]
    assert found["inputs"] > 1
    # of one image; a few more rows are made where that is cheaper than to leave them out
    assert found["fewest_macs"] <= adapted["executed"]["macs"] <= 1.05 * found["most_macs"]
    assert run["tokens"] is None
    text = succeed(*words, "--out", "cost", cwd=folder).out
    assert "Tokens left in adapted" in text
    assert f"mean of {found['inputs']}" in text
    page = (folder / "cost" / "cost.html").read_text()
    assert "Tokens left in adapted" in page
    assert "inputs by tokens left" in page


def test_profile_of_random_numbers_admits_that_they_tell_nothing() -> None:
    words = ("profile", "deit_tiny_ats", "--input", "64", *QUICK)
    (found,) = succeed(*words, "--json").json["profiles"]
    assert found["tokens"] is None
    assert "take a trained model" in found["missing"]["tokens left"]
    assert found["executed"]["macs"] < found["total"]["macs"]


def test_fine_tuning_starts_from_the_adapted_model(folder: Path) -> None:
    words = ("train", "cifar_vit_ats", "--data", "images", "--set", "weights=adapted", *SETTINGS)
    succeed(*words, "--out", "tuned", cwd=folder)
    adapted: Any = fc.load(folder / "adapted")
    tuned: Any = fc.load(folder / "tuned")
    assert tuned.config.sampling() == adapted.config.sampling()
    before, after = adapted.state_dict(), tuned.state_dict()
    assert before.keys() == after.keys()
    moved = sum((after[key] - before[key]).norm() ** 2 for key in before)
    size = sum(before[key].norm() ** 2 for key in before)
    assert 0 < moved < 0.05 * size  # two small steps from there, not from random weights
    (scores,) = succeed("evaluate", "tuned", "--device", "cpu", "--json", cwd=folder).json["tokens"].values()
    assert 0 < scores["share"] < 1
    succeed("adapt", "tuned", "--macs", "50%", "--out", "again", "--device", "cpu", cwd=folder)


def test_a_run_is_scored_through_sampling_without_training(folder: Path) -> None:
    words = ("train", "cifar_vit_ats", "--data", "images", "--set", "weights=run", *SETTINGS)
    succeed(*words, "--set", "steps=0", "--set", "eval_every_steps=null", "--out", "as_it_is", cwd=folder)
    summary = json.loads((folder / "as_it_is" / "summary.json").read_text())
    assert summary["steps"] == 0
    assert "top1" in summary["metrics"]
    before, after = fc.load(folder / "run").state_dict(), fc.load(folder / "as_it_is").state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say with one of --macs, --tokens and --ms"),
        (("--macs", "0.5", "--ms", "3"), "say with one of"),
        (("--macs", "half"), "no number such as 0.5, 50% or 2.3G"),
        (("--macs", "5%"), "leaves between"),
        (("--tokens", "1000"), "the unmodified model has 65.0 tokens"),
        (("--macs", "0.5", "--blocks", "1,x"), "no whole numbers"),
        (("--macs", "0.5", "--blocks", "1", "--search-blocks"), "pass one"),
        (("--macs", "0.5", "--images", "images", "--data", "images"), "pass one of them"),
        (("--macs", "0.5", "--images", "nowhere"), "matches no file"),
        (("--macs", "0.5", "--out", "images"), "which is no part of a saved model"),
    ],
)
def test_errors_are_one_line(folder: Path, words: tuple[str, ...], message: str) -> None:
    done = framecast("adapt", "run", "--device", "cpu", *words, cwd=folder)
    assert done.code == 1
    assert message in done.err
    assert done.err.count("\n") == 1


def test_numbers_are_read_as_people_write_them() -> None:
    texts = {"0.5": 0.5, "50%": 0.5, "2.3G": 2.3e9, " 14 M ": 14e6, "1e9": 1e9}
    assert {text: number(text, "macs") for text in texts} == texts
