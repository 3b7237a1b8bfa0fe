"""Videos and feature files that `predict` and `features` cannot take."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bad_input import (
    NOISE,
    Case,
    Cases,
    Command,
    Harm,
    check,
    label_free,
    with_model,
    write,
)
from small_world import World

from framecast.data.features import load_track, save_track
from video_factory import write_video

CASES = Cases()
bad = CASES.add


def test_bad_input(case: Case, world: World, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case, world, here, monkeypatch)


# predict ---------------------------------------------------------------------------------------------


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


# features --------------------------------------------------------------------------------------------


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
