"""Runs and data that cannot be scored, and data in which every problem is found at once."""

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
    write,
)
from small_world import World, framecast

CASES = Cases()
bad = CASES.add


def test_bad_input(case: Case, world: World, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case, world, here, monkeypatch)


# evaluate --------------------------------------------------------------------------------------------


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


# check-data ------------------------------------------------------------------------------------------


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
