"""Items from lists and tables: Kinetics and Something-Something style lists, segments, packed arrays.

Every reader answers a `Listing` and reports what is wrong with file and line.
"""

from __future__ import annotations

import csv
import zipfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from framecast.data.problems import Problem, Report, read_lines, refuse
from framecast.data.recognition_layouts import (
    FILE_COLUMNS,
    GROUP_COLUMNS,
    LABEL_COLUMNS,
    TEST_NAMES,
    TRAIN_NAMES,
    Listing,
    RecognitionItem,
    find_column,
    is_media,
    one_kind,
    read_json,
    read_rows,
    side_files,
)
from framecast.data.tables import read_segments_csv
from framecast.data.video import SUFFIXES
from framecast.registry import did_you_mean

MEDIA_FOLDERS = ("videos", "images", "clips", "20bn-something-something-v2")
SIDE_NAMES = {"train": TRAIN_NAMES, "test": TEST_NAMES}


class _Found:
    """Items with class names, before the classes are known."""

    def __init__(self, root: Path, report: Report) -> None:
        self.root, self.report = root, report
        self.rows: list[tuple[str, RecognitionItem]] = []
        self.labels: set[str] = set()  # also of files that are not there: a class keeps its number
        self._by_stem: defaultdict[str, list[Path]] | None = None

    def add(self, name: str, label: str, side: str, source: Path, line: int, group: str = "") -> None:
        """One line of a list; a file that is not there is a problem."""
        self.labels.add(label)
        path = self.find(name, source.parent, side)
        if not label:
            self.report(Problem(source, line, f"{name!r} has no label"))
        elif path is None:
            self.report(Problem(source, line, f"{name!r} is not in {self.root} nor beside the list"))
        else:
            item = RecognitionItem(path, 0, group, side, line=line, listed_in=source)
            self.rows.append((label, item))

    def find(self, name: str, beside: Path, side: str = "") -> Path | None:
        """A file by the path in a list, taken below the root, its usual folders or the list.

        Folders at the start of the path may be missing here (lists hold other machines' paths), names
        without a suffix are looked for everywhere. Folders named after the other side are never tried.
        """
        given, own = Path(name), SIDE_NAMES.get(side, (*TRAIN_NAMES, *TEST_NAMES))
        bases = (self.root, beside, *(self.root / folder for folder in (*MEDIA_FOLDERS, *own)))
        for first in range(len(given.parts)):
            for base in bases:
                if (candidate := base.joinpath(*given.parts[first:])).is_file():
                    return candidate
        if self._by_stem is None:
            self._by_stem = defaultdict(list)
            for path in sorted(self.root.rglob("*")):
                if is_media(path):
                    self._by_stem[path.stem].append(path)
        places = self._by_stem.get(name, [])
        if len(places) > 1:
            places = [path for path in places if set(own) & set(path.parts)] if side else places
        return places[0] if len(places) == 1 else None

    def listing(self, layout: str, classes: tuple[str, ...] | None = None) -> Listing:
        """With numbered classes: those given, or all labels that occur, numbers by value."""
        labels = self.labels - {""}
        if classes is None:
            classes = tuple(sorted(labels))
            if labels and all(label.isdecimal() for label in labels):
                numbers = sorted(map(int, labels))  # from 0 on: the number is the class, also with gaps
                classes = tuple(map(str, range(numbers[-1] + 1) if numbers[0] == 0 else numbers))
        index = {name: i for i, name in enumerate(classes)}
        listing = Listing(self.root, layout, classes)
        for label, item in self.rows:
            place = int(label) if label not in index and label.isdecimal() else index.get(label, len(classes))
            if place >= len(classes):
                near = did_you_mean(label, classes)
                message = f"class {label!r} is not among the {len(classes)} classes{near}"
                self.report(Problem(item.listed_in or self.root, item.line, message))
            else:
                listing.items.append(replace(item, label=place))
        return one_kind(listing, self.report)


def list_files(root: Path, annotations: Path | None, report: Report) -> dict[str, Path]:
    """The list of each side: {"train": …, "test": …}, or {"": file} where one file holds all."""
    if annotations is not None and annotations.is_file():
        return {"": annotations}
    folder = annotations or root
    found = side_files(folder, (".csv", ".txt"))
    if not found:
        report(Problem(folder, None, "holds no train.csv and val.csv (or .txt)"))
    return found


# --- Lists -------------------------------------------------------------------------------------------------


def read_lists(root: Path, annotations: Path | None = None, report: Report = refuse) -> Listing:
    """`path label` a line, separated by white space, comma or semicolon; class names from classes.txt.

    Labels are class numbers or names. Paths are relative to the root or to the list.
    """
    found = _Found(root, report)
    files = list_files(root, annotations, report)
    for side, path in files.items():
        for line, text in enumerate(read_lines(path, report), start=1):
            if not text.strip() or (
                line == 1 and text.replace(" ", "").lower() in ("path,label", "file,label")
            ):
                continue
            name, label = _split_line(text)
            if not (name and label):
                report(Problem(path, line, f"{text!r} is not 'path label' or 'path,label'"))
            else:
                found.add(name, label, side, path, line)
    return found.listing("lists", _class_names(root, files, report))


def _split_line(text: str) -> tuple[str, str]:
    """Path and label; paths may hold spaces, some lists have the number of frames between the two."""
    for separator in (",", ";", "\t"):
        if separator in text:
            cells = next(csv.reader([text], delimiter=separator))
            return cells[0].strip(), cells[-1].strip() if len(cells) > 1 else ""
    name, _, label = text.strip().rpartition(" ")
    head, _, frames = name.rpartition(" ")
    return (head if head and frames.isdecimal() and is_media(Path(head)) else name).strip(), label


def _class_names(root: Path, files: dict[str, Path], report: Report) -> tuple[str, ...] | None:
    """Lines of classes.txt (also labels.txt, label_map.txt) beside the lists: line i names class i."""
    folders = dict.fromkeys([*(path.parent for path in files.values()), root])
    for path in (f / n for f in folders for n in ("classes.txt", "labels.txt", "label_map.txt")):
        if path.is_file():
            return tuple(line for line in read_lines(path, report) if line)
    return None


def read_kinetics(root: Path, annotations: Path | None = None, report: Report = refuse) -> Listing:
    """`label,youtube_id,time_start,time_end,split`; files are <youtube_id>.* or <youtube_id>_<start>_<end>.*.

    Videos that are no longer to be had are left out by everybody: without any file at all it is a problem.
    """
    found = _Found(root, report)
    missing: list[tuple[Path, int, str]] = []
    for side, path in list_files(root, annotations, report).items():
        for line, row in read_rows(path, report):
            if not row.get("label"):
                report(Problem(path, line, "has no label; the test list of Kinetics has none, use val.csv"))
                continue
            found.labels.add(row["label"])
            own_side = side or _side_of(row.get("split", ""))
            names = [row["youtube_id"]]
            if row.get("time_start", "").isdecimal() and row.get("time_end", "").isdecimal():
                names.insert(0, f"{names[0]}_{int(row['time_start']):06d}_{int(row['time_end']):06d}")
            places = [p for name in names if (p := found.find(name, path.parent, own_side)) is not None]
            if places:
                found.rows.append(
                    (row["label"], RecognitionItem(places[0], 0, side=own_side, line=line, listed_in=path))
                )
            else:
                missing.append((path, line, names[0]))
    if missing and not found.rows:
        path, line, name = missing[0]
        report(Problem(path, line, f"{name!r} is not in {root}, nor is any other video of the list"))
    listing = found.listing("kinetics")
    listing.missing = len(missing)
    return listing


def _side_of(word: str) -> str:
    return "train" if word in TRAIN_NAMES else "test" if word in TEST_NAMES else ""


def read_ssv2(root: Path, annotations: Path | None = None, report: Report = refuse) -> Listing:
    """Something-Something: JSON lists of {id, template}, classes numbered in the labels file."""
    folder = annotations if annotations is not None and annotations.is_dir() else root
    if annotations is not None and annotations.is_file():
        folder = annotations.parent
    labels = next(iter(sorted(folder.glob("*labels.json"))), folder / "something-something-v2-labels.json")
    table = read_json(labels, report)
    numbers = {str(k): int(v) for k, v in table.items()} if isinstance(table, dict) else {}
    found = _Found(root, report)
    for side, path in side_files(folder, (".json",)).items():
        rows = read_json(path, report)
        for line, row in enumerate(rows if isinstance(rows, list) else [], start=1):
            template = str(row.get("template", "")).replace("[", "").replace("]", "")
            if not template:
                report(Problem(path, line, f"entry {line} has no template (the test list has no labels)"))
            else:
                found.add(str(row.get("id", "")), template, side, path, line)
    return found.listing("ssv2", tuple(sorted(numbers, key=lambda name: numbers[name])))


def read_labels_table(
    root: Path,
    annotations: Path | None = None,
    report: Report = refuse,
    *,
    label_by: str | None = None,
    group_by: str | None = None,
) -> Listing:
    """labels.csv with a column of files and one of labels, perhaps a side (split) and a group."""
    path = annotations if annotations is not None and annotations.is_file() else root / "labels.csv"
    rows = read_rows(path, report)
    file_column = find_column(rows, FILE_COLUMNS)
    label_column = find_column(rows, (label_by,) if label_by else LABEL_COLUMNS)
    if rows and not (file_column and label_column):
        wanted = f"{label_by or 'label'}" if file_column else "file"
        report(Problem(path, 1, f"has no column {wanted!r}; its columns are {', '.join(rows[0][1])}"))
        return Listing(root, "table")
    names = (group_by,) if group_by else tuple(n for n in GROUP_COLUMNS if n != label_column)
    group_column = find_column(rows, names)
    if group_by and not group_column:
        report(Problem(path, 1, f"has no column {group_by!r}; its columns are {', '.join(rows[0][1])}"))
    side_column = find_column(rows, ("split", "side", "subset"))
    found = _Found(root, report)
    for line, row in rows:
        group = row[group_column] if group_column else ""
        side = _side_of(row[side_column].lower()) if side_column else ""
        found.add(row[file_column], row[label_column], side, path, line, group=group)
    listing = found.listing("table")
    listing.group_by = group_column
    return listing


# --- Clips of long videos, packed arrays --------------------------------------------------------------------


def read_segments(root: Path, annotations: Path | None = None, report: Report = refuse) -> Listing:
    """Clips cut by segments.csv from the files in videos/; all clips of a video stay on one side.

    Segments that overlap are kept: both are clips, and what they share is in both. train.csv and val.csv
    with the same columns give the sides.
    """
    files = {"": root / "segments.csv"} if annotations is None else list_files(root, annotations, report)
    if not any(path.is_file() for path in files.values()):
        files = list_files(root, annotations, report) or files
    tables = {side: read_segments_csv(path, _but_overlaps(report)) for side, path in files.items()}
    classes = tuple(sorted({label for table in tables.values() for label in table.labels}))
    listing = Listing(root, "segments", classes, kind="video", group_by="video")
    found = _Found(root, report)
    for side, table in tables.items():
        for video, rows in sorted(table.rows.items()):
            place = found.find(video, table.path.parent, side)
            if place is None or place.suffix.lower() not in SUFFIXES:
                message = f"no video {video!r} in {root / 'videos'} or {root}"
                report(Problem(table.path, rows[0].line, message))
                continue
            listing.items += [
                RecognitionItem(
                    place,
                    classes.index(row.label),
                    video,
                    side,
                    start=(row.seconds or (row.start, row.end))[0],
                    end=(row.seconds or (row.start, row.end))[1],
                    unit="seconds" if row.seconds else table.unit,
                    line=row.line,
                    listed_in=table.path,
                )
                for row in rows
            ]
    return listing


def _but_overlaps(report: Report) -> Report:
    return lambda problem: None if " overlaps " in problem.message else report(problem)


def read_packed(root: Path, annotations: Path | None = None, report: Report = refuse) -> Listing:
    """train.npz and val.npz (or one file): images (N, H, W, 3) uint8, labels (N,), class_names."""
    files = {"": annotations} if annotations is not None else {}
    for side, names in (("train", TRAIN_NAMES), ("test", TEST_NAMES)):
        for path in (root / f"{name}.npz" for name in names):
            if annotations is None and path.is_file():
                files.setdefault(side, path)
    listing = Listing(root, "packed")
    for side, path in files.items():
        try:
            shape, labels, names = _packed_header(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            report(Problem(path, None, f"is no packed set of images ({_reason(error)})"))
            continue
        names = names or tuple(map(str, range(int(labels.max(initial=-1)) + 1)))
        listing.classes = listing.classes or names
        if names != listing.classes:
            report(Problem(path, None, f"has other class_names than {next(iter(files.values())).name}"))
        elif len(labels) != shape[0] or len(labels) == 0:
            report(Problem(path, None, f"has {shape[0]} images but {len(labels)} labels"))
        elif labels.min() < 0 or labels.max() >= len(names):
            at = int(np.argmax((labels < 0) | (labels >= len(names))))
            report(
                Problem(path, None, f"label {labels[at]} of image {at} is not one of {len(names)} classes")
            )
        else:
            listing.items += [
                RecognitionItem(path, int(label), side=side, row=i) for i, label in enumerate(labels)
            ]
    return listing


def _packed_header(path: Path) -> tuple[tuple[int, ...], np.ndarray, tuple[str, ...]]:
    with np.load(path, allow_pickle=False) as arrays:
        images = arrays["images"]
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(f"images is {images.dtype} {images.shape}, expected uint8 (N, H, W, 3)")
        labels = np.asarray(arrays["labels"])
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(f"labels is {labels.dtype} {labels.shape}, expected whole numbers (N,)")
        names = tuple(map(str, arrays["class_names"])) if "class_names" in arrays else ()
    return images.shape, labels.astype(np.int64), names


def _reason(error: Exception) -> str:
    return f"array {error} is missing" if isinstance(error, KeyError) else str(error)
