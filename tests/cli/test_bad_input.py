"""Whatever a user gets wrong ends in one line that names the culprit, and leaves nothing half-written.

A case prepares something wrong in an empty working folder and returns the command. The test runs it there and
compares what lies in the folder before and after.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_world import TINY_RUN, World, framecast

import framecast as fc
from framecast.data.features import load_track, save_track
from video_factory import write_video

Command = list[object]
Prepare = Callable[[World, Path], Command]


@dataclass(frozen=True)
class Case:
    name: str
    culprit: str  # regex that the line on standard error matches
    prepare: Prepare
    code: int = 1
    leaves: str = ""  # folder in which whole files may be new: what was good among the bad
    full_disk: bool = False


CASES: list[Case] = []


def bad(name: str, culprit: str, **options: Any) -> Callable[[Prepare], Prepare]:
    def add(prepare: Prepare) -> Prepare:
        CASES.append(Case(name, culprit, prepare, **options))
        return prepare

    return add


def listing(*folders: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p): (p.stat().st_size, p.stat().st_mtime_ns) if p.is_file() else (0, 0)
        for folder in folders
        for p in folder.rglob("*")
    }


def id_of(case: Case) -> str:
    return case.name


@pytest.fixture
def at_work(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return here


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, ids=id_of)


def test_bad_input(case: Case, world: World, at_work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = case.prepare(world, at_work)
    before = listing(at_work, world.root)
    if case.full_disk:
        monkeypatch.setattr(os, "fsync", disk_is_full)
    done = framecast(*command)
    assert done.code == case.code, done
    assert "Traceback" not in done.out + done.err
    lines = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    assert re.search(case.culprit, lines[0]), lines[0]
    assert "bug" not in lines[0]
    new = {path: size for path, size in listing(at_work, world.root).items() if before.get(path) != size}
    allowed = at_work / case.leaves if case.leaves else None
    assert not [path for path in new if allowed is None or not Path(path).is_relative_to(allowed)], (
        "left behind"
    )
    assert not [path for path in new if re.search(r"tmp|partial|\.old|/\.", path[len(str(at_work)) :])]
    gone = set(before) - set(listing(at_work, world.root))
    assert not gone, "removed"


def test_there_are_many_kinds_of_bad_input() -> None:
    assert len(CASES) > 100
    assert len({case.name for case in CASES}) == len(CASES)


def disk_is_full(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Things that are wrong ------------------------------------------------------------------------------


def write(name: str, content: bytes | str = b"") -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


NOISE = np.random.default_rng(0).bytes(4000)


class Harm:
    """Unpickling it would create the file `harm`, which counts as something left behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harm"),)


def changed_copy(source: Path, name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
    """A copy of a saved model whose tensors are changed."""
    shutil.copytree(source, name)
    state = load_file(f"{name}/model.safetensors")
    change(state)
    save_file(state, f"{name}/model.safetensors")
    return name


def data_copy(w: World) -> Path:
    return Path(shutil.copytree(w.data, "data"))


def of_subset(w: World, subset: str) -> str:
    """A video of split 1."""
    return (w.data / "splits" / f"{subset}.split1.bundle").read_text().split("\n")[0].removesuffix(".txt")


# predict: what is to be segmented -------------------------------------------------------------------


def label_free(w: World, *inputs: object) -> Command:
    return ["predict", *inputs, "--unsupervised", *w.backbone, "--out", "out"]


def with_model(w: World, *inputs: object) -> Command:
    return ["predict", *inputs, "--model", w.run, "--out", "out"]


@bad("missing file", r"nothing\.mp4: no such file")
def _(w: World, here: Path) -> Command:
    return label_free(w, "nothing.mp4")


@bad("empty video", r"empty\.mp4")
def _(w: World, here: Path) -> Command:
    return label_free(w, write("empty.mp4"))


@bad("video of noise", r"noise\.mp4")
def _(w: World, here: Path) -> Command:
    return label_free(w, write("noise.mp4", NOISE))


@bad("text called video", r"letter\.mp4")
def _(w: World, here: Path) -> Command:
    return label_free(w, write("letter.mp4", "Dear reader,\n" * 50))


@bad("truncated video", r"cut\.mp4")
def _(w: World, here: Path) -> Command:
    return label_free(w, write("cut.mp4", w.video.read_bytes()[:-1500]))


@bad("video cut off before its index", r"cut\.mp4")
def _(w: World, here: Path) -> Command:
    return label_free(w, write("cut.mp4", w.video.read_bytes()[:300]))


@bad("sound without pictures", r"sound\.mp4")
def _(w: World, here: Path) -> Command:
    return label_free(w, write_video(Path("sound.mp4"), audio=True, video=False))


@bad("folder without videos", r"photos: no videos in this folder")
def _(w: World, here: Path) -> Command:
    write("photos/cat.jpg", NOISE)
    return label_free(w, "photos")


@bad("pattern without a match", r"photos/\*\.mp4: no such file, and as a pattern")
def _(w: World, here: Path) -> Command:
    write("photos/cat.jpg", NOISE)
    return label_free(w, "photos/*.mp4")


@bad("two inputs of one name", r"'clip'.*rename")
def _(w: World, here: Path) -> Command:
    for folder in "ab":
        Path(folder).mkdir()
        shutil.copy(w.video, f"{folder}/clip.mp4")
    return label_free(w, "a/clip.mp4", "b/clip.mp4")


@bad("an input called index", r"'index'.*rename")
def _(w: World, here: Path) -> Command:
    shutil.copy(w.video, "index.mp4")
    return label_free(w, "index.mp4", w.video)


@bad("feature file that is missing", r"nothing\.npy: no such file")
def _(w: World, here: Path) -> Command:
    return with_model(w, "nothing.npy")


@bad("feature file of noise", r"noise\.npy")
def _(w: World, here: Path) -> Command:
    return with_model(w, write("noise.npy", NOISE))


@bad("empty feature file", r"empty\.npy")
def _(w: World, here: Path) -> Command:
    return with_model(w, write("empty.npy"))


@bad("feature file with Python objects", r"objects\.npy")
def _(w: World, here: Path) -> Command:
    np.save("objects.npy", np.array([Harm(), 3], dtype=object), allow_pickle=True)
    return with_model(w, "objects.npy")


@bad("feature file that is a pickle", r"pickle\.npy")
def _(w: World, here: Path) -> Command:
    return with_model(w, write("pickle.npy", pickle.dumps(Harm())))


@bad("truncated safetensors of features", r"cut\.safetensors")
def _(w: World, here: Path) -> Command:
    save_track(replace(load_track(w.track, feature_dim=8), source=""), "cut.safetensors")
    return with_model(w, write("cut.safetensors", Path("cut.safetensors").read_bytes()[:-9]))


@bad("features that may lie either way", r"S1_Cheese_C1\.npy.*feature_dim")
def _(w: World, here: Path) -> Command:
    return ["predict", w.track, "--unsupervised"]


@bad("NaN in features", r"nan\.npy: nan at channel 2, step 7")
def _(w: World, here: Path) -> Command:
    values = np.load(w.track)
    values[2, 7] = np.nan
    np.save("nan.npy", values)
    return with_model(w, "nan.npy")


@bad("features of another width", r"wide\.npy")
def _(w: World, here: Path) -> Command:
    np.save("wide.npy", np.zeros((9, 40), np.float32))
    return with_model(w, "wide.npy")


@bad("features with one dimension", r"flat\.npy")
def _(w: World, here: Path) -> Command:
    np.save("flat.npy", np.zeros(40, np.float32))
    return with_model(w, "flat.npy")


@bad("features of another backbone", r"monday\.npy.*backbone: 'vit_tiny' here, 'vit_base' there")
def _(w: World, here: Path) -> Command:
    track = load_track(w.kitchen / "features" / "monday.npy")
    assert track.provenance is not None
    made = replace(track.provenance, backbone="vit_base")
    save_track(replace(track, provenance=made, source="monday.npy"), "monday.npy")
    return ["predict", "monday.npy", "--model", w.kitchen_run]


@bad("features made with another step", r"monday\.npy.*step_s: None here, 0\.5 there")
def _(w: World, here: Path) -> Command:
    track = load_track(w.kitchen / "features" / "monday.npy")
    assert track.provenance is not None
    made = replace(track.provenance, step_s=0.5)
    save_track(replace(track, provenance=made, source="monday.npy"), "monday.npy")
    return ["predict", "monday.npy", "--model", w.kitchen_run]


@bad("a video where nobody knows the backbone", r"do not say how they were made.*pass a feature file")
def _(w: World, here: Path) -> Command:
    return with_model(w, w.video)


# predict: with what ---------------------------------------------------------------------------------


@bad("neither model nor unsupervised", r"--model RUN .* or --unsupervised")
def _(w: World, here: Path) -> Command:
    return ["predict", w.video]


@bad("both model and unsupervised", r"--model RUN .* or --unsupervised")
def _(w: World, here: Path) -> Command:
    return ["predict", w.video, "--model", w.run, "--unsupervised"]


@bad("label-free option for a model", r"--min-segment is for label-free")
def _(w: World, here: Path) -> Command:
    return [*with_model(w, w.track), "--min-segment", "2"]


@bad("model that is not there", r"runs/kitchn does not exist")
def _(w: World, here: Path) -> Command:
    Path("runs").mkdir()
    return ["predict", w.track, "--model", "runs/kitchn"]


@bad("hub model without a connection", r"someone/model is not here, and the hub")
def _(w: World, here: Path) -> Command:
    return ["predict", w.track, "--model", "someone/model"]


@bad("run folder without a model", r"run is neither a saved model")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.run, "run", ignore=shutil.ignore_patterns("model"))
    return ["predict", w.track, "--model", "run"]


@bad("backbone for a model", r"needs a segmentation model.*vit_tiny is none")
def _(w: World, here: Path) -> Command:
    return ["predict", w.track, "--model", w.vit]


@bad("model with truncated weights", r"model\.safetensors cannot be read as safetensors")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.run / "model", "model")
    write("model/model.safetensors", (w.run / "model" / "model.safetensors").read_bytes()[:-40])
    return ["predict", w.track, "--model", "model"]


@bad("model whose config is no JSON", r"config\.json is not the config of a saved framecast model")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.run / "model", "model")
    write("model/config.json", "{")
    return ["predict", w.track, "--model", "model"]


@bad("model without a tensor", r"model\.safetensors does not fit ltcontext: 1 missing \(reduce\.bias\)")
def _(w: World, here: Path) -> Command:
    name = changed_copy(w.run / "model", "model", lambda state: state.pop("reduce.bias"))
    return ["predict", w.track, "--model", name]


@bad("other weights for the backbone", r"holds [0-9a-f]{16}; pass the right ones with --weights")
def _(w: World, here: Path) -> Command:
    def nudge(state: dict[str, torch.Tensor]) -> None:
        state["cls_token"] += 1

    other = changed_copy(w.vit, "other", nudge)
    return ["predict", w.video, "--model", w.kitchen_run, "--weights", other]


@bad("weights of a backbone that are missing", r"nothing\.pth does not exist")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--weights", "nothing.pth"]


@bad("weights of noise", r"noise\.pth cannot be read as a checkpoint")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--weights", write("noise.pth", NOISE)]


@bad("weights that want to run code", r"evil\.pth cannot be read as a checkpoint of plain tensors")
def _(w: World, here: Path) -> Command:
    torch.save({"model": Harm()}, "evil.pth")
    return [*label_free(w, w.video), "--weights", "evil.pth"]


@bad("weights of another system", r"other\.pth is not a vit checkpoint")
def _(w: World, here: Path) -> Command:
    torch.save({"stage1.conv_1x1.weight": torch.zeros(3)}, "other.pth")
    return [*label_free(w, w.video), "--weights", "other.pth"]


@bad("weights of another backbone", r"other holds weights of vit_small, not of vit_tiny")
def _(w: World, here: Path) -> Command:
    fc.save(fc.create_model("vit_small", depth=1, num_classes=0), "other")
    return [*label_free(w, w.video), "--weights", "other"]


@bad("backbone whose weights nobody knows", r"no weights are known for vit_large; pass --weights")
def _(w: World, here: Path) -> Command:
    return ["predict", w.video, "--unsupervised", "--backbone", "vit_large"]


@bad("unknown backbone", r"unknown model 'vit_tyni', did you mean 'vit_tiny'\?")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--backbone", "vit_tyni"]


@bad("a model that is no backbone", r"ltcontext is a segmentation model, not a backbone")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--backbone", "ltcontext"]


@bad("size that is none", r"size '32' is not HEIGHTxWIDTH")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--size", "32"]


@bad("size that does not divide into patches", r"patches of 8 .*\(33, 32\).*\(32, 32\)")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--size", "33x32"]


@bad("more segments than steps", r"500 segments asked of a track of")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--segments", "500"]


@bad("no segments", r"'--segments'.*greater than or equal to 1", code=2)
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--segments", "0"]


@bad("unknown device", r"unknown device 'gpu'")
def _(w: World, here: Path) -> Command:
    return [*with_model(w, w.track), "--device", "gpu"]


@bad("device that cannot compute", r"'meta'")
def _(w: World, here: Path) -> Command:
    return [*with_model(w, w.track), "--device", "meta"]


@bad("GPU that is not there", r"device 'cuda:99' was asked for")
def _(w: World, here: Path) -> Command:
    return [*with_model(w, w.track), "--device", "cuda:99"]


@bad("results into a file", r"out is a file")
def _(w: World, here: Path) -> Command:
    write("out", "precious")
    return with_model(w, w.track)


@bad("results below a file", r"out is a file")
def _(w: World, here: Path) -> Command:
    write("out", "precious")
    return ["predict", w.track, "--model", w.run, "--out", "out/found"]


@bad("results onto a full disk", r"cannot write .*out.* \(No space left on device\)", full_disk=True)
def _(w: World, here: Path) -> Command:
    return with_model(w, w.track)


# features -------------------------------------------------------------------------------------------


def features(w: World, videos: object, *options: object) -> Command:
    return ["features", videos, "--out", "out", *w.backbone, *options]


@bad("features of a folder without videos", r"photos: no videos")
def _(w: World, here: Path) -> Command:
    write("photos/cat.jpg", NOISE)
    return features(w, "photos")


@bad("features of a broken video", r"broken\.mp4")
def _(w: World, here: Path) -> Command:
    return features(w, write("broken.mp4", NOISE))


@bad("one broken video among good ones", r"broken\.mp4", leaves="out")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.kitchen / "videos", "videos")
    write("videos/broken.mp4", NOISE)
    Path("out").mkdir()
    return features(w, "videos")


@bad("two videos of one name", r"both make out/clip\.npy; rename")
def _(w: World, here: Path) -> Command:
    Path("videos").mkdir()
    for suffix in ("mp4", "mov"):
        shutil.copy(w.video, f"videos/clip.{suffix}")
    return features(w, "videos")


@bad("block that the backbone does not have", r"vit_tiny has blocks 0 to 1, layer 9 is none")
def _(w: World, here: Path) -> Command:
    return features(w, w.video, "--layer", "9")


@bad("step of zero", r"step_s 0\.0 must be positive")
def _(w: World, here: Path) -> Command:
    return features(w, w.video, "--step", "0")


@bad("negative step", r"step_s -1\.0 must be positive")
def _(w: World, here: Path) -> Command:
    return features(w, w.video, "--step", "-1")


@bad("unknown pooling", r"'--pooling'.*'max' is not one of", code=2)
def _(w: World, here: Path) -> Command:
    return features(w, w.video, "--pooling", "max")


@bad("one of several devices is unknown", r"unknown device 'gpu'")
def _(w: World, here: Path) -> Command:
    return features(w, w.video, "--devices", "cpu,gpu")


@bad("tracks that were made in another way", r"\w+day\.npy: was made in another way \(pooling")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.kitchen / "features", "out")
    return features(w, w.kitchen / "videos", "--pooling", "mean")


@bad("features into a file", r"out is a file")
def _(w: World, here: Path) -> Command:
    write("out")
    return features(w, w.video)


@bad("features onto a full disk", r"monday\.\w+.*No space left on device", full_disk=True)
def _(w: World, here: Path) -> Command:
    return features(w, w.video)


@bad("features without a place", r"[Mm]issing option '--out'", code=2)
def _(w: World, here: Path) -> Command:
    return ["features", w.video]


# train ----------------------------------------------------------------------------------------------


def train(w: World, *options: object, data: object = None) -> Command:
    start = ["train", "segmentation", "--data", data or w.data, *TINY_RUN, "--set", "epochs=1"]
    return [*start, "--out", "run", *options]


@bad("training without data", r"names no data; pass --data FOLDER")
def _(w: World, here: Path) -> Command:
    return ["train", "segmentation"]


@bad("data that is not there", r"nowhere")
def _(w: World, here: Path) -> Command:
    return train(w, data="nowhere")


@bad("data of no known layout", r"photos")
def _(w: World, here: Path) -> Command:
    write("photos/cat.jpg", NOISE)
    return train(w, data="photos")


@bad("unknown recipe", r"unknown recipe 'segmentaton', did you mean 'segmentation'\?")
def _(w: World, here: Path) -> Command:
    return ["train", "segmentaton", "--data", w.data]


@bad("recipe file that is not there", r"no recipe at mine\.yaml")
def _(w: World, here: Path) -> Command:
    return ["train", "mine.yaml"]


@bad("folder without a recipe", r"no recipe at photos/config\.yaml")
def _(w: World, here: Path) -> Command:
    write("photos/cat.jpg", NOISE)
    return ["train", "photos"]


@bad("recipe that is no YAML", r"mine\.yaml is not valid YAML")
def _(w: World, here: Path) -> Command:
    return ["train", write("mine.yaml", "name: [a, b\nmodel: }")]


@bad("recipe that is no text", r"mine\.yaml is not valid YAML")
def _(w: World, here: Path) -> Command:
    return ["train", write("mine.yaml", b"\xff\xfe\x00\x9f")]


@bad("recipe that wants to run code", r"mine\.yaml is not valid YAML")
def _(w: World, here: Path) -> Command:
    return ["train", write("mine.yaml", "name: !!python/object/apply:os.system ['touch harm']")]


@bad("recipe that is a list", r"mine\.yaml holds list")
def _(w: World, here: Path) -> Command:
    return ["train", write("mine.yaml", "- epochs: 3\n")]


@bad("recipe with an unknown setting", r"mine\.yaml: unknown setting 'epoch', did you mean 'epochs'\?")
def _(w: World, here: Path) -> Command:
    text = (w.run / "config.yaml").read_text().replace("epochs:", "epoch:")
    return ["train", write("mine.yaml", text)]


@bad("unknown setting", r"no setting 'optim\.lrate', did you mean 'optim\.\w+'\?")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "optim.lrate=1")


@bad("setting without a value", r"'optim\.lr' is not of the form key=value")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "optim.lr")


@bad("setting that is no YAML", r"'epochs=\[1'")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "epochs=[1")


@bad("setting of the wrong type", r"epochs: .*integer.*'many'")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "epochs=many")


@bad("negative learning rate", r"optim\.lr: .*greater than 0, got -0\.001")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "optim.lr=-1e-3")


@bad("learning rate that is no number", r"optim\.lr: .*finite number")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "optim.lr=.nan")


@bad("odd window", r"window must be even")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "model.config.window=7")


@bad("model setting of the wrong type", r"window is 'wide'")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "model.config.window=wide")


@bad("unknown model setting", r"no setting 'windw', did you mean 'window'\?")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "model.config.windw=8")


@bad("impossible model setting", r"ltcontext cannot be built with .*num_heads=0")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "model.config.num_heads=0")


@bad("classes that the data does not have", r"num_classes is 3 but the data in .* has 11")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "model.config.num_classes=3")


@bad("unknown model", r"unknown model 'ltcontex', did you mean 'ltcontext'\?")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "model.name=ltcontex")


@bad("a backbone to segment with", r"vit_tiny is no segmentation model")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "model.name=vit_tiny", "--set", "model.config={}")


@bad("unknown task", r"unknown task 'segmentaton', did you mean 'segmentation'\?")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "task=segmentaton")


@bad("split that the data does not have", r"no split 99; its splits are")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "data.split=99")


@bad("splits that are no numbers", r"splits 'first'")
def _(w: World, here: Path) -> Command:
    return train(w, "--splits", "first")


@bad("seeds that are no numbers", r"--seeds 'a,1'")
def _(w: World, here: Path) -> Command:
    return train(w, "--seeds", "a,1")


@bad("no seeds", r"--seeds ''")
def _(w: World, here: Path) -> Command:
    return train(w, "--seeds", "")


@bad("a seed twice", r"--seeds '1,1'")
def _(w: World, here: Path) -> Command:
    return train(w, "--seeds", "1,1")


@bad("more folds than videos", r"folds is 50")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "data.folds=50", data=w.kitchen)


@bad("training on an unknown device", r"unknown device 'gpu'")
def _(w: World, here: Path) -> Command:
    return train(w, "--device", "gpu")


@bad("run folder that is a file", r"run is a file")
def _(w: World, here: Path) -> Command:
    write("run", "precious")
    return train(w)


@bad("run folder of another run", r"run was started with another recipe: optim\.lr is")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.run, "run")
    return train(w, "--set", "epochs=2", "--set", "optim.lr=0.5")


@bad("run folder of a longer run", r"run has done \d+ steps, the recipe asks for \d+; raise epochs")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.run, "run")
    return train(w)


@bad("run folder whose checkpoint is damaged", r"no checkpoint in run/checkpoints can be read")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.run, "run")
    for path in Path("run/checkpoints").glob("step-*/*.distcp"):
        path.write_bytes(NOISE)
    return train(w, "--set", "epochs=3")


@bad("metric that is not measured", r"select='f1@51' is no metric.*did you mean 'f1@\d\d'", leaves="run")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "select=f1@51")


@bad("logger that is not installed", r"logs to wandb, which is not installed")
def _(w: World, here: Path) -> Command:
    return train(w, "--set", "log=[wandb]")


@bad("label that the mapping does not have", r"S\d_\w+\.txt:3: .*'sitr'.*did you mean 'stir'")
def _(w: World, here: Path) -> Command:
    path = data_copy(w) / "groundTruth" / f"{of_subset(w, 'train')}.txt"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:2], "sitr", *lines[3:]]))
    return train(w, data="data")


@bad("labels that are no text", r"S\d_\w+\.txt:1: is not UTF-8 text")
def _(w: World, here: Path) -> Command:
    (data_copy(w) / "groundTruth" / f"{of_subset(w, 'train')}.txt").write_bytes(b"\xff\xfe")
    return train(w, data="data")


@bad("features shorter than their labels", r"S\d_\w+.*10 steps in .*labelled frames")
def _(w: World, here: Path) -> Command:
    path = data_copy(w) / "features" / f"{of_subset(w, 'train')}.npy"
    np.save(path, np.load(path)[:, :10])
    return train(w, data="data")


@bad("features that lie the other way", r"S\d_\w+.*\(frames, channels\) where \(channels, frames\)")
def _(w: World, here: Path) -> Command:
    for path in (data_copy(w) / "features").glob("*.npy"):
        np.save(path, np.ascontiguousarray(np.load(path).T))
    return train(w, data="data")


@bad(
    "features of another width than the others",
    r"S\d_\w+.*9 channels where 8 are expected",
    leaves="run",
)
def _(w: World, here: Path) -> Command:
    path = data_copy(w) / "features" / f"{of_subset(w, 'test')}.npy"
    values = np.load(path)
    np.save(path, np.concatenate([values, values[:1]]))
    return train(w, data="data")


@bad("video without features", r"no features of video 'S\d_\w+': looked for")
def _(w: World, here: Path) -> Command:
    (data_copy(w) / "features" / f"{of_subset(w, 'test')}.npy").unlink()
    return train(w, data="data")


@bad("NaN in training features", r"S\d_\w+\.npy: nan at channel 1, step 5", leaves="run")
def _(w: World, here: Path) -> Command:
    path = data_copy(w) / "features" / f"{of_subset(w, 'train')}.npy"
    values = np.load(path)
    values[1, 5] = np.nan
    np.save(path, values)
    return train(w, data="data")


@bad("tracks that were made in two ways", r"were made differently \(weights")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.kitchen, "data")
    about = json.loads(Path("data/features/monday.json").read_text())
    about["provenance"]["weights"] = "0" * 16
    write("data/features/monday.json", json.dumps(about))
    return train(w, data="data")


@bad("training onto a full disk", r"run.*No space left on device", full_disk=True)
def _(w: World, here: Path) -> Command:
    return train(w)


@bad("time limit that is none", r"Slurm time 'noon'")
def _(w: World, here: Path) -> Command:
    return ["submit", "segmentation", "--data", w.data, "--time", "noon", "--dry-run"]


@bad("no Slurm on this machine", r"cannot submit|submitting needs submitit")
def _(w: World, here: Path) -> Command:
    return ["submit", "segmentation", "--data", w.data]


# evaluate -------------------------------------------------------------------------------------------


@bad("evaluating what is no run", r"photos is neither a saved model")
def _(w: World, here: Path) -> Command:
    write("photos/cat.jpg", NOISE)
    return ["evaluate", "photos"]


@bad("evaluating without data", r"model has no recipe that names its data; pass --data")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.run / "model", "model")
    return ["evaluate", "model"]


@bad("unknown protocol", r"unknown protocol 'gtea/s1-poled', did you mean 'gtea/s1-pooled'\?")
def _(w: World, here: Path) -> Command:
    return ["evaluate", w.run, "--protocol", "gtea/s1-poled", "--out", "scores.json"]


@bad("classes that the model does not know", r"knows 11 classes and .*kitchen has 3 \(differing: ")
def _(w: World, here: Path) -> Command:
    return ["evaluate", w.run, "--data", w.kitchen, "--out", "scores.json"]


@bad("evaluating features of another width", r"9 channels, the model reads 8")
def _(w: World, here: Path) -> Command:
    for path in (data_copy(w) / "features").glob("*.npy"):
        values = np.load(path)
        np.save(path, np.concatenate([values, values[:1]]))
    return ["evaluate", w.run, "--data", "data", "--out", "scores.json"]


@bad("evaluating features made in another way", r"kitchen/.*day.*weights: '[0-9a-f]+' here, '0+' there")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.kitchen, "kitchen")
    for path in Path("kitchen/features").glob("*.json"):
        about = json.loads(path.read_text())
        about["provenance"]["weights"] = "0" * 16
        path.write_text(json.dumps(about))
    return ["evaluate", w.kitchen_run, "--data", "kitchen", "--out", "scores.json"]


@bad("evaluating a split that is not there", r"no split 9")
def _(w: World, here: Path) -> Command:
    return ["evaluate", w.run, "--split", "9", "--out", "scores.json"]


@bad("scores into a folder", r"out is a folder")
def _(w: World, here: Path) -> Command:
    Path("out").mkdir()
    return ["evaluate", w.run, "--out", "out"]


@bad("scores onto a full disk", r"scores\.json.*No space left on device", full_disk=True)
def _(w: World, here: Path) -> Command:
    return ["evaluate", w.run, "--out", "scores.json"]


@bad("run whose recipe is damaged", r"config\.yaml is not valid YAML")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.run, "run")
    write("run/config.yaml", "a: [")
    return ["evaluate", "run"]


# import-weights -------------------------------------------------------------------------------------


def tiny_official() -> dict[str, torch.Tensor]:
    """A ViT under the names that DeiT and timm use, which are ours."""
    return dict(fc.create_model("vit_tiny", width=24, depth=1, num_heads=3, image_size=32).state_dict())


def import_vit(file: str, *options: object) -> Command:
    return ["import-weights", "vit", file, "--out", "out", "--set", "num_heads=3", *options]


@bad("unknown system", r"no official checkpoints are known for 'ltcontxt', did you mean 'ltcontext'\?")
def _(w: World, here: Path) -> Command:
    return ["import-weights", "ltcontxt", "x.pth", "--out", "out"]


@bad("checkpoint that is not there", r"nothing\.pth does not exist")
def _(w: World, here: Path) -> Command:
    return import_vit("nothing.pth")


@bad("checkpoint that is a folder", r"folder is a folder")
def _(w: World, here: Path) -> Command:
    write("folder/x")
    return import_vit("folder")


@bad("checkpoint of noise", r"noise\.pth cannot be read")
def _(w: World, here: Path) -> Command:
    return import_vit(write("noise.pth", NOISE))


@bad("safetensors of noise", r"noise\.safetensors cannot be read as safetensors")
def _(w: World, here: Path) -> Command:
    return import_vit(write("noise.safetensors", NOISE))


@bad("ONNX of noise", r"noise\.onnx")
def _(w: World, here: Path) -> Command:
    return import_vit(write("noise.onnx", NOISE))


@bad("checkpoint that wants to run code", r"evil\.pth .* plain tensors")
def _(w: World, here: Path) -> Command:
    return import_vit(write("evil.pth", pickle.dumps(Harm())))


@bad("truncated checkpoint", r"cut\.pth cannot be read")
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official(), "cut.pth")
    return import_vit(write("cut.pth", Path("cut.pth").read_bytes()[:-500]))


@bad("checkpoint without a tensor", r"x\.pth does not fit .* 1 missing \(blocks\.0\.attn\.qkv\.bias\)")
def _(w: World, here: Path) -> Command:
    state = tiny_official()
    del state["blocks.0.attn.qkv.bias"]
    torch.save(state, "x.pth")
    return import_vit("x.pth", "--set", "qkv_bias=true")


@bad("checkpoint with a tensor too many", r"x\.pth does not fit .* 1 unexpected \(extra\.weight\)")
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official() | {"extra.weight": torch.zeros(2)}, "x.pth")
    return import_vit("x.pth")


@bad("checkpoint of another system", r"x\.pth is not a ltcontext checkpoint")
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official(), "x.pth")
    return ["import-weights", "ltcontext", "x.pth", "--out", "out"]


@bad("setting that the model does not have", r"no setting 'heads'")
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official(), "x.pth")
    return import_vit("x.pth", "--set", "heads=3")


@bad("import setting without a value", r"--set 'num_heads' is not of the form key=value")
def _(w: World, here: Path) -> Command:
    return import_vit("x.pth", "--set", "num_heads")


@bad("import setting that is no YAML", r"--set 'num_heads=\['")
def _(w: World, here: Path) -> Command:
    return import_vit("x.pth", "--set", "num_heads=[")


@bad("path out of a package", r"package:framecast/\.\./\.\./x\.pth points outside the package")
def _(w: World, here: Path) -> Command:
    return import_vit("package:framecast/../../x.pth")


@bad("package that is not installed", r"no installed package 'no_such_package'")
def _(w: World, here: Path) -> Command:
    return import_vit("package:no_such_package/x.pth")


@bad("import into somebody's folder", r"out holds notes\.txt")
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official(), "x.pth")
    write("out/notes.txt", "precious")
    return import_vit("x.pth")


@bad("import onto a full disk", r"cannot write .*out \(No space left on device\)", full_disk=True)
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official(), "x.pth")
    return import_vit("x.pth")


# list, info, and the command line itself ------------------------------------------------------------


@bad("pattern that lists nothing", r"no models match 'vit_tyny', did you mean 'vit_tiny'\?")
def _(w: World, here: Path) -> Command:
    return ["list", "vit_tyny"]


@bad("unknown kind", r"'--kind'.*'datasets' is not one of", code=2)
def _(w: World, here: Path) -> Command:
    return ["list", "--kind", "datasets"]


@bad("info on nothing", r"nothing is called 'ltcontxt', did you mean 'ltcontext'\?")
def _(w: World, here: Path) -> Command:
    return ["info", "ltcontxt"]


@bad("info on a folder that holds no model", r"photos is neither a saved model")
def _(w: World, here: Path) -> Command:
    write("photos/cat.jpg", NOISE)
    return ["info", "photos"]


@bad("info on a damaged model", r"config\.json is not the config")
def _(w: World, here: Path) -> Command:
    write("model/config.json", "[]")
    write("model/model.safetensors")
    return ["info", "model"]


@bad("unknown verb", r"'trian'.*Did you mean 'train'\?", code=2)
def _(w: World, here: Path) -> Command:
    return ["trian"]


@bad("missing argument", r"[Mm]issing argument 'recipe'.*framecast train --help", code=2)
def _(w: World, here: Path) -> Command:
    return ["train"]


@bad("unknown option", r"--epohcs", code=2)
def _(w: World, here: Path) -> Command:
    return train(w, "--epohcs", "3")


# Checking data lists every problem at once ----------------------------------------------------------


def test_check_data_lists_every_problem(world: World, here: Path) -> None:
    data = data_copy(world)
    videos = sorted(p.stem for p in (data / "groundTruth").glob("*.txt"))
    values = [np.load(data / "features" / f"{video}.npy") for video in videos]
    (data / "groundTruth" / f"{videos[0]}.txt").write_text("stir\nsitr\n" * 40)
    np.save(data / "features" / f"{videos[1]}.npy", values[1][:, :9])
    values[2][3, 4] = np.inf
    np.save(data / "features" / f"{videos[2]}.npy", values[2])
    (data / "features" / f"{videos[3]}.npy").unlink()
    np.save(data / "features" / f"{videos[4]}.npy", np.ascontiguousarray(values[4].T))
    (data / "features" / f"{videos[5]}.npy").write_bytes(b"")
    done = framecast("check-data", "data")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert f"{videos[0]}.txt:2" in done.out
    for video in videos[1:]:
        assert [line for line in done.out.splitlines() if video in line], video
    found = framecast("check-data", "data", "--json").json
    assert len(found["problems"]) >= 6
    assert framecast("check-data", "nowhere").code == 1
