"""Recognition from the command line: train, evaluate, predict, and what goes wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from small_world import framecast

from framecast.data.recognition_samples import load_views
from framecast.data.synthetic_recognition import write_recognition_lookalike
from framecast.infer.classifier import Classifier
from framecast.profile import profiler

SMALL = ("image_size=16", "patch_size=8", "width=24", "depth=2")
SETTINGS = (
    *("--set", "steps=2", "--set", "eval_every_steps=2", "--set", "batch_size=4", "--device", "cpu"),
    *("--set", "schedule.name=constant", "--set", "schedule.warmup=0"),
)


def small(*settings: str) -> list[str]:
    return [word for s in (*SMALL, *settings) for word in ("--set", f"model.config.{s}")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, clips, and a model trained on each."""
    folder = tmp_path_factory.mktemp("recognition")
    for kind in ("image", "video"):
        write_recognition_lookalike("folders", folder / kind, kind=kind)
    done = framecast(
        *("train", "cifar_vit", "--data", "image", "--out", "image_run", *SETTINGS),
        *small("num_heads=3"),
        cwd=folder,
    )
    assert done.code == 0, done.err
    done = framecast(
        *("train", "fir_clips_videomamba", "--data", "video", "--out", "video_run", *SETTINGS),
        *("--set", "data.layout=auto", "--set", "data.split=null"),
        *small("num_frames=2"),
        cwd=folder,
    )
    assert done.code == 0, done.err
    return folder


@pytest.mark.parametrize("kind", ["image", "video"])
def test_train_evaluate_predict(folder: Path, kind: str) -> None:
    scored = framecast("evaluate", f"{kind}_run", "--json", cwd=folder)
    assert scored.code == 0, scored.err
    (scores,) = scored.json["scores"].values()
    summary = json.loads((folder / f"{kind}_run" / "summary.json").read_text())
    assert scores["top1"] == summary["metrics"]["top1"]
    assert (scored.json["kind"], scored.json["subset"]) == (kind, "test")

    predicted = framecast("predict", kind, "--model", f"{kind}_run", "--out", f"{kind}_out", cwd=folder)
    assert predicted.code == 0, predicted.err
    files = [p for p in (folder / kind).rglob("*") if p.is_file()]
    rows = list(csv.DictReader((folder / f"{kind}_out" / "labels.csv").open()))
    assert {row["file"] for row in rows} == {str(p.relative_to(folder)) for p in files}
    values = json.loads((folder / f"{kind}_out" / "labels.json").read_text())
    assert all(abs(sum(v["probabilities"].values()) - 1) < 1e-4 for v in values)
    page = (folder / f"{kind}_out" / "index.html").read_text()
    assert page.count("<article") == len(files)
    assert page.count("data:image/") >= len(files)


@pytest.mark.parametrize(("kind", "size"), [("image", "16x16"), ("video", "2x16x16")])
def test_a_profile_of_a_run_reads_its_test_side(
    folder: Path, kind: str, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(profiler, "_timed", lambda model, x, *_: seen.append(x))
    monkeypatch.setattr(profiler, "peak_memory", lambda *_, **__: None)
    done = framecast("profile", f"{kind}_run", "--batch", "3", "--device", "cpu", "--json", cwd=folder)
    assert done.code == 0, done.err
    (profile,) = done.json["profiles"]
    assert (profile["input"], profile["executed_on"]) == (size, "data")
    first = profile["data"].removesuffix(" and 2 more")
    model = Classifier(folder / f"{kind}_run")
    config = model.model.config
    view = load_views(
        folder / kind / first,
        model.protocol,
        image_size=config.image_size,
        mean=config.mean,
        std=config.std,
        num_frames=model.card.frames,
    )
    assert len(seen[0]) == 3
    assert torch.equal(seen[0][0], view[0])
    assert not torch.equal(seen[0][0], seen[0][1])


def test_json_of_one_file(folder: Path) -> None:
    clip = next((folder / "video").rglob("*.mp4"))
    done = framecast(
        *("predict", clip, "--model", "video_run", "--json", "--protocol", "kinetics/3x4", "--no-pages"),
        *("--out", "one"),
        cwd=folder,
    )
    assert done.code == 0, done.err
    first = done.json["labels"][0]
    assert first["rank"] == 1
    assert 0 < first["probability"] <= 1
    assert [Path(p).name for p in done.json["written"]] == ["labels.csv", "labels.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "video", "--model", "image_run"], "no images in this folder"),
        (["predict", "image", "--model", "image_run", "--protocol", "kinetics/3x4"], "is for videos"),
        (["predict", "image", "--model", "image_run", "--protocol", "kinetics/3x5"], "did you mean"),
        (["predict", "image", "--model", "image_run", "--weights", "x"], "has its own weights"),
        (["predict", "image", "--model", "image_run", "--segments", "3"], "--segments is for label-free"),
        (["evaluate", "image_run", "--data", "video"], "knows 3 classes and video has 4"),
        (["evaluate", "video_run", "--protocol", "image/resize"], "is for images and the data are videos"),
        (["train", "cifar_vit", "--data", "nowhere"], "nowhere"),
        (["train", "cifar_vit", "--data", "image", "--set", "augment.mixupp=1"], "did you mean"),
        (["train", "cifar_vit", "--data", "image", "--set", "loss.teacher=x"], "a teacher goes with"),
        (["train", "cifar_vit", "--data", "image", "--set", "trainable=head"], "needs trained weights"),
    ],
)
def test_mistakes_end_in_one_line(folder: Path, words: list[str], message: str) -> None:
    before = sorted(folder.rglob("*"))
    done = framecast(*words, *small("num_heads=3") if words[0] == "train" else (), cwd=folder)
    assert done.code == 1
    assert message in done.err
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert sorted(folder.rglob("*")) == before


def test_a_broken_file_does_not_stop_the_others(folder: Path) -> None:
    mixed = folder / "mixed"
    mixed.mkdir(exist_ok=True)
    good = next((folder / "image").rglob("*.png"))
    (mixed / "good.png").write_bytes(good.read_bytes())
    (mixed / "bad.png").write_bytes(b"no image")
    done = framecast("predict", "mixed", "--model", "image_run", "--out", "mixed_out", cwd=folder)
    assert done.code == 1
    assert "bad.png" in done.err
    assert "good.png" in done.out


def test_files_of_the_other_kind_are_counted_in_one_line(folder: Path) -> None:
    images, clips = (sorted((folder / kind).rglob("*.*"))[:3] for kind in ("image", "video"))
    done = framecast("predict", *images, *clips, "--model", "image_run", "--out", "both_out", cwd=folder)
    assert done.code == 1
    told = f"error: 3 files, {clips[0]} the first of them: is no image, and protocol"
    assert done.err.startswith(told)
    assert done.err.count("\n") == 1
    assert all(str(path) in done.out for path in images)
