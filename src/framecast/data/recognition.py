"""Images and clips with one class each, for training and for scores.

    data = open_recognition("surveillance_fights", subset="train")       # groups of labels.csv stay together
    samples = RecognitionSamples(data, train_transform(settings), num_frames=8)
    views = RecognitionViews(data, "kinetics/3x4", image_size=224, mean=mean, std=std, num_frames=8)

Annotations are read on construction, pixels when an item is asked for. What a subset does not hold is
never read. Frames of videos are taken by their times (video.py), at the size of the file.

Legend: k repeats, V views, T frames of a clip, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from framecast.data.clip_sampling import check_sampling, clip_indices
from framecast.data.holdout import assign_shares, num_shares
from framecast.data.images import IMAGE_SUFFIXES, read_image
from framecast.data.problems import Report, refuse
from framecast.data.recognition_layouts import Kind, Listing, RecognitionItem, detect_layout, read_folders
from framecast.data.recognition_lists import (
    read_kinetics,
    read_labels_table,
    read_lists,
    read_packed,
    read_segments,
    read_ssv2,
)
from framecast.data.tables import ROUNDING_S
from framecast.data.transforms import Channels, ImageSize, normalise, take_views
from framecast.data.video import SUFFIXES, frame_times, read_frames
from framecast.metrics.view_protocols import ViewProtocol, default_view_protocol, get_view_protocol
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
) -> RecognitionData:
    """Open images or videos with their classes.

    layout: a name from recognition_layouts.py, "auto" looks at the folder. holdout, split, seed: where the
    data has no test side, share `split` (1, 2, … floor(1 / holdout); None = 1) is held back. group_by,
    label_by: columns of labels.csv, None = the usual names. annotations: list, table or folder of lists
    where they do not lie in `root`.

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
    return RecognitionData(listing, items, subset, held_back=held_back)


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
    """Images or clips of one subset."""

    def __init__(
        self, listing: Listing, items: Sequence[RecognitionItem], subset: Subset, *, held_back: bool
    ) -> None:
        self.root, self.layout = listing.root, listing.layout
        self.classes, self.kind, self.group_by = listing.classes, listing.kind, listing.group_by
        self.items, self.subset = tuple(items), subset
        self.held_back = held_back  # False = the data has sides of its own
        self._arrays: dict[Path, np.ndarray] = {}
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
        wanted = times[numbers] if fps is None else np.minimum(times[0] + numbers / fps, times[-1])
        return read_frames(self.items[index].path, wanted).frames

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


# --- Samples for training and evaluation -------------------------------------------------------------------


class RecognitionSamples:
    """Training samples: `[i]` is {"pixels": (k, 3, H, W) or (k, 3, T, H, W), "label", "source"}.

    k = repeats is always there: a sample is decoded once and augmented k times. num_frames: T of the clips,
    None = single images (of videos: one frame). sampling, stride: rule of clip_sampling.py. fps: rate at
    which frames are counted, None = that of the file. Randomness comes from torch's generator.
    """

    def __init__(
        self,
        data: RecognitionData,
        transform: nn.Module,
        *,
        num_frames: int | None = None,
        sampling: str = "sparse",
        stride: int = 16,
        fps: float | None = None,
        repeats: int = 1,
    ) -> None:
        check_sampling(sampling)
        if repeats < 1:
            raise ValueError(f"repeats is {repeats}; a sample is augmented at least once")
        _check_clips(data.kind, num_frames)
        self.data, self.transform = data, transform
        self.num_frames, self.sampling, self.stride, self.fps = num_frames, sampling, stride, fps
        self.repeats = repeats

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels = self._pixels(index)
        views = torch.stack([self.transform(pixels) for _ in range(self.repeats)])
        return {
            "pixels": views.transpose(1, 2) if views.dim() == 5 else views,  # (k, T, 3, …) -> (k, 3, T, …)
            "label": self.data.label(index),
            "source": self.data.source(index),
        }

    def _pixels(self, index: int) -> Tensor:
        """uint8 (3, H, W), or (T, 3, H, W) at random places in time."""
        if self.data.kind == "image":
            return self.data.image(index)
        frames = self.data.num_frames(index, self.fps)
        numbers = clip_indices(self.sampling, frames, self.num_frames or 1, stride=self.stride)
        clip = self.data.frames(index, numbers, self.fps)
        return clip if self.num_frames is not None else clip[0]


class RecognitionViews:
    """Views for evaluation: `[i]` is {"pixels": (V, 3, H, W) or (V, 3, T, H, W), "label", "source"}.

    V = protocol.num_views, clip by clip, crops inside. corrupt: applied to the uint8 crops (..., 3, H, W) of
    an item before normalisation, with its source.
    """

    def __init__(
        self,
        data: RecognitionData,
        protocol: ViewProtocol | str,
        *,
        image_size: ImageSize,
        mean: Sequence[float],
        std: Sequence[float],
        num_frames: int | None = None,
        channels: Channels = "rgb",
        corrupt: Callable[[Tensor, str], Tensor] | None = None,
    ) -> None:
        _check_clips(data.kind, num_frames)
        self.data, self.num_frames = data, num_frames
        self.protocol = get_view_protocol(protocol) if isinstance(protocol, str) else protocol
        self.image_size, self.mean, self.std, self.channels = image_size, mean, std, channels
        self.corrupt = corrupt
        if self.protocol.kind != data.kind:
            instead = default_view_protocol(data.kind).name
            raise ValueError(
                f"protocol {self.protocol.name} is for {self.protocol.kind}s and {data.root} holds "
                f"{data.kind}s; take for example {instead}"
            )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source = self.data.source(index)
        crops = torch.cat([take_views(clip, self.protocol, self.image_size) for clip in self._clips(index)])
        if self.corrupt is not None:
            crops = self.corrupt(crops, source)
        pixels = normalise(crops, self.mean, self.std, self.channels)
        return {
            "pixels": pixels.transpose(1, 2) if pixels.dim() == 5 else pixels,
            "label": self.data.label(index),
            "source": source,
        }

    def _clips(self, index: int) -> list[Tensor]:
        """uint8 image (3, H, W) or clips (T, 3, H, W), all decoded in one pass."""
        if self.data.kind == "image":
            return [self.data.image(index)]
        rule, length = self.protocol, self.num_frames or 1
        frames = self.data.num_frames(index, rule.fps)
        numbers = np.concatenate(
            [
                clip_indices(rule.sampling, frames, length, clip=c, num_clips=rule.clips, stride=rule.stride)
                for c in range(rule.clips)
            ]
        )
        clips = self.data.frames(index, numbers, rule.fps).split(length)
        return [clip if self.num_frames is not None else clip[0] for clip in clips]


def _check_clips(kind: Kind, num_frames: int | None) -> None:
    if num_frames is not None and (kind == "image" or num_frames < 1):
        raise ValueError(
            f"num_frames is {num_frames} and the data are {kind}s; leave it out for images, "
            "give at least 1 for videos"
        )


def load_views(
    path: str | Path,
    protocol: ViewProtocol | str | None = None,
    *,
    image_size: ImageSize,
    mean: Sequence[float],
    std: Sequence[float],
    num_frames: int | None = None,
    channels: Channels = "rgb",
) -> Tensor:
    """(V, 3, H, W) or (V, 3, T, H, W) views of one image or video file, for prediction."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (*IMAGE_SUFFIXES, *SUFFIXES) and path.exists():
        raise ValueError(f"{path}: is neither an image ({', '.join(IMAGE_SUFFIXES)}) nor a video")
    kind: Kind = "image" if suffix in IMAGE_SUFFIXES else "video"
    listing = Listing(path.parent, "folders", ("",), [RecognitionItem(path, 0)], kind)
    data = RecognitionData(listing, listing.items, "all", held_back=False)
    views = RecognitionViews(
        data,
        protocol or default_view_protocol(kind),
        image_size=image_size,
        mean=mean,
        std=std,
        num_frames=num_frames,
        channels=channels,
    )
    return views[0]["pixels"]
