"""Videos become tracks that say how they were made; a folder can be interrupted, resumed and shared out."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_backbone import TinyBackbone, make_backbone

from framecast.data.features import load_track
from framecast.data.video import frame_times, iter_clips
from framecast.infer import frame_features
from framecast.infer.features import (
    FeatureSettings,
    extract_features,
    extract_folder,
    provenance_of,
    video_hash,
    weights_hash,
)
from framecast.infer.frame_features import read_ahead
from video_factory import write_video

SETTINGS = FeatureSettings("tiny", image_size=(24, 32), pooling="cls+mean", batch_size=4, stored="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four short videos, one of them in a sub-folder, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "more").mkdir()
    for i, name in enumerate(("a.mp4", "b.mkv", "c.mp4", "more/d.mp4")):
        write_video(folder / name, 10 + i, size=(32, 48))
    (folder / "broken.mp4").write_text("not a video\n" * 10)
    return folder


@pytest.fixture
def videos(folder) -> list[Path]:
    return [folder / name for name in ("a.mp4", "b.mkv", "c.mp4", "more/d.mp4")]


def extract(videos, out, settings=SETTINGS, **options):
    return extract_folder(videos, out, settings, model_factory=make_backbone, **options)


def test_features_are_those_of_the_frames(videos):
    model = TinyBackbone()
    track = extract_features(model, videos[0], SETTINGS)
    frames = torch.cat([clip.frames for clip in iter_clips(videos[0], size=(24, 32))]).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.config.mean, model.config.std))
    with torch.inference_mode():
        tokens = model.forward_features((frames - mean) / std)
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1).T
    np.testing.assert_allclose(track.values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(track.times, frame_times(videos[0]))
    assert track.values.shape == (12, 10)
    assert track.provenance is not None
    assert track.provenance.backbone == "tiny"
    assert track.provenance.pooling == "cls+mean"
    assert track.provenance.weights == weights_hash(model)
    assert track.provenance.video_hash == video_hash(videos[0])
    assert (track.provenance.mean, track.provenance.std) == (model.config.mean, model.config.std)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_size_changes_nothing(videos, batch_size):
    one, other = (
        extract_features(TinyBackbone(), videos[1], replace(SETTINGS, batch_size=b)) for b in (4, batch_size)
    )
    np.testing.assert_allclose(one.values, other.values, rtol=1e-5, atol=1e-6)
    assert one.provenance == other.provenance


def test_steps_layers_and_pooling(videos):
    cls = extract_features(TinyBackbone(), videos[0], replace(SETTINGS, pooling="cls", step_s=0.25))
    assert cls.values.shape == (6, 4)
    assert cls.times is not None
    np.testing.assert_allclose(cls.times, [0, 0.25, 0.5, 0.75])
    settings = replace(SETTINGS, pooling="cls", step_s=0.25, layer=2)
    inner = extract_features(TinyBackbone(), videos[0], settings)
    np.testing.assert_allclose(inner.values, cls.values + 2, rtol=1e-5, atol=1e-5)
    half = extract_features(TinyBackbone(), videos[0], replace(SETTINGS, stored="float16"))
    assert half.values.dtype == np.float16


def test_settings_that_do_not_fit_are_refused(videos):
    with pytest.raises(ValueError, match=r"patches of 8 pixels; image size \(24, 30\).*\(24, 32\) does"):
        extract_features(TinyBackbone(), videos[0], replace(SETTINGS, image_size=(24, 30)))
    blind = TinyBackbone()
    blind.num_prefix_tokens = 0
    with pytest.raises(ValueError, match="has no class token; use pooling='mean'"):
        provenance_of(blind, SETTINGS)
    for wrong in ({"pooling": "max"}, {"batch_size": 0}, {"step_s": 0.0}, {"dtype": "int8"}):
        with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
            replace(SETTINGS, **wrong)
    loud = TinyBackbone()
    with torch.no_grad():
        loud.scale.fill_(1e6)
    with pytest.raises(ValueError, match=r"too large for float16; use stored='float32'"):
        extract_features(loud, videos[0], replace(SETTINGS, stored="float16"))
    with torch.no_grad():
        loud.scale.fill_(torch.nan)
    with pytest.raises(ValueError, match="gives non-finite features"):
        extract_features(loud, videos[0], SETTINGS)


def test_the_weights_hash_sees_every_bit():
    model = TinyBackbone()
    assert weights_hash(model) == weights_hash(TinyBackbone())
    assert len(weights_hash(model)) == 16
    before = weights_hash(model)
    with torch.no_grad():
        model.scale[3] = torch.nextafter(model.scale[3], torch.tensor(9.0))
    assert weights_hash(model) != before
    assert weights_hash(TinyBackbone().to(torch.bfloat16)) != before


def test_decoding_runs_ahead_of_the_model(videos, monkeypatch):
    decoded_by = set()

    def watched(*args, **kwargs):
        for clip in iter_clips(*args, **kwargs):
            decoded_by.add(threading.current_thread().name)
            yield clip

    monkeypatch.setattr(frame_features, "iter_clips", watched)
    model = TinyBackbone()
    extract_features(model, videos[0], SETTINGS)
    assert decoded_by == {"read-ahead"}
    assert model.threads_seen == {threading.current_thread().name}


def test_read_ahead_is_bounded_ordered_and_stops():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    reader = read_ahead(items(), depth=3)
    assert [next(reader) for _ in range(5)] == [0, 1, 2, 3, 4]
    deadline = time.monotonic() + 2
    while len(made) < 9 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 9  # five taken, three waiting, one in hand
    reader.close()
    assert "read-ahead" not in [thread.name for thread in threading.enumerate()]
    assert list(read_ahead(range(7), depth=2)) == list(range(7))

    def failing():
        yield 1
        raise OSError("the disk is gone")

    reader = read_ahead(failing(), depth=2)
    assert next(reader) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(reader)


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cpu"]])
def test_a_folder(folder, tmp_path, devices):
    report = extract(folder, tmp_path / "out", devices=devices)
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.npy"))
    assert found == ["a.npy", "b.npy", "c.npy", "more/d.npy"]
    assert sorted(report.done) == [str(folder / name) for name in ("a.mp4", "b.mkv", "c.mp4", "more/d.mp4")]
    assert list(report.failed) == [str(folder / "broken.mp4")]
    assert "broken.mp4: is text, not a video" in str(report)
    assert report.exit_status == 1
    assert report.num_steps == 10 + 11 + 12 + 13
    alone = extract_features(TinyBackbone(), folder / "c.mp4", SETTINGS)
    track = load_track(tmp_path / "out" / "c.npy")
    np.testing.assert_allclose(track.values, alone.values, rtol=1e-5, atol=1e-6)
    assert track.provenance == alone.provenance


def test_finished_tracks_are_kept(videos, tmp_path):
    out = tmp_path / "out"
    assert extract(videos[:2], out).exit_status == 0
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / ".c.npy.1.tmp").write_bytes(b"half")  # what a killed run may leave behind
    (out / "c.json").write_text("{}")
    report = extract(videos, out)
    assert [Path(video).name for video in report.skipped] == ["a.mp4", "b.mkv"]
    assert [Path(video).name for video in report.done] == ["c.mp4", "d.mp4"]
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert "2 videos extracted" in str(report)
    assert "2 were there already, 0 failed" in str(report)


def test_tracks_made_in_another_way_are_refused_before_any_work(videos, tmp_path):
    out = tmp_path / "out"
    extract(videos[1:2], out)
    for other, difference in (
        (replace(SETTINGS, pooling="mean"), r"pooling: 'cls\+mean' here, 'mean' there"),
        (replace(SETTINGS, weights="1"), "weights: '[0-9a-f]{16}' here"),
        (replace(SETTINGS, step_s=0.5), "step_s: None here, 0.5 there"),
    ):
        with pytest.raises(ValueError, match=rf"b.npy: was made in another way \({difference}"):
            extract(videos, out, other)
    assert sorted(path.name for path in out.iterdir()) == ["b.json", "b.npy"]
    with pytest.raises(ValueError, match="is there already; pass resume=True"):
        extract(videos, out, resume=False)
    np.save(out / "c.npy", np.ones((12, 12), dtype=np.float32))
    with pytest.raises(ValueError, match=r"c.npy: was made in another way \(it does not say how it was made"):
        extract(videos, out)
    report = extract(videos, out, replace(SETTINGS, pooling="mean"), overwrite=True)
    assert len(report.done) == 4
    assert load_track(out / "b.npy").values.shape[0] == 6


def test_a_changed_video_is_noticed(tmp_path):
    video = write_video(tmp_path / "v.mp4", 5)
    extract([video], tmp_path / "out")
    write_video(video, 6)
    report = extract([video], tmp_path / "out")
    assert "has changed since" in report.failed[str(video)]
    assert report.exit_status == 1
    assert extract([video], tmp_path / "out", overwrite=True).num_steps == 6


def test_videos_that_would_share_a_track_are_refused(tmp_path):
    for name in ("x.mp4", "x.mkv"):
        write_video(tmp_path / name, 3)
    with pytest.raises(ValueError, match=r"x.mp4 and .*x.mkv both make .*x.npy; rename one of them"):
        extract(sorted(tmp_path.iterdir(), reverse=True), tmp_path / "out")


def test_a_process_that_dies_costs_its_video_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_BACKBONE_MAY_DIE", "1")
    videos = [write_video(tmp_path / f"{i}.mp4", n, size=(32, 48)) for i, n in enumerate((4, 5, 8, 4))]
    settings = replace(SETTINGS, weights="die", batch_size=8)
    report = extract(videos, tmp_path / "out", settings, devices=["cpu", "cpu"])
    assert "its process ended with status 9" in report.failed.pop(str(videos[1]))
    assert not report.failed
    assert len(report.done) == 3


def test_weights_must_be_the_same_in_every_process(videos, tmp_path):
    with pytest.raises(ValueError, match="gives other weights in each process"):
        extract(videos, tmp_path / "out", replace(SETTINGS, weights="random"), devices=["cpu", "cpu"])
    assert not any(process.is_alive() for process in torch.multiprocessing.active_children())


def test_nothing_is_printed_where_nobody_looks(folder, tmp_path, capfd):
    extract(folder, tmp_path / "out")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert "RANK" not in os.environ
