"""What people get wrong in their folders, and that the message names the culprit.

Every case breaks one thing in a look-alike. Opening and reading the folder must refuse it, and `check_data`
must report it; both messages hold the given fragments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framecast.data.check import check_data
from framecast.data.segmentation import open_segmentation
from framecast.data.synthetic import write_lookalike

Break = Callable[[Path], object]


@dataclass(frozen=True)
class Bad:
    name: str
    layout: str
    spoil: Break
    fragments: tuple[str, ...]
    opening: dict[str, Any] | None = field(default_factory=dict)  # None = only check_data can see it


def replace_line(file: str, line: int, text: str) -> Break:
    """Put another text in place of a line, counted from 1."""

    def spoil(root: Path) -> None:
        path = next(root.glob(file))
        lines = path.read_text().split("\n")
        lines[line - 1] = text
        path.write_text("\n".join(lines))

    return spoil


def write(file: str, content: str | bytes) -> Break:
    def spoil(root: Path) -> None:
        path = next(root.glob(file), root / file)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def remove(file: str) -> Break:
    return lambda root: next(root.glob(file)).unlink()


def change_features(change: Callable[[np.ndarray], np.ndarray], file: str = "features/*_03.npy") -> Break:
    def spoil(root: Path) -> None:
        path = next(root.glob(file))
        np.save(path, change(np.load(path)), allow_pickle=True)

    return spoil


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[2, 7] = value
        return values

    return change


def change_scores(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Break:
    def spoil(root: Path) -> None:
        path = next(root.glob("svm/*_03.npz"))
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **change(arrays))  # ty: ignore[invalid-argument-type]

    return spoil


def move_features(root: Path) -> None:
    (root / "features").rename(root / "i3d")


def turn_all_features(root: Path) -> None:
    for path in (root / "features").iterdir():
        np.save(path, np.load(path).T.copy())


def truncate(file: str) -> Break:
    def spoil(root: Path) -> None:
        path = next(root.glob(file))
        path.write_bytes(path.read_bytes()[:200])

    return spoil


def repeat_in_test(root: Path) -> None:
    """List the first training video for testing too."""
    video = (root / "splits" / "train.split1.bundle").read_text().split("\n")[0]
    with (root / "splits" / "test.split1.bundle").open("a") as file:
        file.write(f"{video}\n")


def repeat_row(root: Path) -> None:
    row = (root / "train.csv").read_text().split("\n")[1]
    with (root / "val.csv").open("a") as file:
        file.write(f"{row}\n")


def add_stray_features(root: Path) -> None:
    np.save(root / "features" / "stray.npy", np.zeros((16, 60), np.float32))


MAPPING = "0 background\n1 walk\n2 sit_down\n3 sit\n4 stand_up\n"
SPLIT = {"split": 1, "subset": "train"}
HEADER = "video,start,end,label\n"

BAD = [
    # mapping.txt
    Bad(
        "id twice", "mstcn", replace_line("mapping.txt", 3, "1 sit_down"), ("mapping.txt:3", "id 1", "'walk'")
    ),
    Bad("name twice", "mstcn", replace_line("mapping.txt", 3, "2 walk"), ("mapping.txt:3", "'walk'", "id 1")),
    Bad(
        "id left out",
        "mstcn",
        write("mapping.txt", MAPPING.replace("4 ", "7 ")),
        ("mapping.txt", "id 4 is missing"),
    ),
    Bad("no id", "mstcn", replace_line("mapping.txt", 2, "walk"), ("mapping.txt:2", "<id> <name>", "'walk'")),
    Bad("empty mapping", "mstcn", write("mapping.txt", "\n"), ("mapping.txt", "is empty")),
    Bad(
        "latin-1 mapping",
        "mstcn",
        write("mapping.txt", b"0 background\n1 caf\xe9\n"),
        ("mapping.txt:2", "UTF-8", "0xe9"),
    ),
    Bad("no mapping", "mstcn", remove("mapping.txt"), ("mapping.txt", "does not exist"), {"layout": "mstcn"}),
    Bad(
        "other classes",
        "mstcn",
        lambda root: None,
        ("mapping.txt", "layout='mstcn'"),
        {"layout": "breakfast"},
    ),
    # groundTruth
    Bad(
        "typo in a label",
        "mstcn",
        replace_line("groundTruth/*_03.txt", 5, "wakl"),
        ("video_03.txt:5", "'wakl'", "'walk'"),
    ),
    Bad("empty line", "mstcn", replace_line("groundTruth/*_03.txt", 6, ""), ("video_03.txt:6", "empty line")),
    Bad("empty labels", "mstcn", write("groundTruth/*_03.txt", ""), ("video_03.txt", "holds no labels")),
    Bad(
        "binary labels",
        "mstcn",
        write("groundTruth/*_03.txt", b"walk\n\xff\xfe"),
        ("video_03.txt:2", "UTF-8"),
    ),
    Bad("no labels at all", "csv", lambda root: (root / "segments.csv").unlink(), ("layout", "mapping.txt")),
    Bad(
        "packed labels",
        "mstcn",
        lambda root: (root / "groundTruth").rename(root / "groundTruth.tar.xz"),
        ("groundTruth.tar.xz", "unpack"),
    ),
    # features
    Bad("missing features", "mstcn", remove("features/*_03.npy"), ("video_03", "no features")),
    Bad("no features folder", "mstcn", move_features, ("features", "no such folder", "framecast features")),
    Bad("NaN", "mstcn", change_features(put(np.nan)), ("video_03.npy", "nan", "7")),
    Bad("infinity", "mstcn", change_features(put(np.inf)), ("video_03.npy", "inf", "7")),
    Bad(
        "one file turned", "mstcn", change_features(lambda v: v.T.copy()), ("video_03.npy", "channels", "16")
    ),
    Bad("all files turned", "mstcn", turn_all_features, ("video_00.npy", "feature_dim=16")),
    Bad(
        "half as many features",
        "mstcn",
        change_features(lambda v: v[:, ::2]),
        ("video_03.npy", "labelled frames", "differ by 8"),
    ),
    Bad("another width", "mstcn", change_features(lambda v: v[:12]), ("video_03.npy", "12 channels", "16")),
    Bad("features of one axis", "mstcn", change_features(lambda v: v[0]), ("video_03.npy",)),
    Bad("cut off file", "mstcn", truncate("features/*_03.npy"), ("video_03.npy",)),
    Bad("not an array", "mstcn", write("features/*_03.npy", "hello"), ("video_03.npy",)),
    Bad(
        "pickled array",
        "mstcn",
        change_features(lambda v: np.array([{"a": 1}], dtype=object)),
        ("video_03.npy",),
    ),
    Bad("stray features", "mstcn", add_stray_features, ("stray.npy", "has no labels"), None),
    Bad("broken video", "mstcn", write("videos/video_03.mp4", "not a film"), ("video_03.mp4",), None),
    # splits
    Bad("test video in train", "breakfast", repeat_in_test, ("train.split1.bundle:1", "never train"), SPLIT),
    Bad(
        "unknown video in a split",
        "breakfast",
        replace_line("splits/train.split1.bundle", 2, "P99.txt"),
        ("train.split1.bundle:2", "'P99'", "groundTruth"),
        SPLIT,
    ),
    Bad(
        "video twice in a split",
        "breakfast",
        replace_line("splits/train.split1.bundle", 2, "P16_cam01_P16_cereals.txt"),
        ("train.split1.bundle:2", "line 1"),
        SPLIT,
    ),
    Bad(
        "empty split",
        "breakfast",
        write("splits/train.split1.bundle", "#bundle\n"),
        ("train.split1.bundle", "no video"),
        SPLIT,
    ),
    Bad(
        "half a split",
        "breakfast",
        remove("splits/test.split1.bundle"),
        ("test.split1.bundle", "does not exist"),
        SPLIT,
    ),
    # CSV
    Bad(
        "column missing",
        "csv",
        replace_line("segments.csv", 1, "video,begin,end,label"),
        ("segments.csv:1", "begin", "video,start,end,label"),
    ),
    Bad(
        "no number",
        "csv",
        replace_line("segments.csv", 3, "video_00,12,1m30,walk"),
        ("segments.csv:3", "'1m30'"),
    ),
    Bad(
        "end before start",
        "csv",
        replace_line("segments.csv", 3, "video_00,30,20,walk"),
        ("segments.csv:3", "end 20", "start 30"),
    ),
    Bad(
        "empty segment",
        "csv",
        replace_line("segments.csv", 3, "video_00,30,30,walk"),
        ("segments.csv:3", "exclusive"),
    ),
    Bad(
        "overlap",
        "csv",
        write("segments.csv", HEADER + "video_00,0,20,walk\nvideo_00,15,40,sit\n"),
        ("segments.csv:3", "'sit'", "line 2"),
    ),
    Bad(
        "overlap with an earlier long one",
        "csv",
        write("segments.csv", HEADER + "video_00,0,90,walk\nvideo_00,90,95,sit\nvideo_00,3,5,sit\n"),
        ("segments.csv:4", "line 2"),
    ),
    Bad(
        "negative start",
        "csv",
        replace_line("segments.csv", 3, "video_00,-5,20,walk"),
        ("segments.csv:3", "-5"),
    ),
    Bad("nan", "csv", replace_line("segments.csv", 3, "video_00,nan,20,walk"), ("segments.csv:3", "nan")),
    Bad(
        "seconds named frames",
        "csv",
        replace_line("segments.csv", 3, "video_00,1.5,20,walk"),
        ("segments.csv:3", "1.5", "start_s"),
    ),
    Bad("no label", "csv", replace_line("segments.csv", 3, "video_00,12,20,"), ("segments.csv:3", "label")),
    Bad("no video", "csv", replace_line("segments.csv", 3, ",12,20,walk"), ("segments.csv:3", "video")),
    Bad("cells missing", "csv", replace_line("segments.csv", 3, "video_00,12"), ("segments.csv:3", "2 of 4")),
    Bad("empty table", "csv", write("segments.csv", ""), ("segments.csv", "is empty")),
    Bad("only a header", "csv", write("segments.csv", HEADER), ("segments.csv", "no segments")),
    Bad(
        "beyond the end", "csv", write("segments.csv", HEADER + "video_00,0,900,walk\n"), ("video_00", "900")
    ),
    Bad(
        "seconds without times",
        "csv",
        write("segments.csv", "video,start_s,end_s,label\nvideo_00,0,1.5,walk\n"),
        ("segments.csv", "video_00", "no times"),
    ),
    Bad(
        "label not in the mapping",
        "csv",
        write("mapping.txt", MAPPING.replace("walk", "walking")),
        ("segments.csv:", "'walk'", "'walking'"),
    ),
    # Assembly101
    Bad(
        "gap",
        "assembly101",
        replace_line("**/assembly_*_9000.txt", 2, "900\t910\tattach wheel\t"),
        ("9000.txt:2", "starts at 900"),
    ),
    Bad(
        "unknown action",
        "assembly101",
        replace_line("**/assembly_*_9000.txt", 1, "0\t5\tattach weel\t"),
        ("9000.txt:1", "'attach weel'", "'attach wheel'"),
    ),
    Bad(
        "spaces for tabs",
        "assembly101",
        replace_line("**/assembly_*_9000.txt", 1, "0 5 attach wheel"),
        ("9000.txt:1", "<TAB>"),
    ),
    Bad(
        "action id twice",
        "assembly101",
        replace_line("**/actions.csv", 3, "0,1,1,attach wheel,attach,wheel"),
        ("actions.csv:3", "action_id 0"),
    ),
    Bad("view in both lists", "assembly101", repeat_row, ("val.csv:", "listed already")),
    Bad("no coarse labels", "assembly101", remove("**/assembly_*_9000.txt"), ("9000.txt", "does not exist")),
    Bad(
        "end frame",
        "assembly101",
        replace_line("train.csv", 2, "0,s,v,assembly,1,last"),
        ("train.csv:2", "'last'"),
    ),
    Bad(
        "no view features",
        "assembly101",
        remove("TSM_features/*_9000/C10095_rgb/features.npy"),
        ("C10095_rgb", "does not exist"),
    ),
    # score files
    Bad("damaged scores", "tas_scores", truncate("svm/*_03.npz"), ("video_03.npz", "scores")),
    Bad(
        "label beyond the classes",
        "tas_scores",
        change_scores(lambda a: {**a, "label": a["label"] + 18}),
        ("video_03.npz", "18 classes"),
    ),
    Bad(
        "NaN score",
        "tas_scores",
        change_scores(lambda a: {**a, "scores": a["scores"] * np.float16(np.nan)}),
        ("video_03.npz", "nan"),
    ),
    Bad(
        "lengths of scores",
        "tas_scores",
        change_scores(lambda a: {**a, "label": a["label"][:5]}),
        ("video_03.npz", "(5,)"),
    ),
    Bad(
        "no split in the name",
        "tas_scores",
        lambda root: next(root.glob("svm/*_03.npz")).rename(root / "svm" / "video_03.npz"),
        ("video_03.npz", "split<k>"),
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.layout}: {bad.name}")
def test_message_names_the_culprit(bad: Bad, tmp_path: Path) -> None:
    root = write_lookalike(bad.layout, tmp_path / "data")
    bad.spoil(root)
    layout = (bad.opening or {}).get("layout", "auto")
    if bad.opening is not None:
        with pytest.raises((ValueError, OSError)) as caught:
            list(open_segmentation(root, **bad.opening))
        assert_names(str(caught.value), bad.fragments)
    reported = [str(problem) for problem in check_data(root, layout)]
    fitting = [line for line in reported if all(f.lower() in line.lower() for f in bad.fragments)]
    assert fitting, f"check_data reported {reported}, which does not name {bad.fragments}"


def assert_names(message: str, fragments: tuple[str, ...]) -> None:
    assert "\n" not in message
    for fragment in fragments:
        assert fragment.lower() in message.lower()


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ({"layout": "brekfast"}, ("'brekfast'", "'breakfast'")),
        ({"subset": "val"}, ("'val'", "train, test, all")),
        ({"split": 9, "subset": "test"}, ("no split 9", "[1, 2, 3, 4]")),
        ({"subset": "test"}, ("[1, 2, 3, 4]", "split=1")),
        ({"folds": 3, "split": 1, "subset": "test"}, ("[1, 2, 3, 4] of its own", "folds")),
        ({"sample_rate": 0}, ("sample_rate is 0",)),
        ({"features": "i3d"}, ("i3d", "no such folder")),
        ({"feature_dim": 64}, ("64", "16")),
    ],
    ids=str,
)
def test_arguments_are_refused(arguments: dict[str, Any], fragments: tuple[str, ...], tmp_path: Path) -> None:
    root = write_lookalike("breakfast", tmp_path / "data")
    with pytest.raises((ValueError, OSError)) as caught:
        list(open_segmentation(root, **arguments))
    assert_names(str(caught.value), fragments)


def test_wrong_folds_are_refused(tmp_path: Path) -> None:
    root = write_lookalike("mstcn", tmp_path / "data")
    with pytest.raises(ValueError, match=r"folds=5, split=1\.\.5"):
        open_segmentation(root, subset="test")
    with pytest.raises(ValueError, match=r"split=1\.\.5"):
        open_segmentation(root, split=6, subset="test")
    with pytest.raises(ValueError, match=r"split=1\.\.5"):
        open_segmentation(root, split=6, folds=5, subset="test")
    with pytest.raises(ValueError, match="number of videos, 10"):
        open_segmentation(root, split=1, folds=11, subset="test")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_segmentation(tmp_path / "nowhere")
