"""A track on disk is what it was in memory, with how it was made; foreign files are turned upright."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from framecast.data import features
from framecast.data.features import load_track, read_provenance, save_track
from framecast.structures import FeatureTrack, Provenance

PROVENANCE = Provenance(
    backbone="vit_tiny",
    weights="0123456789abcdef",
    layer=9,
    pooling="cls+mean",
    image_size=(98, 112),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    step_s=0.5,
    video_hash="fedcba9876543210",
)


def make_track(channels: int = 6, steps: int = 20, dtype: type = np.float16) -> FeatureTrack:
    values = np.random.default_rng(0).normal(size=(channels, steps)).astype(dtype)
    return FeatureTrack(values, np.arange(steps) / 3, PROVENANCE, "cooking.mp4")


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_saved_is_loaded(tmp_path, suffix, dtype):
    track = make_track(dtype=dtype)
    path = tmp_path / f"cooking{suffix}"
    save_track(track, path)
    loaded = load_track(path)
    np.testing.assert_array_equal(loaded.values, track.values)
    np.testing.assert_array_equal(loaded.times, track.times)
    assert loaded.values.dtype == dtype
    assert loaded.provenance == read_provenance(path) == PROVENANCE
    assert loaded.source == "cooking.mp4"


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_times_and_provenance_may_be_unknown(tmp_path, suffix):
    path = tmp_path / f"bare{suffix}"
    save_track(FeatureTrack(np.ones((4, 4), dtype=np.float32)), path)  # square, but ours: channels come first
    loaded = load_track(path)
    assert loaded.times is None
    assert loaded.provenance is None


def test_npy_is_memory_mapped(tmp_path):
    save_track(make_track(), tmp_path / "x.npy")
    assert isinstance(load_track(tmp_path / "x.npy").values, np.memmap)
    np.save(tmp_path / "foreign.npy", np.ones((30, 5), dtype=np.float32))
    turned = load_track(tmp_path / "foreign.npy", feature_dim=5).values
    assert isinstance(turned, np.memmap)
    assert turned.shape == (5, 30)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 200), st.booleans(), st.booleans())
def test_foreign_files_are_turned_upright_or_refused(tmp_path_factory, channels, steps, upright, with_steps):
    path = tmp_path_factory.mktemp("foreign") / "video.npy"
    values = np.random.default_rng(channels).normal(size=(channels, steps)).astype(np.float32)
    np.save(path, values if upright else values.T)
    known = {"feature_dim": channels, **({"num_frames": steps} if with_steps else {})}
    if channels == steps:
        with pytest.raises(ValueError, match="does not tell time from channels"):
            load_track(path, **known)
    else:
        np.testing.assert_array_equal(load_track(path, **known).values, values)


def test_the_number_of_frames_need_not_be_exact(tmp_path):
    np.save(tmp_path / "i3d.npy", np.ones((500, 64), dtype=np.float32))
    for num_frames in (500, 495, 508):
        assert load_track(tmp_path / "i3d.npy", num_frames=num_frames).values.shape == (64, 500)
    with pytest.raises(ValueError, match=r"shape \(500, 64\) does not fit about 600 steps"):
        load_track(tmp_path / "i3d.npy", num_frames=600)
    with pytest.raises(ValueError, match=r"does not fit 65 channels and about 500 steps"):
        load_track(tmp_path / "i3d.npy", num_frames=500, feature_dim=65)


def test_a_foreign_file_without_a_hint_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((8, 9), dtype=np.float32))
    with pytest.raises(ValueError, match=r"x.npy: shape \(8, 9\) may be .* pass feature_dim or num_frames"):
        load_track(tmp_path / "x.npy")


def test_foreign_shapes_and_types(tmp_path):
    np.save(tmp_path / "batch.npy", np.ones((1, 30, 5), dtype=np.float64))
    loaded = load_track(tmp_path / "batch.npy", feature_dim=5)
    assert loaded.values.shape == (5, 30)
    assert loaded.values.dtype == np.float32
    save_file({"features": np.ones((5, 30), np.float32), "more": np.ones(2)}, tmp_path / "two.safetensors")
    assert load_track(tmp_path / "two.safetensors", feature_dim=5).values.shape == (5, 30)
    for name, array, message in (
        ("cube", np.ones((2, 3, 4), np.float32), r"cube.npy: holds an array of shape \(2, 3, 4\)"),
        ("none", np.ones((4, 0), np.float32), r"none.npy: holds an array of shape \(4, 0\)"),
        ("whole", np.ones((4, 5), np.int64), "whole.npy: holds int64"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(ValueError, match=message):
            load_track(tmp_path / f"{name}.npy", feature_dim=4)


def test_another_backbone_is_refused_by_its_width(tmp_path):
    save_track(make_track(channels=6), tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"x.npy: has 6 channels where 8 are expected"):
        load_track(tmp_path / "x.npy", feature_dim=8)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_value_that_is_not_finite_is_named(tmp_path, bad, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 40)  # several parts
    values = np.zeros((6, 30), dtype=np.float32)
    values[4, 17] = values[1, 25] = values[5, 17] = bad
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(ValueError, match=rf"x.npy: {bad} at channel 4, step 17"):
        load_track(tmp_path / "x.npy", feature_dim=6)
    with pytest.raises(ValueError, match="at channel 4, step 17"):
        save_track(FeatureTrack(values), tmp_path / "y.npy")
    assert not (tmp_path / "y.npy").exists()


def test_unreadable_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_text("1 2 3")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    whole = tmp_path / "whole.npy"
    save_track(make_track(), whole)
    (tmp_path / "cut.npy").write_bytes(whole.read_bytes()[:-20])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    for name in ("empty.npy", "text.npy", "objects.npy", "cut.npy", "cut.safetensors"):
        with pytest.raises(ValueError, match=f"{name}: is not a readable") as caught:
            load_track(tmp_path / name, feature_dim=6)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"gone.npy: no such feature file"):
        load_track(tmp_path / "gone.npy")
    (tmp_path / "x.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"x.pt: feature files end in .npy or .safetensors"):
        load_track(tmp_path / "x.pt")


def test_a_description_that_does_not_belong_is_noticed(tmp_path):
    path = tmp_path / "x.npy"
    save_track(make_track(), path)
    np.save(path, np.ones((6, 7), dtype=np.float16))
    with pytest.raises(ValueError, match=r"holds \(6, 7\) but its description says \(6, 20\)"):
        load_track(path)
    side = path.with_suffix(".json")
    about = json.loads(side.read_text())
    about["provenance"].pop("layer")
    side.write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"x.npy: feature provenance has missing fields \['layer'\]"):
        read_provenance(path)
    side.write_text("{")
    with pytest.raises(ValueError, match=r"x.json: is not readable JSON"):
        load_track(path)


def test_a_json_of_somebody_else_is_left_alone(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((6, 20), dtype=np.float32))
    (tmp_path / "x.json").write_text('{"fps": 25}')
    assert load_track(tmp_path / "x.npy", feature_dim=6).provenance is None


def test_bad_tracks_are_not_written(tmp_path):
    track = make_track()
    for bad, message in (
        (replace(track, values=track.values.astype(np.float64)), "float16 or float32, got float64"),
        (replace(track, values=track.values[0]), r"got float16 of shape \(20,\)"),
        (replace(track, times=np.arange(3.0)), "20 feature vectors but 3 times"),
    ):
        with pytest.raises(ValueError, match=message):
            save_track(bad, tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"written as .npy or .safetensors, not '.pt'"):
        save_track(track, tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupted_write_leaves_no_track_that_passes_for_another(tmp_path, suffix, call, monkeypatch):
    path = tmp_path / f"x{suffix}"
    save_track(make_track(), path)
    newer = replace(make_track(), provenance=replace(PROVENANCE, layer=3))

    def stop_at_values(*args):
        if Path(str(args[-1])).suffix == ".json" or not (tmp_path / "armed").exists():
            return original(*args)
        raise KeyboardInterrupt

    original = getattr(os, call)
    (tmp_path / "armed").touch()
    monkeypatch.setattr(features.os, call, stop_at_values)
    with pytest.raises(KeyboardInterrupt):
        save_track(newer, path)
    monkeypatch.undo()
    (tmp_path / "armed").unlink()
    assert not list(tmp_path.glob("*.tmp"))
    assert not list(tmp_path.glob(".*.tmp"))
    if path.exists():  # the old one, whole
        assert load_track(path).provenance == PROVENANCE
