"""Images and clips with one class each.

    data = open_recognition("surveillance_fights", subset="train")       # groups of labels.csv stay together

Annotations are read on construction, pixels when an item is asked for. What a subset does not hold is
never read. Frames of videos are taken by their times (video.py), at the size of the file.

Legend: N items, T frames of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from framecast.data.holdout import assign_shares, num_shares
from framecast.data.images import read_image
from framecast.data.problems import Report, refuse
from framecast.data.recognition_layouts import Listing, RecognitionItem, detect_layout, read_folders
from framecast.data.recognition_lists import (
    read_kinetics,
    read_labels_table,
    read_lists,
    read_packed,
    read_segments,
    read_ssv2,
)
from framecast.data.tables import ROUNDING_S
from framecast.data.video import frame_times, read_frames
from framecast.registry import did_you_mean

Subset = Literal["train", "test", "all"]
READERS = {
    "lists": read_lists,
    "kinetics": read_kinetics,
    "ssv2": read_ssv2,
    "segments": read_segments,
    "packed": read_packed,
}
RECOGNITION_LAYOUTS = ("folders", "table", *READERS)


def open_recognition(
    root: str | Path,
    *,
    layout: str = "auto",
    subset: Subset = "all",
    holdout: float = 0.2,
    split: int | None = None,
    seed: int = 0,
    group_by: str | None = None,
    label_by: str | None = None,
    annotations: str | Path | None = None,
    keep_mb: float = 0,
) -> RecognitionData:
    """Open images or videos with their classes.

    layout: a name from recognition_layouts.py, "auto" looks at the folder. holdout, split, seed: where the
    data has no test side, share `split` (1, 2, … floor(1 / holdout); None = 1) is held back. group_by,
    label_by: columns of labels.csv, None = the usual names. annotations: list, table or folder of lists
    where they do not lie in `root`. keep_mb: memory for decoded clips, see RecognitionData.

    Raises FileNotFoundError for missing files, ValueError for what is wrong, with file and line.
    """
    if subset not in ("train", "test", "all"):
        raise ValueError(f"subset is {subset!r}; it must be one of train, test, all")
    listing = read_listing(
        root, layout, group_by=group_by, label_by=label_by, annotations=annotations, report=refuse
    )
    sides = {item.side for item in listing.items}
    if held_back := sides != {"train", "test"} and sides != {"test"}:
        listing.items = hold_back(listing, holdout, split, seed)
    elif split not in (None, 1):
        raise ValueError(f"{root} has a test side of its own; leave split={split} out")
    items = [item for item in listing.items if subset in ("all", item.side)]
    return RecognitionData(listing, items, subset, held_back=held_back, keep_mb=keep_mb)


def read_listing(
    root: str | Path,
    layout: str = "auto",
    *,
    group_by: str | None = None,
    label_by: str | None = None,
    annotations: str | Path | None = None,
    report: Report = refuse,
) -> Listing:
    """Classes and items of all sides, without reading any image or video."""
    root = Path(root)
    beside = Path(annotations) if annotations is not None else None
    if beside is not None and not beside.exists():
        beside = root / beside
        if not beside.exists():
            raise FileNotFoundError(f"{annotations} does not exist, nor does {beside}")
    name = detect_layout(root, beside) if layout == "auto" else layout
    if name == "folders":
        if beside is not None:
            raise ValueError(f"layout 'folders' has no list beside it; leave annotations={annotations} out")
        return read_folders(root, report, group_by)
    if name == "table":
        return read_labels_table(root, beside, report, label_by=label_by, group_by=group_by)
    if name not in READERS:
        near = did_you_mean(name, RECOGNITION_LAYOUTS)
        raise ValueError(f"unknown layout {name!r}{near}; there are {', '.join(RECOGNITION_LAYOUTS)}")
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist; give the folder that holds the images or videos")
    if group_by is not None and not (name == "segments" and group_by == "video"):
        raise ValueError(f"layout {name!r} has no column {group_by!r} to keep groups together; leave it out")
    return READERS[name](root, beside, report)


def hold_back(listing: Listing, holdout: float, split: int | None, seed: int) -> list[RecognitionItem]:
    """Items with sides: share `split` is the test side."""
    count, chosen = num_shares(holdout), 1 if split is None else split
    if not 1 <= chosen <= count:
        raise ValueError(f"split is {split}; with holdout={holdout} it is from 1 to {count}")
    items = listing.items
    names = [source_of(item, listing.root) for item in items]
    shares = assign_shares(names, [i.label for i in items], [i.group for i in items], holdout, seed)
    sides = ("test" if share == chosen else "train" for share in shares)
    return [replace(item, side=side) for item, side in zip(items, sides, strict=True)]


def source_of(item: RecognitionItem, root: Path) -> str:
    """A name that no other item has: the path below the root, with limits or row where cut or packed."""
    inside = item.path.is_relative_to(root)
    name = (item.path.relative_to(root) if inside else item.path).as_posix()
    if item.row is not None:
        return f"{name}#{item.row}"
    if item.start is None:
        return name
    limits = f"{item.start:g}-{item.end:g}"
    return f"{name}#{limits}{'s' if item.unit == 'seconds' else ''}"


class RecognitionData:
    """Images or clips of one subset.

    keep_mb: clips are kept decoded, all their frames, until so much memory is full (of every process that
    reads them). Worth it for hundreds of short clips that are read in many epochs.
    """

    def __init__(
        self,
        listing: Listing,
        items: Sequence[RecognitionItem],
        subset: Subset,
        *,
        held_back: bool,
        keep_mb: float = 0,
    ) -> None:
        self.root, self.layout = listing.root, listing.layout
        self.classes, self.kind, self.group_by = listing.classes, listing.kind, listing.group_by
        self.items, self.subset = tuple(items), subset
        self.held_back = held_back  # False = the data has sides of its own
        self._arrays: dict[Path, np.ndarray] = {}
        self._kept: dict[int, Tensor] = {}
        self._memory_left = keep_mb * 2**20
        if not self.items:
            raise ValueError(
                f"{self.root} has no {self.kind} in subset {subset!r} (layout {self.layout}): it is empty, "
                "or each class has one item or group and none can be held back"
            )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64 class index of every item."""
        return np.array([item.label for item in self.items], dtype=np.int64)

    def label(self, index: int) -> int:
        return self.items[index].label

    def source(self, index: int) -> str:
        """A name that no other item has: the path below the root, with limits or row where cut or packed."""
        return source_of(self.items[index], self.root)

    def image(self, index: int) -> Tensor:
        """(3, H, W) uint8 RGB, upright."""
        item = self.items[index]
        if self.kind != "image":
            raise ValueError(f"{item.path} is a video; ask for frames({index}, [0])")
        if item.row is None:
            return read_image(item.path)
        if item.path not in self._arrays:
            with np.load(item.path, allow_pickle=False) as arrays:
                self._arrays[item.path] = arrays["images"]
        return torch.from_numpy(self._arrays[item.path][item.row].transpose(2, 0, 1).copy())

    def video_path(self, index: int) -> Path:
        """The file that holds the clip."""
        return self.items[index].path

    def num_frames(self, index: int, fps: float | None = None) -> int:
        """Frames of the clip as the file has them, or counted at another rate."""
        times = self._times(index)
        return len(times) if fps is None else max(1, round(_duration(times) * fps))

    def frames(self, index: int, indices: Sequence[int] | np.ndarray, fps: float | None = None) -> Tensor:
        """(T, 3, H, W) uint8 frames by their number inside the clip, in the order asked for.

        fps: numbers count frames at this rate: number n is what is shown n / fps seconds into the clip.
        """
        times = self._times(index)
        numbers = np.asarray(indices)
        count = self.num_frames(index, fps)
        if len(numbers) == 0 or numbers.min() < 0 or numbers.max() >= count:
            raise ValueError(f"{self.source(index)} has frames 0 to {count - 1}, asked for {numbers!s}")
        if fps is not None:  # what is shown at a time
            numbers = np.searchsorted(times, times[0] + numbers / fps + ROUNDING_S, side="right") - 1
        if self._memory_left <= 0 and index not in self._kept:
            return read_frames(self.items[index].path, times[numbers]).frames
        if index not in self._kept:
            self._kept[index] = read_frames(self.items[index].path, times).frames
            self._memory_left -= self._kept[index].nbytes
        return self._kept[index][torch.from_numpy(numbers)]

    def _times(self, index: int) -> np.ndarray:
        """Seconds at which the frames of the clip are shown in its file."""
        item = self.items[index]
        times = frame_times(item.path)
        if item.start is None or item.end is None:
            return times
        if item.unit == "frames":
            first, last = int(item.start), int(item.end)
        else:
            first, last = np.searchsorted(times, np.array([item.start, item.end]) - ROUNDING_S)
        if len(times[first:last]) == 0:
            place = f"{item.listed_in}:{item.line}: " if item.listed_in else ""
            raise ValueError(
                f"{place}{item.start:g} to {item.end:g} {item.unit} holds no frame of {item.path}, "
                f"which has {len(times)} frames and ends at {times[-1]:.2f} s"
            )
        return times[first:last]


def _duration(times: np.ndarray) -> float:
    """Seconds from the first frame to the end of the last, which stays as long as the median frame."""
    return float(times[-1] - times[0] + (np.median(np.diff(times)) if len(times) > 1 else 0.0))
