"""`inspect_data` reports every problem of a folder in one pass, and says what is there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from framecast.data.check import check_data, inspect_data
from framecast.data.features import save_track
from framecast.data.layouts import LAYOUTS
from framecast.data.segmentation import open_segmentation
from framecast.data.synthetic import write_lookalike
from framecast.structures import FeatureTrack

DATA = Path(os.environ.get("FRAMECAST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sound_folder_has_no_problem_and_is_counted(layout: str, tmp_path: Path) -> None:
    root = write_lookalike(layout, tmp_path / "data")
    report = inspect_data(root)
    assert report.problems == []
    data = open_segmentation(root)
    labels = [data.annotation(i) for i in range(len(data))]
    summary = report.summary()
    assert summary["layout"] == layout
    assert summary["videos"] == len(data)
    assert summary["frames"] == sum(map(len, labels)) == sum(summary["class_frames"].values())
    assert summary["segments"] == sum(1 + np.count_nonzero(np.diff(one)) for one in labels)
    assert summary["feature_dim"] == data.feature_dim
    assert set(summary["unused_classes"]) == set(data.classes) - {
        data.classes[i] for i in np.concatenate(labels)
    }


@pytest.mark.parametrize(
    ("row", "fine"),
    [("v,0,2.4,walk", True), ("v,1,3.2,walk", True), ("v,2.5,3,walk", False), ("v,0,60,walk", False)],
)
def test_segments_in_seconds_end_with_the_video(row: str, fine: bool, tmp_path: Path) -> None:
    """2.4 s of features; a rounded end may lie a little later, frames taken for seconds do not."""
    track = FeatureTrack(np.ones((4, 12), np.float32), times=np.arange(12) / 5)
    (tmp_path / "features").mkdir()
    save_track(track, tmp_path / "features" / "v.npy")
    (tmp_path / "segments.csv").write_text(f"video,start_s,end_s,label\n{row}\n")
    problems = [str(problem) for problem in check_data(tmp_path)]
    assert (problems == []) == fine
    assert fine or ("segments.csv:2" in problems[0] and "beyond the end" in problems[0])


def test_many_problems_are_all_reported(tmp_path: Path) -> None:
    root = write_lookalike("breakfast", tmp_path / "data")
    features, labels = sorted((root / "features").iterdir()), sorted((root / "groundTruth").iterdir())
    features[0].unlink()
    np.save(features[1], np.full_like(np.load(features[1]), np.nan))
    np.save(features[2], np.load(features[2])[:, :20])
    np.save(root / "features" / "stray.npy", np.zeros((16, 5), np.float32))
    with labels[3].open("a") as file:
        file.write("pour_milkk\nSILL\n")
    with (root / "splits" / "test.split2.bundle").open("a") as file:
        file.write("nobody.txt\n")
    test = (root / "splits" / "test.split1.bundle").read_text()
    with (root / "splits" / "train.split1.bundle").open("a") as file:
        file.write(test)
    (root / "videos").mkdir()
    (root / "videos" / "film.mp4").write_bytes(b"no film")
    problems = [str(problem) for problem in check_data(root)]
    for fragments in (
        (features[0].stem, "no features"),
        (features[1].name, "nan"),
        (features[2].name, "20 steps"),
        ("stray.npy", "has no labels"),
        (f"{labels[3].name}:", "'pour_milkk'", "'pour_milk'"),
        (f"{labels[3].name}:", "'SILL'"),
        ("test.split2.bundle", "'nobody'"),
        ("train.split1.bundle", "test.split1.bundle"),
        ("film.mp4",),
    ):
        assert any(all(f in line for f in fragments) for line in problems), fragments
    assert len(problems) == len(set(problems)) == 8 + test.count("\n")


def test_mixed_provenance_and_annotations_alone(tmp_path: Path) -> None:
    root = write_lookalike("mstcn", tmp_path / "data")
    for path in (root / "features").iterdir():
        path.unlink()
    assert len(check_data(root)) == 10  # one a video
    assert check_data(root, features=None) == []
    (root / "features").rmdir()
    (problem,) = check_data(root)  # not one a video
    assert "no such folder" in str(problem)


def test_a_folder_that_cannot_be_opened_is_a_problem(tmp_path: Path) -> None:
    (problem,) = check_data(tmp_path / "nowhere")
    assert "does not exist" in problem.message
    (problem,) = check_data(tmp_path)
    assert "mapping.txt" in problem.message


def test_real_recordings() -> None:
    root = DATA / "fir_actions"
    if not root.is_dir():
        pytest.skip(f"no fir_actions in {DATA}; set FRAMECAST_DATA to a folder that has it")
    report = inspect_data(root, features=None)
    assert report.ok
    assert (len(report.frames), sum(report.frames.values()), len(report.classes)) == (16, 17_680, 10)
