"""What the parts of framecast hand to each other: clips, labels, answers, feature tracks, segments, maps.

Legend: T time steps, C channels, H and W pixels, N segments, K classes, S samples. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """Decoded RGB frames with the time at which each is shown."""

    frames: Tensor  # (T, 3, H, W) uint8
    times: np.ndarray  # (T,) float64, seconds from the start of the video
    source: str = ""  # path that the frames come from

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class Labels:
    """Which class an image or a clip shows, and how sure that is."""

    probabilities: np.ndarray  # (K,) float, sums to 1
    classes: tuple[str, ...]  # (K,) names
    source: str = ""

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities, best first."""
        best = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[i], float(self.probabilities[i])) for i in best]


@dataclass(frozen=True)
class KeptTokens:
    """Which patches of an image or a clip an adaptive model keeps, stage after stage.

    P places in time: the frames, or fewer where several frames make one patch; an image has one.
    """

    frames: np.ndarray  # (F, H, W, 3) uint8, what the model saw; F is a multiple of P
    left: np.ndarray  # (stages, P, rows, columns) bool, the patches that are left after each stage
    blocks: tuple[int, ...]  # (stages,) the block of each stage, 0-based
    macs_share: float  # multiply-adds of the blocks, as a share of those with all tokens
    view: str = ""  # which part of the input was seen, where the model looked at several

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.dtype != np.uint8 or self.frames.shape[3] != 3:
            raise ValueError(f"frames are {self.frames.dtype} of shape {self.frames.shape}, not (F, H, W, 3)")
        if self.left.ndim != 4 or self.left.dtype != bool or 0 in self.left.shape:
            raise ValueError(
                f"what is left is {self.left.dtype} of shape {self.left.shape}; it must be bool of shape "
                "(stages, places in time, rows, columns)"
            )
        if len(self.blocks) != len(self.left) or len(self.frames) % self.left.shape[1]:
            raise ValueError(
                f"{len(self.blocks)} blocks and {len(self.frames)} frames do not belong to what is left, "
                f"{len(self.left)} stages and {self.left.shape[1]} places in time"
            )

    @property
    def num_patches(self) -> int:
        """Of the whole input."""
        return self.left[0].size

    @property
    def counts(self) -> tuple[int, ...]:
        """(stages,) patches that are left after each stage."""
        return tuple(int(stage.sum()) for stage in self.left)

    @property
    def lasting(self) -> np.ndarray:
        """(P, rows, columns) how many stages every patch outlives, from 0 to all of them."""
        return self.left.sum(0)


@dataclass(frozen=True)
class Answer:
    """What a model says to a question about a video or an image."""

    text: str
    question: str
    source: str = ""
    times: np.ndarray = field(
        default_factory=lambda: np.zeros(0)
    )  # (T,) seconds of the frames that were seen
    # (T, rows, columns) share of the answer's attention to the clip that fell on each place, sums to 1
    attention: np.ndarray | None = None
    finished: bool = True  # False: cut off at the longest answer that was allowed
    num_visual_tokens: int = 0
    seconds: dict[str, float] = field(
        default_factory=dict
    )  # "watching": 0 where the clip was known, "answering"

    def attended(self) -> list[tuple[float, float]]:
        """Every frame's time and its share of the attention, most first; empty where none was asked for."""
        if self.attention is None:
            return []
        shares = self.attention.sum((1, 2))
        return [(float(self.times[i]), float(shares[i])) for i in np.argsort(-shares, kind="stable")]


OF_ONE_FILE = {"weights_source", "video_hash"}  # provenance that may differ between tracks of one model


@dataclass(frozen=True)
class Provenance:
    """How a feature track was made; a model refuses tracks made in another way.

    Two tracks may feed the same model when every field but the last two agrees.
    """

    backbone: str  # registered name, for example "vit_small_dinov2"
    weights: str  # sha256 of the backbone's parameters, first 16 digits
    layer: int | None  # block index after which tokens are read, None = after the last norm
    pooling: str  # "cls", "mean" or "cls+mean"
    image_size: tuple[int, int]  # (height, width) of the frames that the backbone saw
    mean: tuple[float, ...]
    std: tuple[float, ...]
    step_s: float | None  # seconds between feature vectors, None = every frame of the video
    weights_source: str = ""  # file, folder or hub id that the weights were read from
    video_hash: str = ""

    def differences(self, other: Provenance) -> list[str]:
        """Fields in which two tracks are not interchangeable, as readable sentences."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{name}: {mine[name]!r} here, {theirs[name]!r} there"
            for name in mine
            if name not in OF_ONE_FILE and mine[name] != theirs[name]
        ]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Provenance:
        """Rebuild from `to_json`; a file that lacks a field or has a foreign one is refused."""
        known = set(cls.__dataclass_fields__)
        missing = sorted(known - set(values) - OF_ONE_FILE)
        foreign = sorted(set(values) - known)
        if missing or foreign:
            raise ValueError(
                f"feature provenance has missing fields {missing} and unknown fields {foreign}; "
                "extract the features again with `framecast features`"
            )
        listed = {"image_size", "mean", "std"}
        read: dict[str, Any] = {k: tuple(v) if k in listed else v for k, v in values.items()}
        return cls(**read)


@dataclass(frozen=True)
class FeatureTrack:
    """One feature vector per time step of a video, channel first."""

    values: np.ndarray  # (C, T) float32 or float16, may be memory-mapped
    times: np.ndarray | None = None  # (T,) float64 seconds, None = unknown frame rate
    provenance: Provenance | None = None  # None = made elsewhere, for example official I3D files
    source: str = ""

    def __len__(self) -> int:
        return self.values.shape[1]

    @property
    def feature_dim(self) -> int:
        return self.values.shape[0]


@dataclass(frozen=True)
class Segments:
    """Who does what from when to when: runs of equal labels that cover a video without gaps.

    Frame limits are half-open, `[start, end)`. Second limits are there when the frame times are known.
    """

    labels: np.ndarray  # (N,) int64 class index, -100 = not labelled
    starts: np.ndarray  # (N,) int64 frames
    ends: np.ndarray  # (N,) int64 frames
    classes: tuple[str, ...]  # (K,) names
    video: str = ""
    times: np.ndarray | None = None  # (T,) float64 seconds of every frame
    confidence: np.ndarray | None = None  # (N,) mean probability of the label inside the segment
    frame_probs: np.ndarray | None = field(default=None, repr=False)  # (K, T) class probabilities

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_frames(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def names(self) -> list[str]:
        return [self.classes[i] if i >= 0 else "unlabelled" for i in self.labels]

    @property
    def limits_s(self) -> np.ndarray | None:
        """(N, 2) start and end of each segment in seconds, None where the frame times are unknown.

        A segment ends where the next one starts; the last frame lasts as long as the median frame.
        """
        if self.times is None:
            return None
        last = float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0
        edges = np.append(self.times, self.times[-1] + last)
        return np.stack([edges[self.starts], edges[self.ends]], axis=1)

    @property
    def frame_labels(self) -> np.ndarray:
        """(T,) class index of every frame."""
        return np.repeat(self.labels, self.ends - self.starts)

    @classmethod
    def from_frames(
        cls,
        labels: np.ndarray,
        classes: tuple[str, ...],
        *,
        video: str = "",
        times: np.ndarray | None = None,
        frame_probs: np.ndarray | None = None,
    ) -> Segments:
        """Merge equal neighbours of frame-wise labels (T,) into segments."""
        labels = np.asarray(labels, dtype=np.int64)
        if labels.ndim != 1 or len(labels) == 0:
            raise ValueError(f"frame labels must be a non-empty vector, got shape {labels.shape}")
        if times is not None and len(times) != len(labels):
            raise ValueError(
                f"{len(labels)} frame labels but {len(times)} frame times; pass one time per frame"
            )
        starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
        ends = np.append(starts[1:], len(labels))
        confidence = None
        if frame_probs is not None:
            chosen = frame_probs[np.maximum(labels, 0), np.arange(len(labels))]
            confidence = np.add.reduceat(chosen, starts) / (ends - starts)
        return cls(labels[starts], starts, ends, tuple(classes), video, times, confidence, frame_probs)


@dataclass(frozen=True)
class Futures:
    """What may happen after what was seen: equally probable samples of the label of every coming step.

    Steps follow each other at the rate of the observed frames and begin where those end.
    """

    observed: Segments  # what was seen, or taken for seen
    samples: np.ndarray  # (S, T) int64 class of every coming step
    likelihood: np.ndarray | None = None  # (S,) log-likelihood of each sample, where the model has one
    step_s: float | None = None  # seconds of a step, None where the rate is unknown
    step_probs: np.ndarray | None = field(default=None, repr=False)  # (K, T) where the model gives its own

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.observed.classes

    @property
    def num_steps(self) -> int:
        return self.samples.shape[1]

    @property
    def probabilities(self) -> np.ndarray:
        """(K, T) probability of every class at every step: the model's own, or the shares of the samples."""
        if self.step_probs is not None:
            return self.step_probs
        counts = [(self.samples == k).sum(0) for k in range(len(self.classes))]
        return np.stack(counts) / len(self.samples)

    @property
    def entropy(self) -> np.ndarray:
        """(T,) uncertainty of every step in bits: 0 where all agree, log2 K where nothing is known."""
        p = self.probabilities
        return -(p * np.log2(np.maximum(p, 1e-12))).sum(0)

    @property
    def mode(self) -> np.ndarray:
        """(T,) most probable class of every step, the lower index where two are level."""
        return self.probabilities.argmax(0)

    def ranked(self) -> np.ndarray:
        """(S,) indices of the samples: those that agree with the others at most steps come first."""
        shares = np.stack([(self.samples == k).mean(0) for k in range(len(self.classes))])
        agreement = np.take_along_axis(shares, self.samples, axis=0).mean(1)
        return np.argsort(-agreement, kind="stable")

    def segments(self, sample: int | None = None) -> Segments:
        """One sample as segments, or the most probable class of every step; frame 0 is the first to come."""
        labels = self.mode if sample is None else self.samples[sample]
        times = None
        if self.step_s is not None:
            times = self.start_s + self.step_s * np.arange(self.num_steps)
        probs = self.probabilities
        return Segments.from_frames(
            labels, self.classes, video=self.observed.video, times=times, frame_probs=probs
        )

    @property
    def start_s(self) -> float:
        """Second at which the future begins: where the observed segments end, 0 where times are unknown."""
        limits = self.observed.limits_s
        if limits is not None and len(limits):
            return float(limits[-1, 1])
        return (self.step_s or 0.0) * self.observed.num_frames


@dataclass(frozen=True)
class Forecast:
    """Maps ahead of what is known: one or more variables on one grid at one or more times, north first.

    L times, H rows, W columns; nan = unknown, sea included. Raises ValueError where the parts do not fit.
    """

    values: dict[str, np.ndarray]  # name -> (L, H, W) float32
    times: np.ndarray  # (L,) datetime64 (or cftime dates), when each map is valid; ascending
    y: np.ndarray  # (H,) latitudes or northings of the cells' middles, descending
    x: np.ndarray  # (W,) longitudes or eastings, ascending
    units: dict[str, str]  # of every variable; "1" = a share or an index
    spread: dict[str, np.ndarray] = field(default_factory=dict)  # same shapes, deviation over members
    crs: str = "EPSG:4326"  # or what pyproj reads, or "" where it is unknown
    attrs: dict[str, str] = field(default_factory=dict)  # model, source, issued, licence

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a forecast needs at least one variable")
        for name, axis in (("y", self.y), ("x", self.x)):
            if axis.ndim != 1 or not len(axis) or not np.isfinite(axis).all():
                raise ValueError(f"{name} must be a vector of finite coordinates, got shape {axis.shape}")
        if len(self.y) > 1 and not (np.diff(self.y) < 0).all():
            raise ValueError("y must fall from row to row (north first); flip the maps and y together")
        if len(self.x) > 1 and not (np.diff(self.x) > 0).all():
            raise ValueError("x must rise from column to column (west first); flip the maps and x together")
        if self.times.ndim != 1 or self.times.dtype.kind not in "MO" or not len(self.times):
            raise ValueError(
                f"times are {self.times.dtype} of shape {self.times.shape}; they must be a vector of dates"
            )
        if len(self.times) > 1 and not all(a < b for a, b in pairwise(self.times)):
            raise ValueError("times must rise, each map at a later time than the one before")
        for name, maps in [*self.values.items(), *self.spread.items()]:
            if maps.shape != self.shape or maps.dtype != np.float32:
                raise ValueError(
                    f"{name} is {maps.dtype} of shape {maps.shape}; {len(self.times)} times on a grid of "
                    f"{len(self.y)} x {len(self.x)} cells need float32 of shape {self.shape}"
                )
        strangers = sorted(set(self.spread) - set(self.values))
        if strangers:
            raise ValueError(f"spread of {', '.join(strangers)}, but no such variable")
        without = sorted(set(self.values) - set(self.units))
        if without:
            raise ValueError(f'no unit of {", ".join(without)}; "1" is that of shares and indices')

    def __len__(self) -> int:
        return len(self.times)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Times, rows, columns."""
        return len(self.times), len(self.y), len(self.x)

    @property
    def dates(self) -> tuple[str, ...]:
        """(L,) "2021-07-02", with the hour where a time is not at midnight."""
        texts = [str(np.datetime64(t, "m")) if self.times.dtype.kind == "M" else t.isoformat()[:16]
                 for t in self.times]  # fmt: skip
        return tuple(t[:10] if t[10:] in ("", "T00:00") else t for t in texts)

    def time(self, index: int) -> Forecast:
        """The forecast for one of its times."""
        one = slice(index, index + 1) if index != -1 else slice(-1, None)
        return replace(
            self,
            times=self.times[one],
            values={name: maps[one] for name, maps in self.values.items()},
            spread={name: maps[one] for name, maps in self.spread.items()},
        )

    def cell(self, y: float, x: float) -> tuple[int, int]:
        """Row and column of the cell round a point; ValueError where it lies outside the grid."""
        row, column = int(np.abs(self.y - y).argmin()), int(np.abs(self.x - x).argmin())
        for value, axis, index, name in ((y, self.y, row, "y"), (x, self.x, column, "x")):
            near = axis[max(index - 1, 0) : index + 2]
            half = float(np.abs(np.diff(near)).max()) / 2 if len(near) > 1 else 0.0
            if not abs(value - axis[index]) <= half * 1.001:
                raise ValueError(
                    f"{name} = {value:g} lies outside the maps, which reach from {axis.min():g} to "
                    f"{axis.max():g}"
                )
        return row, column
