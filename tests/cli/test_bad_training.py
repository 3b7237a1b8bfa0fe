"""Recipes, settings and data on which nothing can be trained or submitted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bad_input import (
    NOISE,
    Case,
    Cases,
    Command,
    check,
    data_copy,
    of_subset,
    write,
)
from small_world import TINY_RUN, World

CASES = Cases()
bad = CASES.add


def test_bad_input(case: Case, world: World, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case, world, here, monkeypatch)


# train and submit ------------------------------------------------------------------------------------


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


@bad("metric that is not measured", r"select='f1@51' is no metric.*did you mean 'f1@\d\d'")
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


@bad("test features of another width", r"S\d_\w+.*9 channels, the model reads 8")
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
