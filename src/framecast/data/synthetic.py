"""Writes tiny folders that look like the public data sets, so that everything runs without a download.

Labels follow a small grammar of each data set (Breakfast opens and closes with SIL, 50Salads with
action_start and action_end, GTEA interleaves background). Features are one random prototype per class plus
temporally smoothed noise: a model has to use context to separate what single frames leave open.

Legend: C channels, T frames, K classes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from framecast.data.layouts import TAS_SCORES_CLASSES, get_layout

FEATURE_DIM = 16
OWN_CLASSES = ("background", "walk", "sit_down", "sit", "stand_up")
ASSEMBLY_CLASSES = (
    "attach cabin",
    "attach wheel",
    "detach wheel",
    "inspect toy",
    "screw chassis",
    "rotate toy",
)


@dataclass(frozen=True)
class Grammar:
    """Which labels follow each other in a video."""

    actions: tuple[str, ...]
    opening: str = ""
    closing: str = ""
    between: str = ""  # after every action
    ordered: bool = False  # actions in the given order, some left out; else in random order

    def sentence(self, rng: np.random.Generator) -> list[str]:
        """Labels of the segments of one video."""
        size = int(rng.integers(max(2, len(self.actions) - 2), len(self.actions) + 1))
        chosen = rng.choice(len(self.actions), size=size, replace=False)
        actions = [self.actions[i] for i in (sorted(chosen) if self.ordered else chosen)]
        inner = [part for action in actions for part in (action, self.between) if part]
        return [part for part in (self.opening, *inner, self.closing) if part]


GRAMMARS = {
    "breakfast": Grammar(
        ("take_bowl", "pour_cereals", "pour_milk", "stir_cereals"), opening="SIL", closing="SIL", ordered=True
    ),
    "50salads": Grammar(
        ("cut_tomato", "place_tomato_into_bowl", "add_salt", "add_oil", "mix_dressing"),
        opening="action_start",
        closing="action_end",
    ),
    "gtea": Grammar(("take", "open", "pour", "stir"), opening="background", between="background"),
    "mstcn": Grammar(OWN_CLASSES[1:], opening="background", closing="background"),
    "csv": Grammar(OWN_CLASSES[1:], opening="background", between="background"),
    "assembly101": Grammar(ASSEMBLY_CLASSES),
    "tas_scores": Grammar(
        ("add_oil", "cut_tomato", "mix_dressing", "peel_cucumber"), opening="background", closing="background"
    ),
}


def synthetic_labels(grammar: Grammar, classes: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """(T,) class indices of one video, T about 60 to 150; segments are 8 to 24 frames long."""
    labels = [classes.index(name) for name in grammar.sentence(rng)]
    return np.repeat(labels, rng.integers(8, 25, size=len(labels)))


def synthetic_features(
    labels: np.ndarray,
    prototypes: np.ndarray,
    rng: np.random.Generator,
    *,
    noise: float = 1.0,
    smoothing: int = 5,
) -> np.ndarray:
    """(C, T) float32: prototypes (K, C) of the frames' classes plus noise averaged over some frames."""
    white = rng.normal(size=(prototypes.shape[1], len(labels) + smoothing - 1))
    kernel = np.full(smoothing, smoothing**-0.5)  # keeps the variance at 1
    coloured = np.stack([np.convolve(row, kernel, mode="valid") for row in white])
    return (prototypes[labels].T + noise * coloured).astype(np.float32)


def write_lookalike(
    layout: str, folder: str | Path, seed: int = 0, *, num_videos: int = 10, feature_dim: int = FEATURE_DIM
) -> Path:
    """Write a tiny data set in a layout and return its folder, which must not exist or be empty.

    Every official split that gets a test video is there, and every video is tested once. The same seed
    writes the same bytes. Features have `feature_dim` channels (tas_scores: its 18 classes).
    """
    get_layout(layout)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder; choose another one")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        WRITERS[layout](partial, layout, np.random.default_rng(seed), num_videos, feature_dim)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _prototypes(rng: np.random.Generator, num_classes: int, feature_dim: int) -> np.ndarray:
    return rng.normal(size=(num_classes, feature_dim))


def _video_names(layout: str, num_videos: int) -> list[str]:
    if layout == "breakfast":  # two videos a person; persons fall into the official splits
        people = [(3, 16, 29, 42)[i % 4] + i // 4 for i in range(-(-num_videos // 2))]
        names = [f"P{p:02d}_{cam}_P{p:02d}_cereals" for p in people for cam in ("cam01", "webcam01")]
    elif layout == "50salads":
        people = [(1, 6, 13, 18, 23)[i % 5] + i // 5 for i in range(-(-num_videos // 2))]
        names = [f"rgb-{p:02d}-{trial}" for p in people for trial in (1, 2)]
    elif layout == "gtea":
        names = [
            f"S{1 + i % 4}_{('Cheese', 'Coffee', 'Tea')[i // 4 % 3]}_C{1 + i // 12}"
            for i in range(num_videos)
        ]
    else:
        names = [f"video_{i:02d}" for i in range(num_videos)]
    return sorted(names[:num_videos])


def _test_split(layout: str, video: str) -> int:
    """The split in which a video is tested."""
    if layout == "breakfast":
        return 1 + (int(video[1:3]) - 3) // 13
    if layout == "50salads":
        person = int(video[4:6])
        return 1 + sum(person >= first for first in (6, 13, 18, 23))
    return int(video[1])  # gtea: by person


def _write_mstcn(
    root: Path, layout: str, rng: np.random.Generator, num_videos: int, feature_dim: int
) -> None:
    classes = get_layout(layout).classes or OWN_CLASSES
    prototypes = _prototypes(rng, len(classes), feature_dim)
    videos = _video_names(layout, num_videos)
    for name in ("groundTruth", "features"):
        (root / name).mkdir()
    (root / "mapping.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(classes)))
    for video in videos:
        labels = synthetic_labels(GRAMMARS[layout], classes, rng)
        (root / "groundTruth" / f"{video}.txt").write_text("".join(f"{classes[i]}\n" for i in labels))
        np.save(root / "features" / f"{video}.npy", synthetic_features(labels, prototypes, rng))
    for split in get_layout(layout).splits:
        tested = [video for video in videos if _test_split(layout, video) == split]
        trained = [video for video in videos if video not in tested]
        if not tested or not trained:
            continue
        (root / "splits").mkdir(exist_ok=True)
        for side, names in (("train", trained), ("test", tested)):
            text = "".join(f"{video}.txt\n" for video in names)
            (root / "splits" / f"{side}.split{split}.bundle").write_text(text)


def _write_csv(root: Path, layout: str, rng: np.random.Generator, num_videos: int, feature_dim: int) -> None:
    prototypes = _prototypes(rng, len(OWN_CLASSES), feature_dim)
    (root / "features").mkdir()
    rows = ["video,start,end,label\n"]
    for video in _video_names(layout, num_videos):
        labels = synthetic_labels(GRAMMARS[layout], OWN_CLASSES, rng)
        edges = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1], True])
        for start, end in pairwise(edges):
            if labels[start] != 0:  # background is what no row covers
                rows.append(f"{video},{start},{end},{OWN_CLASSES[labels[start]]}\n")
        np.save(root / "features" / f"{video}.npy", synthetic_features(labels, prototypes, rng))
    (root / "segments.csv").write_text("".join(rows))


def _write_assembly101(
    root: Path, layout: str, rng: np.random.Generator, num_videos: int, feature_dim: int
) -> None:
    prototypes = _prototypes(rng, len(ASSEMBLY_CLASSES), feature_dim)
    annotations = root / "coarse-annotations"
    (annotations / "coarse_labels").mkdir(parents=True)
    table = ["action_id,verb_id,noun_id,action_cls,verb_cls,noun_cls\n"]
    for i, name in enumerate(ASSEMBLY_CLASSES):
        verb, noun = name.split()
        table.append(f"{i},{i},{i},{name},{verb},{noun}\n")
    (annotations / "actions.csv").write_text("".join(table))
    rows: dict[str, list[str]] = {"train": [], "val": []}
    for i in range(max(2, num_videos // 2)):
        kind, sequence = ("assembly", "disassembly")[i % 2], f"nusar-2021_action_both_{9000 + i}"
        labels, first = synthetic_labels(GRAMMARS[layout], ASSEMBLY_CLASSES, rng), int(rng.integers(0, 20))
        edges = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1], True])
        lines = [
            f"{first + start}\t{first + end}\t{ASSEMBLY_CLASSES[labels[start]]}\t\n"
            for start, end in pairwise(edges)
        ]
        (annotations / "coarse_labels" / f"{kind}_{sequence}.txt").write_text("".join(lines))
        padded = np.concatenate([np.full(first, labels[0]), labels, np.full(5, labels[-1])])
        for view in ("C10095_rgb", "HMC_84347414_mono10bit"):
            (root / "TSM_features" / sequence / view).mkdir(parents=True)
            values = synthetic_features(padded, prototypes, rng)
            np.save(root / "TSM_features" / sequence / view / "features.npy", values)
            side = rows["val" if i % 4 == 3 or i == 1 else "train"]
            side.append(f"{len(side)},{sequence},{view},{kind},{first},{first + len(labels)}\n")
    header = ",video_id,view,action_type,video_start_frame,video_end_frame\n"
    for side, lines in rows.items():
        (root / f"{side}.csv").write_text(header + "".join(lines))


def _write_tas_scores(
    root: Path, layout: str, rng: np.random.Generator, num_videos: int, feature_dim: int
) -> None:
    classes = TAS_SCORES_CLASSES["salads50_mid"]
    (root / "svm").mkdir()
    for i, video in enumerate(_video_names(layout, num_videos)):
        labels = synthetic_labels(GRAMMARS[layout], classes, rng)
        scores = synthetic_features(labels, 2.5 * np.eye(len(classes)), rng).T.astype(np.float16)
        predicted = scores.argmax(axis=1).astype(np.int16)
        path = root / "svm" / f"split{1 + i % 4}_{video}.npz"
        np.savez(path, scores=scores, pred=predicted, label=labels.astype(np.int16))


WRITERS = {
    "breakfast": _write_mstcn,
    "50salads": _write_mstcn,
    "gtea": _write_mstcn,
    "mstcn": _write_mstcn,
    "csv": _write_csv,
    "assembly101": _write_assembly101,
    "tas_scores": _write_tas_scores,
}
