"""Lists and tables of other people: what is read, and what is reported with file and line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framecast.data.check import inspect_folder
from framecast.data.check_recognition import RecognitionReport, inspect_recognition
from framecast.data.recognition import open_recognition
from framecast.data.synthetic_recognition import WRITERS, write_recognition_lookalike

DATA = Path(os.environ.get("FRAMECAST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def picture(path: Path, shade: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(path)
    return path


def problems(root: Path, **options: str) -> list[str]:
    return [str(problem) for problem in inspect_recognition(root, **options).problems]


@pytest.mark.parametrize("layout", WRITERS)
def test_a_sound_folder_has_no_problem(layout: str, tmp_path: Path) -> None:
    root = write_recognition_lookalike(layout, tmp_path / "data", per_class=2)
    report = inspect_folder(root, "segments" if layout == "segments" else "auto")
    assert isinstance(report, RecognitionReport)
    assert [str(p) for p in report.problems] == []
    summary = report.summary()
    assert summary["items"] == len(open_recognition(root, layout=summary["layout"]))
    assert summary["train"] + summary["test"] == summary["items"]
    assert sum(sum(counts.values()) for counts in summary["class_items"].values()) == summary["items"]


def test_all_problems_of_class_folders_are_reported(tmp_path: Path) -> None:
    root = write_recognition_lookalike("folders", tmp_path / "data")
    (root / "train" / "disc" / "0.png").write_bytes(b"no image")
    (root / "train" / "empty").mkdir()
    picture(root / "val" / "dsic" / "1.png")
    shutil.copy(root / "train" / "ring" / "1.png", root / "val" / "ring" / "9.png")
    shutil.copy(root / "train" / "disc" / "2.png", root / "train" / "ring" / "8.png")
    (root / "train" / "square" / "clip.mp4").write_bytes(b"no video")
    (root / "train" / "square" / "notes.txt").write_text("left alone")
    found = problems(root)
    for fragments in (
        ("disc/0.png", "is not a JPEG"),
        ("train/empty", "the class is empty"),
        ("val/dsic", "train side does not have", "did you mean 'disc'"),
        ("ring/9.png", "same content as", "never train on what is tested"),
        ("ring/8.png", "same content as", "'ring' here, 'disc' there"),
        ("clip.mp4", "a video among images"),
    ):
        assert any(all(f in line for f in fragments) for line in found), (fragments, found)
    assert len(found) == 6


def test_lists_name_file_and_line(tmp_path: Path) -> None:
    root = write_recognition_lookalike("lists", tmp_path / "data", kind="image")
    with (root / "train.csv").open("a") as file:
        file.write("train/nowhere.png,0\ntrain/disc_0.png,9\ntrain/disc_1.png\ntrain/disc_2.png,0\n")
    count = len((root / "train.csv").read_text().splitlines())
    found = problems(root)
    for line, fragment in (
        (count - 3, "'train/nowhere.png' is not in"),
        (count - 2, "class '9' is not among the 3 classes"),
        (count - 1, "is not 'path label'"),
        (count, "is listed already in line"),
    ):
        assert any(f"train.csv:{line}: " in text and fragment in text for text in found), (fragment, found)
    assert len(found) == 4
    with pytest.raises(ValueError, match=rf"train.csv:{count - 3}: 'train/nowhere.png'"):
        open_recognition(root)


@pytest.mark.parametrize(
    "line",
    ["{0} {1}", "{0},{1}", "{0};{1}", "{0}\t{1}", "{0} 250 {1}", '"{0}",{1}', "videos/elsewhere/{0} {1}"],
)
def test_separators_and_paths_of_lists(line: str, tmp_path: Path) -> None:
    for i, name in enumerate(("a one.png", "b two.png", "c.png", "d.png")):
        picture(tmp_path / "images" / name, 50 * i)
    lists = tmp_path / "lists"
    lists.mkdir()
    text = [line.format(n, i % 2) for i, n in enumerate(("a one.png", "b two.png"))]
    (lists / "k400_train_list.txt").write_text("\n".join(text))
    (lists / "k400_val_list.txt").write_text(
        "\n".join(line.format(n, i) for i, n in enumerate(("c.png", "d.png")))
    )
    data = open_recognition(tmp_path, annotations="lists")
    assert [data.source(i) for i in range(4)] == [
        f"images/{n}" for n in ("a one.png", "b two.png", "c.png", "d.png")
    ]
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert data.classes == ("0", "1")
    assert len(open_recognition(tmp_path, annotations=lists, subset="test")) == 2


def test_numbers_are_the_classes_also_with_gaps(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"{i}.png", 50 * i)
    (tmp_path / "train.csv").write_text("0.png,0\n1.png,3\n")
    (tmp_path / "val.csv").write_text("2.png,3\n")
    assert open_recognition(tmp_path).labels.tolist() == [0, 3, 3]
    assert any("no item is of class '1', '2'" in text for text in problems(tmp_path))
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\ndog\n")
    assert open_recognition(tmp_path).classes == ("ant", "bee", "cow", "dog")


def test_kinetics_without_some_videos(tmp_path: Path) -> None:
    root = write_recognition_lookalike("kinetics", tmp_path / "data")
    videos = sorted((root / "train").iterdir())
    videos[0].unlink()
    report = inspect_recognition(root)
    assert report.ok
    assert report.summary()["listed_but_absent"] == 1
    for path in [*videos[1:], *(root / "val").iterdir()]:
        path.unlink()
    (line,) = [text for text in problems(root) if "nor is any other" in text]
    assert ".csv:2: " in line


def test_ssv2_templates_must_be_classes(tmp_path: Path) -> None:
    root = write_recognition_lookalike("ssv2", tmp_path / "data")
    path = root / "something-something-v2-train.json"
    rows = json.loads(path.read_text())
    rows[0]["template"] = "Eating [something]"
    rows[1]["id"] = "99999"
    path.write_text(json.dumps(rows))
    found = problems(root)
    assert any("'Eating something' is not among the 4 classes" in text for text in found)
    assert any("'99999' is not in" in text for text in found)
    (root / "something-something-v2-labels.json").write_text("{oops")
    assert any("is not valid JSON" in text for text in problems(root))


def test_segments_outside_their_video(tmp_path: Path) -> None:
    root = write_recognition_lookalike("segments", tmp_path / "data")
    with (root / "segments.csv").open("a") as file:
        file.write(
            "tape_0,10,30,grow\ntape_0,70,99,grow\ntape_1,500,600,grow\ntape_9,0,5,grow\ntape_1,9,3,grow\n"
        )
    found = problems(root, layout="segments")
    for fragment in (
        "ends at frame 99",
        "500 to 600 frames holds no frame",
        "no video 'tape_9'",
        "end 3 is not after",
    ):
        assert any(fragment in text and "segments.csv:" in text for text in found), (fragment, found)
    assert len(found) == 4  # the first one overlaps others, which clips may


def test_packed_arrays_are_checked(tmp_path: Path) -> None:
    root = write_recognition_lookalike("packed", tmp_path / "data")
    with np.load(root / "train.npz") as arrays:
        images, labels, names = (arrays[k] for k in ("images", "labels", "class_names"))
    with np.load(root / "val.npz") as arrays:
        leaked = np.concatenate([arrays["images"], images[:1]])
        np.savez(
            root / "val.npz", images=leaked, labels=np.append(arrays["labels"], labels[0]), class_names=names
        )
    (line,) = problems(root)
    assert f"image {len(leaked) - 1} has the same content as image 0 of" in line
    assert "val.npz" in line
    np.savez(root / "train.npz", images=images, labels=labels + 7, class_names=names)
    assert any("label 7 of image 0 is not one of 3 classes" in text for text in problems(root))
    np.savez(root / "train.npz", images=images.astype(float), labels=labels)
    assert any("expected uint8 (N, H, W, 3)" in text for text in problems(root))
    np.savez(root / "train.npz", images=images, labels=np.array([{}], dtype=object))
    assert any("is no packed set of images" in text for text in problems(root))  # no pickle is opened


def test_groups_come_from_the_table(tmp_path: Path) -> None:
    root = write_recognition_lookalike("grouped-folders", tmp_path / "data", kind="image")
    assert open_recognition(root).group_by == "source"
    assert open_recognition(root, group_by="label").group_by == "label"
    with pytest.raises(ValueError, match=r"labels.csv:1: has no column 'person'; its columns are file"):
        open_recognition(root, group_by="person")
    shares = [open_recognition(root, subset="test", split=k) for k in range(1, 6)]
    sources = [{data.source(i) for i in range(len(data))} for data in shares]
    assert len(set.union(*sources)) == sum(map(len, sources)) == len(open_recognition(root))
    with pytest.raises(ValueError, match="from 1 to 5"):
        open_recognition(root, subset="test", split=6)


def test_tables_choose_their_columns(tmp_path: Path) -> None:
    for i in range(6):
        picture(tmp_path / "images" / f"{i}.png", 40 * i)
    rows = "".join(f"{i}.png,kind {i % 2},{'ab'[i // 3]},{'train' if i < 4 else 'val'}\n" for i in range(6))
    (tmp_path / "labels.csv").write_text("file,class_name,letter,split\n" + rows)
    data = open_recognition(tmp_path)
    assert (data.layout, data.classes, data.held_back) == ("table", ("kind 0", "kind 1"), False)
    assert open_recognition(tmp_path, layout="table", label_by="letter").classes == ("a", "b")
    with pytest.raises(ValueError, match="has no column 'colour'"):
        open_recognition(tmp_path, label_by="colour")


def test_folders_without_a_layout_are_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="one folder per class"):
        open_recognition(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_recognition(tmp_path / "nowhere")
    for view in ("front", "side"):
        for word in ("up", "down"):
            picture(tmp_path / view / word / "0.png")
    with pytest.raises(ValueError, match=r"classes lie below each; open .*front"):
        open_recognition(tmp_path)
    picture(tmp_path / "one" / "train" / "0.png")
    picture(tmp_path / "one" / "bus" / "0.png", 200)
    assert open_recognition(tmp_path / "one").classes == ("bus", "train")  # a class, not a side


def test_real_duplicates_are_found() -> None:
    root = DATA / "gesture_images" / "hand"
    if not root.is_dir():
        pytest.skip(f"no gesture_images in {DATA}; set FRAMECAST_DATA to a folder that has it")
    assert any("land" in text and "further" in text for text in problems(root))


def test_a_missing_file_is_never_taken_from_the_other_side(tmp_path: Path) -> None:
    picture(tmp_path / "val" / "0.png")
    picture(tmp_path / "train" / "1.png", 200)
    (tmp_path / "train.csv").write_text("train/0.png,0\n1.png,1\n0.png,1\n")
    (tmp_path / "val.csv").write_text("0.png,1\n")
    found = problems(tmp_path)
    assert [text.split(": ")[0].rpartition(":")[2] for text in found if "train.csv" in text] == ["1", "3"]
