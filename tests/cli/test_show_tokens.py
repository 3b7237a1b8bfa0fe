"""`framecast predict --show-tokens`: pictures of what an adaptive model keeps, or how to make one."""

from __future__ import annotations

import json
import re
from contextlib import chdir
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from small_world import framecast, succeed

import framecast as fc
from framecast.checkpoints import ModelCard
from framecast.cli.classification import distinct_names
from framecast.data.synthetic_recognition import write_recognition_lookalike

SMALL = {"width": 24, "depth": 4, "num_heads": 3, "patch_size": 8, "image_size": 32, "num_classes": 2}
CLASSES = ("ring", "square")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, clips, and adaptive and plain models for each."""
    folder = tmp_path_factory.mktemp("tokens")
    for kind in ("image", "video"):
        write_recognition_lookalike("folders", folder / kind, kind=kind, per_class=1)
    torch.manual_seed(0)
    for kind, name, frames in (("image", "vit_tiny", None), ("video", "timesformer_base", 4)):
        protocol = "image/resize" if frames is None else "clip/1x1"
        card = ModelCard(task="recognition", classes=CLASSES, protocol=protocol, frames=frames)
        model = fc.create_model(name, **SMALL, **({} if frames is None else {"num_frames": frames}))
        fc.save(model, folder / f"{kind}_plain", card)
        fc.save(fc.adaptive(model, budget=0.7), folder / f"{kind}_adaptive", card)
    return folder


@pytest.mark.parametrize(("kind", "suffixes"), [("image", {".png"}), ("video", {".png", ".gif", ".mp4"})])
def test_every_file_gets_its_pictures(folder: Path, kind: str, suffixes: set[str]) -> None:
    words = ("predict", kind, "--model", f"{kind}_adaptive", "--show-tokens", "--out", f"{kind}_out")
    done = succeed(*words, cwd=folder)
    files = sorted(p for p in (folder / kind).rglob("*") if p.is_file())
    drawn = list((folder / f"{kind}_out" / "tokens").iterdir())
    assert len(drawn) == len(files) * len(suffixes)
    assert {path.suffix for path in drawn} == suffixes
    for path in drawn:
        if path.suffix != ".mp4":
            with Image.open(path) as image:
                assert np.asarray(image.convert("RGB")).std() > 5
    assert len(re.findall(r"\d+ of \d+ patches left, \d+% of the multiply-adds", done.out)) == len(files)
    page = (folder / f"{kind}_out" / "index.html").read_text()
    assert page.count("Which patches are kept") == len(files)
    for link in re.findall(r'href="(tokens/[^"]+)"', page):
        assert (folder / f"{kind}_out" / unquote(link)).is_file()


def test_json_has_the_counts_of_every_stage(folder: Path) -> None:
    clip = next((folder / "video").rglob("*.mp4"))
    words = ("predict", clip, "--model", "video_adaptive", "--show-tokens", "--json", "--out", "json_out")
    (tokens,) = succeed(*words, cwd=folder).json["tokens"]
    assert (tokens["file"], tokens["patches"], tokens["blocks"]) == (str(clip), 4 * 16, [1, 2])
    assert sorted(tokens["left"], reverse=True) == tokens["left"]
    assert 0 < tokens["macs_share"] < 1
    assert "tokens" not in succeed(*words[:4], "--json", "--out", "json_out", cwd=folder).json


def test_the_error_says_how_a_model_becomes_adaptive_and_it_does(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    words = ("predict", "image", "--show-tokens", "--out", "made_out", "--model")
    done = framecast(*words, "image_plain", cwd=folder)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert sorted(folder.rglob("*")) == before
    advice = re.search(r'python -c "(.*)" and pass --model (\w+)', done.err)
    assert advice is not None
    with chdir(folder):
        exec(advice[1], {})
    succeed(*words, advice[2], cwd=folder)
    assert json.loads((folder / advice[2] / "config.json").read_text())["adaptive"]["budget"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["image", "--model", "image_adaptive", "--no-pages"], "leave one of them out"),
        (["video", "--unsupervised"], "--show-tokens is for recognition models"),
    ],
)
def test_where_it_cannot_be_it_is_refused(folder: Path, words: list[str], message: str) -> None:
    done = framecast("predict", *words, "--show-tokens", "--out", "refused", cwd=folder)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert message in done.err
    assert not (folder / "refused").exists()


def test_files_of_one_name_do_not_overwrite_each_other() -> None:
    assert distinct_names(["a", "b", "a", "a (2)", "a"]) == ["a", "b", "a (2)", "a (2) (2)", "a (3)"]
