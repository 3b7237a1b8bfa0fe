"""How folders of labelled images and clips look on disk, and what is found in them.

| layout      | what lies there                                                                            |
|-------------|--------------------------------------------------------------------------------------------|
| folders     | `<class>/*.jpg`, `<class>/*.mp4`, or the same below `train/` and `val/` or `test/`           |
| lists       | `train.csv` and `val.csv` (or `.txt`, `_list` in the name): `path label` or `path,label`     |
| kinetics    | the same, with the header `label,youtube_id,time_start,time_end,split`                       |
| ssv2        | `something-something-v2-{train,validation,labels}.json` and `<id>.webm`                      |
| table       | `labels.csv` with the columns file and label                                               |
| segments    | `segments.csv` (video,start,end,label) and `videos/`: clips cut from long videos             |
| packed      | `train.npz` and `val.npz` with images (N,H,W,3) uint8, labels (N,), class_names              |

A `labels.csv` beside class folders may add a column `source`, `subject` or the like: whole groups then stay
on one side when a part is held back.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from framecast.data.images import IMAGE_SUFFIXES
from framecast.data.problems import Problem, Report, read_text, refuse
from framecast.data.video import SUFFIXES
from framecast.registry import did_you_mean

Kind = Literal["image", "video"]
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("val", "test", "validation", "valid")  # the first one that is there and has labels
GROUP_COLUMNS = ("source", "group", "subject", "person", "recording", "video_id")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "action")
FILE_COLUMNS = ("file", "path", "filename", "image", "video", "name")
SEGMENT_COLUMNS = ({"start", "end"}, {"start_s", "end_s"})


@dataclass(frozen=True, slots=True)
class RecognitionItem:
    """One image or clip."""

    path: Path
    label: int
    group: str = ""  # what must stay on one side, "" = the item alone
    side: str = ""  # "train" or "test", "" = the data has no sides
    start: float | None = None  # a clip cut from a longer video: [start, end)
    end: float | None = None
    unit: Literal["frames", "seconds"] = "frames"
    row: int | None = None  # in a packed file
    line: int | None = None  # of `listed_in`
    listed_in: Path | None = None


@dataclass
class Listing:
    """What a layout's reader found: classes, and items of all sides."""

    root: Path
    layout: str
    classes: tuple[str, ...] = ()
    items: list[RecognitionItem] = field(default_factory=list)
    kind: Kind = "image"
    group_by: str = ""  # column whose groups stay on one side, "" = none
    missing: int = 0  # listed videos that nobody has any more


def detect_layout(root: Path, annotations: Path | None = None) -> str:
    """The layout of a folder by what lies in it; FileNotFoundError says what could lie there."""
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist; give the folder that holds the images or videos")
    if not root.is_dir():
        raise ValueError(f"{root} is a file; give the folder that holds it (and annotations=... for a list)")
    base = annotations if annotations is not None else root
    folder = base if base.is_dir() else base.parent
    if any(folder.glob("something-something-v2-*.json")) or any(folder.glob("*-labels.json")):
        return "ssv2"
    if base.is_file():
        return _layout_of_file(base)
    if any((root / f"{name}.npz").is_file() for name in (*TRAIN_NAMES, *TEST_NAMES)):
        return "packed"
    lists = side_files(folder, (".csv", ".txt"))
    if lists:
        return _layout_of_file(next(iter(lists.values())))
    if (folder / "segments.csv").is_file():
        return "segments"
    folders = class_folders(root)
    if len(folders) < 2 and (folder / "labels.csv").is_file():
        return "table"
    if any(is_media(path) for class_folder in folders for path in class_folder.rglob("*")):
        return "folders"
    raise FileNotFoundError(
        f"{root} has no layout of labelled images or clips that we know; it needs one folder per class, "
        "train.csv and val.csv, segments.csv, labels.csv or train.npz"
    )


def _layout_of_file(path: Path) -> str:
    """What kind of list or table a file is, by its first line."""
    if path.suffix == ".npz":
        return "packed"
    if path.suffix == ".json":
        return "ssv2"
    first = next(iter(read_text(path).splitlines()), "")
    header = {cell.strip().lower() for cell in first.split(",")}
    if "youtube_id" in header:
        return "kinetics"
    if "video" in header and any(columns <= header for columns in SEGMENT_COLUMNS):
        return "segments"
    return "table" if header & set(FILE_COLUMNS) and header & set(LABEL_COLUMNS) else "lists"


def side_files(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """{"train": file, "test": file}: files whose name says which side they list."""
    found: dict[str, Path] = {}
    for side, names in (("train", TRAIN_NAMES), ("test", TEST_NAMES)):
        for name in names:
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                words = path.stem.lower().replace("-", "_").split("_")
                if path.suffix in suffixes and name in words and path.is_file():
                    found.setdefault(side, path)
    return found


# --- Folders -----------------------------------------------------------------------------------------------


def side_folders(root: Path) -> dict[str, Path]:
    """{"train": folder, "test": folder}, whichever are there; a class called "train" is no side."""
    found: dict[str, Path] = {}
    for side, names in (("train", TRAIN_NAMES), ("test", TEST_NAMES)):
        for folder in (root / name for name in names):
            if folder.is_dir() and _subfolders(folder) and not any(is_media(p) for p in folder.iterdir()):
                found.setdefault(side, folder)
    return found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))


def class_folders(root: Path) -> list[Path]:
    """Folders that are named after classes: those of the train side, or those below the root."""
    return _subfolders(next(iter(side_folders(root).values()), root))


def read_folders(root: Path, report: Report = refuse, group_by: str | None = None) -> Listing:
    """One folder per class, files at any depth below it; class order is alphabetical."""
    sides: dict[str, Path] = side_folders(root) or {"": root}
    listing = Listing(root, "folders", tuple(p.name for p in class_folders(root)))
    _refuse_folders_of_folders(root, listing.classes, report)
    index = {name: i for i, name in enumerate(listing.classes)}
    for side, base in sides.items():
        for folder in _subfolders(base):
            if folder.name not in index:
                near = did_you_mean(folder.name, index)
                report(Problem(folder, None, f"is a class that the train side does not have{near}"))
                continue
            files = [p for p in sorted(folder.rglob("*")) if is_media(p)]
            if not files:
                report(Problem(folder, None, "holds no image or video: the class is empty on this side"))
            listing.items += [RecognitionItem(p, index[folder.name], side=side) for p in files]
    groups, listing.group_by = read_groups(root, group_by, report)
    if groups:
        listing.items = [replace(item, group=groups.get(item.path, "")) for item in listing.items]
    return one_kind(listing, report)


def _refuse_folders_of_folders(root: Path, classes: tuple[str, ...], report: Report) -> None:
    """`<view>/<class>/*.jpg`: the classes are one level further down."""
    folders = [root / name for name in classes if (root / name).is_dir()]
    below = [{p.name for p in folder.iterdir() if p.is_dir()} for folder in folders]
    direct = any(is_media(p) for folder in folders for p in folder.iterdir())
    if len(below) > 1 and not direct and len(set.intersection(*below)) > 1:
        message = (
            f"its folders {', '.join(classes)} hold the same folders: classes lie below each; "
            f"open {root / classes[0]}"
        )
        report(Problem(root, None, message))


def is_media(path: Path) -> bool:
    """Whether a name is that of an image or video; hidden files are left alone."""
    return path.suffix.lower() in (*IMAGE_SUFFIXES, *SUFFIXES) and not path.name.startswith(".")


def read_groups(root: Path, group_by: str | None, report: Report) -> tuple[dict[Path, str], str]:
    """Group of every file from the labels.csv beside the folders, and the column it stands in."""
    path = root / "labels.csv"
    if not path.is_file():
        if group_by:
            report(Problem(path, None, f"does not exist; it is to hold the columns file and {group_by}"))
        return {}, ""
    rows = read_rows(path, report)
    file_column = find_column(rows, FILE_COLUMNS)
    column = find_column(rows, (group_by,) if group_by else GROUP_COLUMNS)
    if file_column and column:
        return {root / row[file_column]: row[column] for _, row in rows if row[column]}, column
    if group_by:
        have = ", ".join(rows[0][1]) if rows else "none"
        report(
            Problem(path, 1, f"has no column {group_by if file_column else 'file'!r}; its columns are {have}")
        )
    return {}, ""


def one_kind(listing: Listing, report: Report) -> Listing:
    """Images or videos, whichever are more; the others are problems."""
    images = [item.path.suffix.lower() in IMAGE_SUFFIXES for item in listing.items]
    listing.kind = "image" if sum(images) * 2 > len(images) else "video"
    if 0 < sum(images) < len(images):
        wanted = listing.kind == "image"
        for item, is_image in zip(listing.items, images, strict=True):
            if is_image != wanted:
                other = "an image among videos" if is_image else "a video among images"
                report(Problem(item.path, None, f"is {other}; keep them in folders of their own"))
        listing.items = [item for item, own in zip(listing.items, images, strict=True) if own == wanted]
    return listing


# --- Rows of a table ---------------------------------------------------------------------------------------


def read_rows(path: Path, report: Report = refuse) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells by lower-case column name of a CSV file with a header."""
    reader = csv.reader(io.StringIO(read_text(path, report), newline=""))
    rows: list[tuple[int, dict[str, str]]] = []
    header: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip().lower() for cell in cells]
            elif len(cells) < len(header):
                report(Problem(path, reader.line_num, f"has {len(cells)} of {len(header)} columns"))
            else:
                rows.append((reader.line_num, {n: c.strip() for n, c in zip(header, cells, strict=False)}))
    except csv.Error as error:
        report(Problem(path, reader.line_num, f"is not valid CSV ({error})"))
    if not rows:
        report(Problem(path, None, "holds no rows"))
    return rows


def find_column(rows: list[tuple[int, dict[str, str]]], names: Iterable[str | None]) -> str:
    """The first of these columns that the table has, "" where it has none."""
    have = rows[0][1] if rows else {}
    return next((name.lower() for name in names if name and name.lower() in have), "")


def read_json(path: Path, report: Report = refuse) -> object:
    """Content of a JSON file, None after a reported problem."""
    text = read_text(path, report)
    try:
        return json.loads(text) if text else None
    except json.JSONDecodeError as error:
        report(Problem(path, error.lineno, f"is not valid JSON ({error.msg})"))
        return None
