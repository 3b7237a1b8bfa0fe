"""Writes tiny folders of labelled images and clips in every layout, so that everything runs offline.

Images show a disc, a square or a ring at any place, size and colour. Clips show a disc that moves to the
left or to the right, or that grows or shrinks: single frames, and their order turned around, tell nothing
apart that the classes do not, so a model has to see the order of time.

Legend: H and W pixels, T frames.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from framecast.data.video_writing import write_clip
from framecast.registry import did_you_mean

SHAPES = ("disc", "ring", "square")
MOTIONS = ("to_left", "to_right", "grow", "shrink")
RATE = 10  # frames per second of the clips
SIDES = ("train", "val")


def synthetic_image(shape: str, rng: np.random.Generator, size: int = 32) -> np.ndarray:
    """(H, W, 3) uint8: a shape at a random place, in a random colour, on noise."""
    radius = rng.uniform(0.2, 0.32) * size
    place = rng.uniform(radius + 1, size - radius - 1, size=2)
    return _draw(shape, place, radius, _colour(rng), size, rng)


def synthetic_clip(
    motion: str, rng: np.random.Generator, size: int = 32, num_frames: int = 16
) -> list[np.ndarray]:
    """T images (H, W, 3) uint8 of a disc that moves or changes its size."""
    near, far = (0.22, 0.78) if motion in ("to_left", "to_right") else (0.5, 0.5)
    small, large = (0.16, 0.16) if motion in ("to_left", "to_right") else (0.08, 0.3)
    height, colour = rng.uniform(0.35, 0.65) * size, _colour(rng)
    frames = []
    for share in np.linspace(0, 1, num_frames):
        along = share if motion in ("to_right", "grow") else 1 - share
        place = np.array([height, (near + (far - near) * along) * size])
        frames.append(_draw("disc", place, (small + (large - small) * along) * size, colour, size, rng))
    return frames


def _draw(
    shape: str, place: np.ndarray, radius: float, colour: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    y, x = np.mgrid[:size, :size] + 0.5
    dy, dx = np.abs(y - place[0]), np.abs(x - place[1])
    distance = np.maximum(dy, dx) if shape == "square" else np.hypot(dy, dx)
    inside = (distance <= radius) & ((shape != "ring") | (distance >= 0.55 * radius))
    image = rng.normal(60, 8, size=(size, size, 3))
    image[inside] = colour + rng.normal(0, 4, size=(int(inside.sum()), 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(140, 255, size=3)


def write_recognition_lookalike(
    layout: str,
    folder: str | Path,
    seed: int = 0,
    *,
    kind: Literal["image", "video"] | None = None,
    per_class: int = 4,
    size: int = 32,
) -> Path:
    """Write a tiny data set in a layout and return its folder, which must not exist or be empty.

    per_class: items of each class on each side (layouts without sides have all of them together). kind:
    images or clips where the layout can hold both, None = the usual one. The same seed writes the same
    pixels.
    """
    if layout not in WRITERS:
        near = did_you_mean(layout, WRITERS)
        raise ValueError(f"unknown layout {layout!r}{near}; there are {', '.join(WRITERS)}")
    write, usual, fixed = WRITERS[layout]
    if fixed and kind not in (None, usual):
        raise ValueError(f"layout {layout!r} holds {usual}s; leave kind={kind!r} out")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder; choose another one")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        write(partial, _Items(kind or usual, np.random.default_rng(seed), per_class, size))
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


class _Items:
    """Makes the items of one data set, class by class."""

    def __init__(self, kind: str, rng: np.random.Generator, per_class: int, size: int) -> None:
        self.kind, self.rng, self.per_class, self.size = kind, rng, per_class, size
        self.classes = sorted(SHAPES if kind == "image" else MOTIONS)
        self.suffix = ".png" if kind == "image" else ".mp4"

    def write(self, label: str, path: Path) -> None:
        if self.kind == "video":
            write_clip(synthetic_clip(label, self.rng, self.size), path, RATE)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(synthetic_image(label, self.rng, self.size)).save(path)

    def write_side(self, folder: Path) -> list[tuple[str, str]]:
        """Files `<class>_<i>` in a folder; answers (file name, class)."""
        rows = [(f"{c}_{i}{self.suffix}", c) for i in range(self.per_class) for c in self.classes]
        for name, label in rows:
            self.write(label, folder / name)
        return rows


def _write_rows(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows] if header else rows)


def _write_folders(root: Path, items: _Items) -> None:
    for side in SIDES:
        for label in items.classes:
            for i in range(items.per_class):
                items.write(label, root / side / label / f"{i}{items.suffix}")


def _write_grouped_folders(root: Path, items: _Items) -> None:
    """Without sides, two items from one source each, so that whole sources can be held back."""
    rows = []
    for label in items.classes:
        for i in range(3 * items.per_class):
            items.write(label, root / label / f"{i}{items.suffix}")
            rows.append([f"{label}/{i}{items.suffix}", label, f"tape {label} {i // 2}"])
    _write_rows(root / "labels.csv", ["file", "label", "source"], rows)


def _write_table(root: Path, items: _Items) -> None:
    items.per_class *= 2  # both sides in one
    rows = items.write_side(root / "images")
    _write_rows(root / "labels.csv", ["file", "label"], [list(row) for row in rows])


def _write_lists(root: Path, items: _Items) -> None:
    for side in SIDES:
        rows = items.write_side(root / "videos" / side)
        listed = [[f"{side}/{name}", items.classes.index(label)] for name, label in rows]
        _write_rows(root / f"{side}.csv", [], listed)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in items.classes))


def _write_kinetics(root: Path, items: _Items) -> None:
    for side in SIDES:
        rows = []
        for i in range(items.per_class):
            for k, label in enumerate(items.classes):
                video = f"{side[0]}{i}{k}xKinetics"[:11]
                items.write(label, root / side / f"{video}_{i:06d}_{i + 10:06d}{items.suffix}")
                rows.append([label.replace("_", " "), video, i, i + 10, side])
        header = ["label", "youtube_id", "time_start", "time_end", "split"]
        _write_rows(root / f"{side}.csv", header, rows)


def _write_ssv2(root: Path, items: _Items) -> None:
    templates = {label: f"Moving [something] {label.replace('_', ' ')}" for label in items.classes}
    numbers = {t.replace("[", "").replace("]", ""): str(i) for i, t in enumerate(templates.values())}
    (root / "something-something-v2-labels.json").write_text(json.dumps(numbers))
    for number, name in enumerate(("train", "validation")):
        rows = []
        for i in range(items.per_class):
            for k, label in enumerate(items.classes):
                video = str(1000 * (number + 1) + 10 * i + k)
                items.write(label, root / "videos" / f"{video}{items.suffix}")
                text = templates[label].replace("[something]", "a disc").lower()
                rows.append({"id": video, "label": text, "template": templates[label]})
        (root / f"something-something-v2-{name}.json").write_text(json.dumps(rows))


def _write_segments(root: Path, items: _Items) -> None:
    """Each video shows every class once, in random order, with pauses."""
    rows: list[list[Any]] = []
    for i in range(items.per_class + 1):
        frames: list[np.ndarray] = []
        for label in items.rng.permutation(items.classes):
            clip = synthetic_clip(str(label), items.rng, items.size)
            start = len(frames)
            frames += [*clip, *[clip[-1]] * 3]
            rows.append([f"tape_{i}", start, start + len(clip), label])
        write_clip(frames, root / "videos" / f"tape_{i}.mp4", RATE)
    _write_rows(root / "segments.csv", ["video", "start", "end", "label"], rows)


def _write_packed(root: Path, items: _Items) -> None:
    for side in SIDES:
        labels = np.tile(np.arange(len(items.classes), dtype=np.uint8), items.per_class)
        images = np.stack([synthetic_image(items.classes[k], items.rng, items.size) for k in labels])
        np.savez(root / f"{side}.npz", images=images, labels=labels, class_names=np.array(items.classes))


# layout -> writer, the usual kind, whether it can hold no other
WRITERS: dict[str, tuple[Callable[[Path, _Items], None], Literal["image", "video"], bool]] = {
    "folders": (_write_folders, "image", False),
    "grouped-folders": (_write_grouped_folders, "video", False),
    "table": (_write_table, "image", False),
    "lists": (_write_lists, "video", False),
    "kinetics": (_write_kinetics, "video", True),
    "ssv2": (_write_ssv2, "video", True),
    "segments": (_write_segments, "video", True),
    "packed": (_write_packed, "image", True),
}
