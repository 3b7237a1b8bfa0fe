"""`framecast evaluate --corruptions` and `--jpeg`."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_world import framecast

from framecast.data.synthetic_recognition import write_recognition_lookalike

SETTINGS = (
    *("steps=2", "eval_every_steps=2", "batch_size=4", "schedule.name=constant", "schedule.warmup=0"),
    *("image_size=16", "patch_size=8", "width=24", "depth=1", "num_heads=3"),
)


def settings(*more: str) -> list[str]:
    model = ("image_size", "patch_size", "width", "depth", "num_heads")
    full = [f"model.config.{s}" if s.partition("=")[0] in model else s for s in (*SETTINGS, *more)]
    return [word for setting in full for word in ("--set", setting)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images and two models that were trained on them."""
    folder = tmp_path_factory.mktemp("robustness")
    write_recognition_lookalike("folders", folder / "image", kind="image", per_class=2)
    for seed in (0, 1):
        done = framecast(
            *("train", "cifar_vit", "--data", "image", "--out", f"run{seed}", "--device", "cpu"),
            *settings(f"seed={seed}"),
            cwd=folder,
        )
        assert done.code == 0, done.err
    return folder


def test_all_corruptions_as_text(folder: Path) -> None:
    done = framecast("evaluate", "run0", "--corruptions", "--device", "cpu", cwd=folder)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len([line for line in lines if line.startswith(("gaussian", "frost", "jpeg"))]) == 3
    assert "over 75 variants" in done.out
    assert "mCE" in done.out
    files = {p.name for p in (folder / "run0").glob("robustness*")}
    assert files == {"robustness.json", "robustness.csv", "robustness.png"}


def test_models_are_compared_in_json(folder: Path) -> None:
    first = framecast(
        *("evaluate", "run0", "--corruptions", "noise,jpeg", "--severities", "1,5", "--out", "zero.json"),
        cwd=folder,
    )
    assert first.code == 0, first.err
    done = framecast(
        *("evaluate", "run1", "--jpeg", "--corruptions", "noise", "--severities", "5", "--json"),
        *("--compare", "zero.json", "--out", "scores/one.json"),
        cwd=folder,
    )
    assert done.code == 0, done.err
    values = done.json
    assert set(values["scores"]) >= {"clean", "gaussian/5", "shot/5", "jpeg-quality/100", "jpeg-quality/7"}
    assert "gaussian/1" not in values["scores"]
    (other,) = values["compared"]
    assert other["model"] == "run0"
    assert other["num_corrupted_variants"] == 5  # three kinds of noise at 5, JPEG at 1 and 5
    assert [Path(p).name for p in values["written"]] == ["one.json", "one.csv", "one.png"]
    text = framecast(
        *("evaluate", "run1", "--jpeg", "--compare", "zero.json", "--out", "scores/one.json"), cwd=folder
    )
    assert text.code == 0, text.err
    assert "JPEG quality" in text.out
    assert text.out.count("run1") == 1


def test_the_curve_of_jpeg_alone(folder: Path) -> None:
    done = framecast("evaluate", "run1", "--jpeg", cwd=folder)
    assert done.code == 0, done.err
    assert {p.name for p in (folder / "run1").glob("*.png")} == {"robustness_jpeg.png"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corruptions", "fogg"], "did you mean 'fog'"),
        (["--corruptions", "noise,whether"], "did you mean 'weather'"),
        (["--corruptions", "--severities", "0,1"], "numbers from 1 to 5"),
        (["--severities", "1"], "--severities goes with"),
        (["--compare", "run1"], "--compare goes with"),
        (["--jpeg", "--out", "scores.txt"], "is no .json file"),
        (["--jpeg", "--out", "image"], "is no .json file"),
        (["--jpeg", "--compare", "image"], "does not exist"),
        (["--jpeg", "--protocol", "kinetics/3x4"], "is for videos"),
        (["--jpeg", "--protocol", "image/resize", "--protocol", "image/center-1.0"], "under one protocol"),
    ],
)
def test_mistakes_end_in_one_line(folder: Path, words: list[str], message: str) -> None:
    before = sorted(folder.rglob("*"))
    done = framecast("evaluate", "run0", *words, cwd=folder)
    assert done.code == 1
    assert message in done.err
    assert done.err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
