"""Labels are read as their files mean them, with the small irregularities of the released files."""

from __future__ import annotations

import csv
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framecast.data.annotations import (
    Problem,
    read_actions,
    read_bundle,
    read_coarse_labels,
    read_frame_labels,
    read_label_runs,
    read_mapping,
    read_segments_csv,
    write_segments_csv,
    write_segments_json,
)
from framecast.structures import Segments

DATA = Path(os.environ.get("FRAMECAST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CLASSES = ("background", "walk", "sit")


def text_file(folder: Path, content: str | bytes, name: str = "file.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def real(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"no {name} in {DATA}; set FRAMECAST_DATA to a folder that has it")
    return DATA / name


# --- MS-TCN ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "0 background\n1 walk\n2 sit\n",
        "2 sit\n0 background\n1 walk",
        "0\tbackground\r\n1 walk  \r\n2 sit\r\n\r\n",
    ],
    ids=["plain", "shuffled, no newline at the end", "tabs, Windows line ends, empty last line"],
)
def test_mapping_goes_by_id(content: str, tmp_path: Path) -> None:
    assert read_mapping(text_file(tmp_path, content)) == CLASSES


def test_mapping_names_may_hold_spaces_and_a_byte_order_mark_is_no_part_of_them(tmp_path: Path) -> None:
    assert read_mapping(text_file(tmp_path, "\ufeff0 attach wheel\n1 caf\u00e9\n")) == (
        "attach wheel",
        "caf\u00e9",
    )


@pytest.mark.parametrize("end", ["\n", "", "\r\n", "\n\n"], ids=repr)
def test_the_last_frame_counts_with_and_without_a_newline(end: str, tmp_path: Path) -> None:
    path = text_file(tmp_path, "walk\nwalk\nsit" + end)
    assert read_frame_labels(path, CLASSES).tolist() == [1, 1, 2]


@settings(max_examples=30, deadline=None)
@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_runs_expand_to_the_frames(labels: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = text_file(tmp_path_factory.mktemp("runs"), "".join(f"{CLASSES[i]}\n" for i in labels))
    runs = read_label_runs(path, CLASSES)
    assert runs.frame_labels.tolist() == labels
    assert runs.num_frames == len(labels)
    assert (np.diff(runs.labels) != 0).all()


@pytest.mark.parametrize(
    "content",
    [
        "a.txt\nb.txt\n",
        "a.txt\nb.txt",
        "#bundle\n./data/groundTruth/a.txt\n./data/groundTruth/b.txt\n",
        "a\r\nb\r\n",
        "C:\\data\\a.txt\nC:\\data\\b.txt\n",
    ],
    ids=["plain", "no newline at the end", "header and paths", "no suffix", "Windows paths"],
)
def test_bundles_of_several_releases(content: str, tmp_path: Path) -> None:
    assert read_bundle(text_file(tmp_path, content)) == ["a", "b"]


def test_videos_in_folders_keep_their_folder(tmp_path: Path) -> None:
    assert read_bundle(text_file(tmp_path, "data/groundTruth/P03/a.txt\n")) == ["P03/a"]


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    problems: list[Problem] = []
    path = text_file(tmp_path, "wakl\nwalk\nstand\n\nwakl\n")
    runs = read_label_runs(path, CLASSES, problems.append)
    assert [p.line for p in problems] == [1, 3, 4]
    assert "(2 lines)" in problems[0].message
    assert runs.frame_labels.tolist() == [-100, 1, -100, -100, -100]
    assert str(problems[1]) == f"{path}:3: class 'stand' is not in the mapping"


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    for read in (read_mapping, read_bundle, read_segments_csv):
        with pytest.raises(FileNotFoundError, match=r"nowhere.txt: does not exist"):
            read(tmp_path / "nowhere.txt")


def test_breakfast_as_released(tmp_path: Path) -> None:
    """Counts stated with the data: 48 classes, every video tested once, splits of these sizes."""
    root = real("breakfast")
    classes = read_mapping(root / "mapping.txt")
    assert (len(classes), classes[0]) == (48, "SIL")
    tested = [read_bundle(root / "splits" / f"test.split{k}.bundle") for k in range(1, 5)]
    assert [len(videos) for videos in tested] == [252, 451, 433, 576]
    assert len({video for videos in tested for video in videos}) == 1712
    with tarfile.open(root / "groundTruth.tar.xz", "r:xz") as archive:
        member = next(m for m in archive if m.name.endswith(".txt"))
        archive.extract(member, tmp_path, filter="data")
    runs = read_label_runs(tmp_path / member.name, classes)
    assert runs.labels[0] == 0  # SIL opens every video
    assert 130 <= runs.num_frames <= 9741


def test_salads_as_released(tmp_path: Path) -> None:
    root = real("50salads")
    classes = read_mapping(root / "mapping.txt")
    with tarfile.open(root / "groundTruth.tar.xz", "r:xz") as archive:
        archive.extractall(tmp_path, filter="data")
    runs = [read_label_runs(path, classes) for path in sorted(tmp_path.rglob("*.txt"))]
    assert (len(runs), sum(r.num_frames for r in runs)) == (50, 577_595)
    assert all((classes[r.labels[0]], classes[r.labels[-1]]) == ("action_start", "action_end") for r in runs)
    assert {int(i) for r in runs for i in r.labels} == set(range(19))


# --- CSV ---------------------------------------------------------------------------------------------------


def test_gaps_are_background(tmp_path: Path) -> None:
    path = text_file(tmp_path, "video,start,end,label\nv,6,8,sit\nv,2,4,walk\n")
    table = read_segments_csv(path)
    assert table.labels == ("sit", "walk")
    assert table.frame_labels("v", CLASSES, num_frames=10).tolist() == [0, 0, 1, 1, 0, 0, 2, 2, 0, 0]
    assert table.frame_labels("v", CLASSES).tolist() == [0, 0, 1, 1, 0, 0, 2, 2]
    unlabelled = table.frame_labels("v", CLASSES, background=None)
    assert unlabelled.tolist() == [-100, -100, 1, 1, -100, -100, 2, 2]


def test_seconds_need_the_times_of_the_frames(tmp_path: Path) -> None:
    path = text_file(tmp_path, "label,video,end_s,start_s,by\nwalk,v,1.0,0.5,me\n")
    table = read_segments_csv(path)
    times = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    assert table.unit == "seconds"
    assert table.frame_labels("v", CLASSES, times=times).tolist() == [0, 0, 1, 1, 0]
    with pytest.raises(ValueError, match="'v' are in seconds"):
        table.frame_labels("v", CLASSES)


def test_seconds_count_where_a_table_has_both_and_times_are_known(tmp_path: Path) -> None:
    """The frames of a table that `predict` wrote are those of its own time step."""
    rows = "v,0,1,0.0,0.333333,walk,\nv,1,3,0.333333,0.666667,sit,\n"
    table = read_segments_csv(text_file(tmp_path, "video,start,end,start_s,end_s,label,confidence\n" + rows))
    assert table.frame_labels("v", CLASSES).tolist() == [1, 2, 2]
    sixths = np.arange(6) / 6
    assert table.frame_labels("v", CLASSES, times=sixths).tolist() == [1, 1, 2, 2, 0, 0]


def test_labels_with_commas_and_quotes(tmp_path: Path) -> None:
    path = text_file(tmp_path, 'Video, Start ,End,Label\nv,0,2,"sit, then ""rise"""\n')
    assert read_segments_csv(path).labels == ('sit, then "rise"',)


def test_all_problems_of_a_table_are_reported_at_once(tmp_path: Path) -> None:
    problems: list[Problem] = []
    lines = ["video,start,end,label", "v,0,5,walk", "v,x,9,walk", "v,4,9,sit", "", "v,9,9,sit", "v,20"]
    table = read_segments_csv(text_file(tmp_path, "\n".join(lines)), problems.append)
    assert [p.line for p in problems] == [3, 6, 7, 4]
    assert [row.label for row in table.rows["v"]] == ["walk", "sit"]


@st.composite
def segment_lists(draw) -> list[Segments]:
    names = draw(
        st.lists(st.text("abc,\"' \u00e9", min_size=1).map(str.strip), min_size=2, max_size=4, unique=True)
    )
    classes = tuple(name for name in names if name) or ("only",)
    found = []
    for i in range(draw(st.integers(1, 3))):
        labels = np.array(draw(st.lists(st.integers(0, len(classes) - 1), min_size=1, max_size=30)))
        times = np.arange(len(labels)) / 25 if draw(st.booleans()) else None
        probs = np.full((len(classes), len(labels)), 0.5) if draw(st.booleans()) else None
        found.append(Segments.from_frames(labels, classes, video=f"v{i}", times=times, frame_probs=probs))
    return found


@settings(max_examples=50, deadline=None)
@given(segments=segment_lists())
def test_written_segments_are_read_back(
    segments: list[Segments], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("segments")
    table = read_segments_csv(write_segments_csv(segments, folder / "out.csv"))
    for one in segments:
        assert table.frame_labels(one.video, one.classes).tolist() == one.frame_labels.tolist()
    written = json.loads(write_segments_json(segments, folder / "out.json").read_text())
    assert [video["num_frames"] for video in written["videos"]] == [one.num_frames for one in segments]
    assert [s["label"] for v in written["videos"] for s in v["segments"]] == [
        n for one in segments for n in one.names
    ]


def test_the_columns_of_a_written_table(tmp_path: Path) -> None:
    labels, times = np.array([0, 0, 1, -100]), np.array([0.0, 0.04, 0.08, 0.12])
    segments = Segments.from_frames(
        labels, CLASSES, video="v", times=times, frame_probs=np.full((3, 4), 0.25)
    )
    path = write_segments_csv([segments], tmp_path / "out.csv")
    rows = list(csv.DictReader(path.open()))
    assert list(rows[0]) == ["video", "start", "end", "start_s", "end_s", "label", "confidence"]
    assert list(rows[0].values()) == ["v", "0", "2", "0.0", "0.08", "background", "0.25"]
    assert [row["label"] for row in rows] == ["background", "walk"]  # what is not labelled is a gap
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]  # no temporary file is left


def test_nothing_is_left_of_a_table_that_cannot_be_written(tmp_path: Path) -> None:
    path = text_file(tmp_path, "as it was", "out.csv")

    def broken():
        yield Segments.from_frames(np.array([0]), CLASSES, video="v")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_segments_csv(broken(), path)
    assert path.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_the_table_and_the_frames_of_a_real_set_agree() -> None:
    """segments.csv and groundTruth/ of the same recordings say the same; one line overlaps by a frame."""
    root = real("fir_actions")
    problems: list[Problem] = []
    classes, table = (
        read_mapping(root / "mapping.txt"),
        read_segments_csv(root / "segments.csv", problems.append),
    )
    assert [problem.line for problem in problems] == [19]
    assert "'sit_down' from 318 to 352 overlaps 'walk' of line 18" in problems[0].message
    assert sum(len(rows) for rows in table.rows.values()) == 210
    for video in table.rows:
        frames = read_frame_labels(root / "groundTruth" / f"{video}.txt", classes)
        np.testing.assert_array_equal(table.frame_labels(video, classes, num_frames=len(frames)), frames)


# --- Assembly101 -------------------------------------------------------------------------------------------


def test_coarse_labels_end_in_a_tab(tmp_path: Path) -> None:
    path = text_file(tmp_path, "10\t20\tattach wheel\t\n20\t25\tinspect toy\t\n")
    rows = read_coarse_labels(path, ("attach wheel", "inspect toy"))
    assert [(row.start, row.end, row.label) for row in rows] == [
        (10, 20, "attach wheel"),
        (20, 25, "inspect toy"),
    ]


def test_the_real_list_of_actions() -> None:
    actions = read_actions(real("assembly101") / "actions.csv")
    assert len(actions) == 202
    assert actions[:2] == ("inspect toy", "attach cabin")
    assert len({name.split()[0] for name in actions}) <= 11  # verbs, some of several words
