"""Every layout has a look-alike that is detected, opened and split as the real folder would be."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from framecast.data.check import check_data
from framecast.data.features import save_track
from framecast.data.layouts import LAYOUTS, detect_layout
from framecast.data.segmentation import SegmentationData, fold_of, length_tolerance, open_segmentation
from framecast.data.synthetic import synthetic_features, write_lookalike
from framecast.data.video import frame_times
from framecast.metrics import SegmentationMetrics
from framecast.structures import FeatureTrack, Provenance

DATA = Path(os.environ.get("FRAMECAST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SPLIT = {"mstcn": {"folds": 5, "split": 1}, "csv": {"folds": 5, "split": 1}, "assembly101": {}}
HOW = Provenance("vit_tiny", "0123456789abcdef", None, "cls", (224, 224), (0.5,) * 3, (0.5,) * 3, None)


def open_split(layout: str, root: Path, subset: str, **more) -> SegmentationData:
    return open_segmentation(root, subset=subset, **{**SPLIT.get(layout, {"split": 1}), **more})  # ty: ignore


@pytest.fixture(params=LAYOUTS)
def lookalike(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    return request.param, write_lookalike(request.param, tmp_path / "data", seed=1)


def test_is_detected(lookalike: tuple[str, Path]) -> None:
    layout, root = lookalike
    assert detect_layout(root).name == layout


def test_items_have_the_promised_shapes(lookalike: tuple[str, Path]) -> None:
    layout, root = lookalike
    data = open_split(layout, root, "train")
    for item, video in zip(data, data.videos, strict=True):
        assert item["video"] == video
        assert item["features"].shape == (data.feature_dim, len(item["labels"]))
        assert (item["features"].dtype, item["labels"].dtype) == (np.float32, np.int64)
        assert 0 <= item["labels"].min() <= item["labels"].max() < len(data.classes)


def test_train_and_test_share_no_video(lookalike: tuple[str, Path]) -> None:
    layout, root = lookalike
    train, test = (set(open_split(layout, root, side).videos) for side in ("train", "test"))
    everything = set(open_segmentation(root).videos)
    assert not train & test
    assert train | test == everything
    assert test


def test_protocols_fit_the_data(lookalike: tuple[str, Path]) -> None:
    layout, root = lookalike
    data = open_split(layout, root, "test")
    named = {"breakfast", "50salads", "gtea", "assembly101"}
    assert data.protocol_prefix == (layout if layout in named else "segmentation")
    assert data.protocols[0].startswith(data.protocol_prefix)
    metrics = SegmentationMetrics(data.classes)
    for i, item in enumerate(data):
        metrics.update(data.to_annotation_rate(item["labels"], i), data.annotation(i), item["video"])
    for protocol in data.protocols:
        assert metrics.compute(protocol)["f1@50"] == 100


def test_features_tell_the_classes_apart(lookalike: tuple[str, Path]) -> None:
    """The nearest class mean of the training videos is right on most frames of the others, not on all."""
    layout, root = lookalike
    train, test = open_split(layout, root, "train"), open_split(layout, root, "test")
    features = np.concatenate([item["features"] for item in train], axis=1)
    labels = np.concatenate([item["labels"] for item in train])
    means = {i: features[:, labels == i].mean(axis=1) for i in np.unique(labels)}
    known, centres = np.array(list(means)), np.stack(list(means.values()))
    right = total = 0
    for item in test:
        distance = ((item["features"].T[:, None] - centres) ** 2).sum(axis=2)
        right += (known[distance.argmin(axis=1)] == item["labels"]).sum()
        total += len(item["labels"])
    assert 0.6 < right / total < 1


def test_the_same_seed_writes_the_same_bytes(lookalike: tuple[str, Path], tmp_path: Path) -> None:
    layout, root = lookalike
    again, other = (write_lookalike(layout, tmp_path / f"seed{seed}", seed=seed) for seed in (1, 2))
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    assert all((root / f).read_bytes() == (again / f).read_bytes() for f in files)
    changed = [
        f for f in files if not (other / f).exists() or (root / f).read_bytes() != (other / f).read_bytes()
    ]
    assert changed


def test_a_folder_with_files_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_lookalike("breakfast", tmp_path)
    with pytest.raises(ValueError, match="did you mean 'gtea'"):
        write_lookalike("gtae", tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_every_layout_states_where_it_comes_from() -> None:
    for layout in LAYOUTS.values():
        assert layout.title
        assert layout.source
        assert layout.tree
        assert bool(layout.citation) == (layout.name not in ("mstcn", "csv"))
    assert [len(LAYOUTS[name].classes) for name in ("breakfast", "50salads", "gtea")] == [48, 19, 11]


# --- splits and folds --------------------------------------------------------------------------------------


def test_splits_are_by_person(tmp_path: Path) -> None:
    root = write_lookalike("breakfast", tmp_path / "data", num_videos=16)
    for split in range(1, 5):
        people = [
            {v[:3] for v in open_segmentation(root, split=split, subset=s).videos} for s in ("train", "test")
        ]
        assert not people[0] & people[1]


def test_folds_test_every_video_once_whatever_the_order() -> None:
    videos = [f"v{i}" for i in range(11)]
    fold = fold_of(videos, 4)
    assert fold == fold_of(videos[::-1], 4)
    sizes = np.bincount(list(fold.values()), minlength=5)[1:]
    assert sizes.sum() == 11
    assert sizes.max() - sizes.min() <= 1


# --- rates and lengths -------------------------------------------------------------------------------------


def test_sample_rate_strides_features_and_labels_together(tmp_path: Path) -> None:
    root = write_lookalike("mstcn", tmp_path / "data")
    full, every_third = open_segmentation(root), open_segmentation(root, sample_rate=3)
    for i in range(len(full)):
        np.testing.assert_array_equal(every_third[i]["features"], full[i]["features"][:, ::3])
        np.testing.assert_array_equal(every_third[i]["labels"], full[i]["labels"][::3])
        np.testing.assert_array_equal(every_third.annotation(i), full[i]["labels"])
        repeated = np.repeat(every_third[i]["labels"], 3)[: len(full[i]["labels"])]
        np.testing.assert_array_equal(every_third.to_annotation_rate(every_third[i]["labels"], i), repeated)
    with pytest.raises(ValueError, match="steps but 3 predictions"):
        full.to_annotation_rate(np.zeros(3, int), 0)


@pytest.mark.parametrize("off", [-8, -1, 5, 8])
def test_labels_follow_features_of_slightly_other_length(off: int, tmp_path: Path) -> None:
    """The label of step j of F is the one of frame floor(j N / F), nearest neighbour as in LTContext."""
    root = write_lookalike("mstcn", tmp_path / "data")
    expected = open_segmentation(root)[0]["labels"]
    path = root / "features" / "video_00.npy"
    np.save(path, np.resize(np.load(path), (16, len(expected) + off)))
    data = open_segmentation(root)
    steps = np.arange(len(expected) + off)
    np.testing.assert_array_equal(data[0]["labels"], expected[steps * len(expected) // len(steps)])
    np.testing.assert_array_equal(data.annotation(0), expected)
    assert len(data.to_annotation_rate(data[0]["labels"], 0)) == len(expected)


def test_the_tolerance_is_two_percent_and_at_least_eight() -> None:
    assert [length_tolerance(n) for n in (10, 400, 1000, 10_000)] == [8, 8, 20, 200]


def test_transposed_features_are_turned_when_their_width_is_given(tmp_path: Path) -> None:
    root = write_lookalike("mstcn", tmp_path / "data")
    expected = open_segmentation(root)[0]["features"]
    for path in (root / "features").iterdir():
        np.save(path, np.load(path).T.copy())
    np.testing.assert_array_equal(open_segmentation(root, feature_dim=16)[0]["features"], expected)


def test_as_many_frames_as_channels_are_read_channels_first(tmp_path: Path) -> None:
    """2048 frames of 2048-d features are possible; only the layout says which axis is time."""
    root = write_lookalike("mstcn", tmp_path / "data")
    num_frames = open_segmentation(root)[0]["labels"].size
    rng = np.random.default_rng(0)
    for path in (root / "features").iterdir():
        np.save(path, rng.normal(size=(num_frames, np.load(path).shape[1])).astype(np.float32))
    data = open_segmentation(root)
    np.testing.assert_array_equal(data[0]["features"], np.load(root / "features" / "video_00.npy"))
    assert open_segmentation(root, feature_dim=num_frames)[0]["features"].shape == (num_frames, num_frames)


def sampled_track(num_frames: int, every: int, fps: float, labels: np.ndarray) -> FeatureTrack:
    values = synthetic_features(labels[::every], np.eye(8, 16), np.random.default_rng(0))
    times = np.arange(num_frames)[::every] / fps
    return FeatureTrack(values, times, replace(HOW, step_s=every / fps))


def test_features_at_another_rate_find_their_labels_by_time(tmp_path: Path) -> None:
    """Features every 5th frame of 25 fps videos, labels on every frame: `label_fps` says how they meet."""
    for layout in ("mstcn", "csv"):
        root = write_lookalike(layout, tmp_path / layout)
        frames = open_segmentation(root)
        expected = {item["video"]: item["labels"] for item in frames}
        for video, labels in expected.items():
            (root / "features" / f"{video}.npy").unlink()
            save_track(sampled_track(len(labels), 5, 25.0, labels), root / "features" / f"{video}.npy")
        with pytest.raises(ValueError, match="label_fps"):
            open_segmentation(root)[0]
        data = open_segmentation(root, label_fps=25.0)
        for i, item in enumerate(data):
            np.testing.assert_array_equal(item["labels"], expected[item["video"]][::5])
            np.testing.assert_allclose(np.diff(item["times"]), 0.2)
            got = data.to_annotation_rate(item["labels"], i)
            assert np.mean(got == data.annotation(i)) > 0.7


def test_features_at_another_rate_find_their_labels_by_the_videos(tmp_path: Path) -> None:
    source = DATA / "fir_actions"
    if not source.is_dir():
        pytest.skip(f"no fir_actions in {DATA}; set FRAMECAST_DATA to a folder that has it")
    root = tmp_path / "data"
    for name in ("groundTruth", "videos", "features"):
        (root / name).mkdir(parents=True)
    shutil.copy(source / "mapping.txt", root)
    video = min(source.glob("videos/*.mp4"), key=lambda p: p.stat().st_size).stem
    shutil.copy(source / "videos" / f"{video}.mp4", root / "videos")
    shutil.copy(source / "groundTruth" / f"{video}.txt", root / "groundTruth")
    times = frame_times(root / "videos" / f"{video}.mp4")
    sampled = np.arange(0.0, times[-1], 0.5)
    track = FeatureTrack(np.ones((4, len(sampled)), np.float32), sampled, replace(HOW, step_s=0.5))
    save_track(track, root / "features" / f"{video}.npy")
    data = open_segmentation(root)
    full = data.annotation(0)
    assert len(full) == len(times)
    shown = np.array([np.flatnonzero(times <= t + 1e-6)[-1] for t in sampled])
    np.testing.assert_array_equal(data[0]["labels"], full[shown])


def test_a_table_may_be_given_itself_and_name_the_files_of_the_videos(tmp_path: Path) -> None:
    root = write_lookalike("csv", tmp_path / "data")
    expected = open_segmentation(root)
    table = root / "segments.csv"
    table.write_text(table.read_text().replace("video_00,", "video_00.mp4,"))
    data = open_segmentation(table)
    assert data.videos[0] == "video_00.mp4"
    np.testing.assert_array_equal(data[0]["labels"], expected[0]["labels"])
    assert check_data(table) == []


# --- provenance --------------------------------------------------------------------------------------------


def write_tracks(root: Path, how: list[Provenance | None]) -> None:
    for path, provenance in zip(sorted((root / "features").glob("*.npy")), how, strict=True):
        values = np.load(path)
        path.unlink()
        save_track(FeatureTrack(values, np.arange(values.shape[1]) / 25, provenance), path)


def test_provenance_is_that_of_every_track(tmp_path: Path) -> None:
    root = write_lookalike("mstcn", tmp_path / "data")
    assert open_segmentation(root).provenance is None
    write_tracks(root, [replace(HOW, video_hash=str(i)) for i in range(10)])
    data = open_segmentation(root)
    assert data.provenance is not None
    assert not data.provenance.differences(HOW)
    assert data[3]["times"][1] == pytest.approx(0.04)


@pytest.mark.parametrize(
    "other", [replace(HOW, weights="fedcba9876543210"), None], ids=["weights", "unknown"]
)
def test_mixed_provenance_is_refused(other: Provenance | None, tmp_path: Path) -> None:
    root = write_lookalike("mstcn", tmp_path / "data")
    write_tracks(root, [HOW] * 6 + [other] + [HOW] * 3)
    with pytest.raises(ValueError, match=r"video_06.npy.*made differently"):
        open_segmentation(root)


def test_items_do_not_share_memory_with_the_cache(tmp_path: Path) -> None:
    data = open_segmentation(write_lookalike("tas_scores", tmp_path / "data"))
    data[0]["features"][:] = 0
    assert data[0]["features"].any()


# --- real data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classes", "splits"), [("salads50_mid", 18, 4), ("salads50_eval", 10, 4), ("gtea", 11, 2)]
)
def test_real_score_files(name: str, classes: int, splits: int) -> None:
    root = DATA / "tas_scores" / name
    if not root.is_dir():
        pytest.skip(f"no tas_scores in {DATA}; set FRAMECAST_DATA to a folder that has it")
    data = open_segmentation(root)
    assert (len(data.classes), data.feature_dim, data.folder.splits) == (
        classes,
        classes,
        list(range(1, splits + 1)),
    )
    tested = [v for k in data.folder.splits for v in open_segmentation(root, split=k, subset="test").videos]
    assert sorted(tested) == data.videos
    accuracy = np.mean([(item["features"].argmax(axis=0) == item["labels"]).mean() for item in data])
    assert 0.5 < accuracy < 0.75  # the single-frame model that made the scores
    other = open_segmentation(root, features="ed_tcn")
    assert other.videos == data.videos
