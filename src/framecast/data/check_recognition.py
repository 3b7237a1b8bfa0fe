"""Finds every problem of a folder of labelled images or clips in one pass.

The readers that training uses are run with a list instead of an exception at their end; then every image is
decoded, every video's packets are read, and what lies on both sides is found by its content.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.images import read_image
from framecast.data.problems import AnnotationError, Problem
from framecast.data.recognition import RecognitionData, hold_back, read_listing
from framecast.data.recognition_layouts import Listing, RecognitionItem
from framecast.data.video import probe


@dataclass
class RecognitionReport:
    """What a folder of labelled images or clips holds and what is wrong with it."""

    root: Path
    layout: str = ""
    problems: list[Problem] = field(default_factory=list)
    listing: Listing | None = None
    held_back: bool = False  # the sides are not of the data

    figures = ("items", "train", "test", "classes")  # of the summary, for one line

    @property
    def ok(self) -> bool:
        return not self.problems

    def summary(self) -> dict[str, Any]:
        """Figures for a person or for JSON."""
        listing = self.listing or Listing(self.root, self.layout)
        sides = Counter(item.side for item in listing.items)
        per_class: dict[str, Counter[str]] = {name: Counter() for name in listing.classes}
        for item in listing.items:
            per_class[listing.classes[item.label]][item.side] += 1
        return {
            "root": str(self.root),
            "layout": self.layout,
            "kind": listing.kind,
            "problems": len(self.problems),
            "items": len(listing.items),
            "train": sides["train"],
            "test": sides["test"],
            "held_back": self.held_back,
            "classes": len(listing.classes),
            "class_items": {name: dict(counts) for name, counts in per_class.items()},
            "group_by": listing.group_by,
            "groups": len({item.group for item in listing.items if item.group}),
            "listed_but_absent": listing.missing,
        }


def inspect_recognition(
    root: str | Path,
    layout: str = "auto",
    *,
    group_by: str | None = None,
    label_by: str | None = None,
    annotations: str | Path | None = None,
) -> RecognitionReport:
    """Read every list, image and video of a folder and report what is there and what is wrong.

    Where the data has no test side, the sides are those of `open_recognition` with its defaults.
    Nothing but a bug raises; a folder that cannot be opened is a problem too.
    """
    report = RecognitionReport(Path(root))
    problems = report.problems
    try:
        listing = read_listing(
            root,
            layout,
            group_by=group_by,
            label_by=label_by,
            annotations=annotations,
            report=problems.append,
        )
    except (ValueError, OSError) as error:
        problems.append(_problem(error, Path(root)))
        return report
    report.listing, report.layout = listing, listing.layout
    if not listing.items:
        problems.append(Problem(Path(root), None, "holds no labelled image or video"))
        return report
    _check_listing(listing, problems)
    sides = {item.side for item in listing.items}
    report.held_back = sides != {"train", "test"} and sides != {"test"}
    _check_files(listing, problems)
    if listing.layout == "packed":
        hashes = _packed_hashes(listing)
    else:
        hashes = _file_hashes(listing) if all(item.start is None for item in listing.items) else []
    _check_duplicates(listing, hashes, report)
    if report.held_back:
        listing.items = hold_back(listing, 0.2, None, 0)
    report.problems = list(dict.fromkeys(problems))
    return report


def _check_listing(listing: Listing, problems: list[Problem]) -> None:
    """Classes without items, classes that only one side has, files listed twice."""
    if len(listing.classes) == 1:
        message = f"has one class, {listing.classes[0]!r}; recognition needs at least two"
        problems.append(Problem(listing.root, None, message))
    found: dict[int, set[str]] = defaultdict(set)
    seen: dict[tuple[Any, ...], RecognitionItem] = {}
    for item in listing.items:
        found[item.label].add(item.side)
        key = (item.path, item.start, item.end, item.row)
        if key in seen:
            first = seen[key]
            where = f"line {first.line} of {first.listed_in.name}" if first.listed_in else "before"
            other = "" if first.label == item.label else f" as {listing.classes[first.label]!r}"
            message = f"{item.path.name!r} is listed already in {where}{other}"
            problems.append(Problem(item.listed_in or item.path, item.line, message))
        seen.setdefault(key, item)
    for label, name in enumerate(listing.classes):
        if found[label] == {"test"} and any("train" in sides for sides in found.values()):
            problems.append(Problem(listing.root, None, f"class {name!r} is on the test side only"))
    empty = [name for label, name in enumerate(listing.classes) if not found[label]]
    if empty and listing.layout != "folders":  # there, the empty folder is named
        names = ", ".join(map(repr, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        problems.append(Problem(listing.root, None, f"no item is of class {names}"))


def _check_files(listing: Listing, problems: list[Problem]) -> None:
    """Decode every image, read the packets of every video, place every segment in its video."""
    if listing.layout == "packed":
        return  # the arrays were checked as a whole
    data = RecognitionData(listing, listing.items, "all", held_back=False)

    def why(path: Path) -> Exception | None:
        try:
            read_image(path) if listing.kind == "image" else probe(path)
        except (ValueError, OSError) as error:
            return error
        return None

    paths = list(dict.fromkeys(item.path for item in listing.items))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        reasons = dict(zip(paths, pool.map(why, paths), strict=True))
    problems += [_problem(error, path) for path, error in reasons.items() if error is not None]
    for i, item in enumerate(listing.items):
        if item.start is None or reasons[item.path] is not None:
            continue
        try:
            frames = data.num_frames(i)
        except ValueError as error:
            message = str(error).removeprefix(f"{item.listed_in}:{item.line}: ")
            problems.append(Problem(item.listed_in or item.path, item.line, message))
            continue
        if item.unit == "frames" and item.end is not None and frames < item.end - (item.start or 0):
            have = frames + int(item.start or 0)
            message = f"the segment ends at frame {item.end:g} and {item.path.name} has {have} frames"
            problems.append(Problem(item.listed_in or item.path, item.line, message))


def _packed_hashes(listing: Listing) -> list[tuple[RecognitionItem, str]]:
    arrays: dict[Path, np.ndarray] = {}
    for path in dict.fromkeys(item.path for item in listing.items):
        with np.load(path, allow_pickle=False) as file:
            arrays[path] = file["images"]
    return [
        (item, hashlib.sha256(arrays[item.path][item.row or 0].tobytes()).hexdigest())
        for item in listing.items
    ]


def _file_hashes(listing: Listing) -> list[tuple[RecognitionItem, str]]:
    """Hash of every file that is as long as another one."""
    by_size: dict[int, list[RecognitionItem]] = defaultdict(list)
    for item in listing.items:
        if item.path.is_file():
            by_size[item.path.stat().st_size].append(item)
    alike = [item for items in by_size.values() if len(items) > 1 for item in items]
    return [(item, _hash(item.path)) for item in alike]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_duplicates(
    listing: Listing, hashes: Iterable[tuple[RecognitionItem, str]], report: RecognitionReport
) -> None:
    """The same content on both sides, where a held-back part could separate it, or under two classes."""
    groups: dict[str, list[RecognitionItem]] = defaultdict(list)
    for item, digest in hashes:
        groups[digest].append(item)
    for first, *others in groups.values():
        for item in others:
            if (item.path, item.row) == (first.path, first.row):
                continue
            same = f"has the same content as {_name(first)}"
            if item.label != first.label:
                message = f"{same}, but another class: {listing.classes[item.label]!r} here, "
                message += f"{listing.classes[first.label]!r} there"
            elif item.side != first.side:
                message = f"{same}; never train on what is tested"
            elif report.held_back and not (item.group and item.group == first.group):
                message = f"{same}; delete one, or give both the same group in labels.csv"
            else:
                continue
            report.problems.append(Problem(item.path, None, _of_row(item) + message))


def _name(item: RecognitionItem) -> str:
    return f"{item.path}" if item.row is None else f"image {item.row} of {item.path}"


def _of_row(item: RecognitionItem) -> str:
    return "" if item.row is None else f"image {item.row} "


def _problem(error: Exception, path: Path) -> Problem:
    if isinstance(error, AnnotationError):
        return error.problem
    return Problem(path, None, str(error).removeprefix(f"{path}: "))
