"""Splits a video into segments without any training: temporally weighted first-neighbour clustering.

After TW-FINCH (Sarfraz et al., "Temporally-Weighted Hierarchical Clustering for Unsupervised Action
Segmentation", CVPR 2021, https://arxiv.org/abs/2103.11264). Every frame is linked to its nearest other
frame, where nearness is the cosine distance times the distance in time; what is linked forms a cluster.
Clusters are replaced by their mean feature and mean time and linked again, until one is left. To get
exactly K clusters, the level just above K is merged one nearest pair at a time.

Differs from the paper: features have length one before they are averaged; both factors have a small floor,
so frames that look identical link to the nearest one in time, and clusters with the same mean time are not
merged whatever they show; K may exceed the clusters of the first level. The rule that chooses K where none
is given (`neighbour_silhouette`) and the smoothing of very short runs are ours.

Legend: T time steps, C channels, N nodes (frames or clusters), K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from framecast.structures import FeatureTrack, Segments

LEAST_COSINE_DISTANCE = 1e-6  # below it, two float32 unit vectors are the same
LEAST_STRUCTURE = 0.25  # silhouettes under this mean "no substantial structure" (Kaufman & Rousseeuw, 1990)
NEAR_BEST = 0.98  # share of the best silhouette at which fewer segments are preferred
CHUNK = 1 << 22  # entries of the distance matrix held at once


def segment_unsupervised(
    track: FeatureTrack,
    num_segments: int | None = None,
    *,
    min_segment_s: float = 1.0,
    max_segments: int = 30,
) -> Segments:
    """Cut a feature track into "segment A", "segment B", … in order of first appearance.

    num_segments: how many *different* segments; exactly that many are returned. One that comes back later
    keeps its letter, so there may be more runs. Without it every number up to `max_segments` is tried on the
    hierarchy: of the partitions whose `neighbour_silhouette` reaches 98 % of the best one, the one with the
    fewest segments is taken; where even the best stays below 0.25 the track is one segment.

    min_segment_s: shorter runs are given to the neighbouring run that they resemble more, in either mode
    (but no segment of `num_segments` is given up for it). Where frame times are unknown, a hundredth of the
    track takes its place.

    Raises ValueError for an empty or non-finite track, and for a number that the track cannot be cut into.
    """
    frames = unit_frames(track)
    steps = len(frames)
    shortest = min_steps(track, min_segment_s)
    if max_segments < 1:
        raise ValueError(f"max_segments is {max_segments}; pass 1 or more")
    if num_segments is not None:
        check_count(num_segments, steps)
        labels = cut(frames, frame_positions(track), num_segments)[num_segments]
        return name_segments(absorb_short_runs(frames, labels, shortest, keep_all=True), track)

    at_most = max(1, min(max_segments, steps // shortest))
    partitions = [
        absorb_short_runs(frames, labels, shortest)
        for count, labels in cut(frames, frame_positions(track), at_most).items()
        if count > 1
    ]
    scores = [neighbour_silhouette(frames, labels) for labels in partitions]
    best = max(scores, default=0.0)
    if best < LEAST_STRUCTURE:
        return name_segments(np.zeros(steps, dtype=np.int64), track)
    good = [labels for labels, score in zip(partitions, scores, strict=True) if score >= NEAR_BEST * best]
    return name_segments(min(good, key=lambda labels: (len(run_starts(labels)), labels.max())), track)


def equal_split(track: FeatureTrack, num_segments: int) -> Segments:
    """Cut a track into segments of equal length: the baseline that any method has to beat."""
    check_count(num_segments, len(track))
    return name_segments(np.arange(len(track)) * num_segments // len(track), track)


# -- the hierarchy ----------------------------------------------------------------------------------------


@dataclass
class Nodes:
    """Frames or clusters with their mean feature and mean time."""

    features: np.ndarray  # (N, C) float32, mean of unit vectors
    positions: np.ndarray  # (N,) float32, 0 at the first frame and 1 at the last
    sizes: np.ndarray  # (N,) int64 frames
    time_floor: float  # one step of the video

    def merged(self, labels: np.ndarray) -> Nodes:
        """Replace nodes of equal label (N,) by one node each, numbered as the labels are."""
        sizes = np.bincount(labels, weights=self.sizes)
        features = group_means(self.features, labels, self.sizes)
        positions = np.bincount(labels, weights=self.positions * self.sizes) / sizes
        return Nodes(features, positions.astype(np.float32), sizes.astype(np.int64), self.time_floor)

    @property
    def unit(self) -> np.ndarray:
        """(N, C) features of length one."""
        return self.features / np.maximum(np.linalg.norm(self.features, axis=1, keepdims=True), 1e-12)

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """First neighbour (N,) of every node and its distance (N,), computed a block of rows at a time."""
        unit, count = self.unit, len(self.sizes)
        index, distance = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float32)
        block = max(1, CHUNK // count)
        for first in range(0, count, block):
            rows = np.arange(first, min(first + block, count))
            weights = weighted_distances(unit, self.positions, rows, self.time_floor)
            index[rows] = weights.argmin(axis=1)
            distance[rows] = weights[np.arange(len(rows)), index[rows]]
        return index, distance


def weighted_distances(
    unit: np.ndarray, positions: np.ndarray, rows: np.ndarray, time_floor: float
) -> np.ndarray:
    """(1 − cos(x_i, x_j)) · |t_i − t_j| from R rows i to all N nodes j, (R, N); inf where i = j."""
    weights = unit[rows] @ unit.T
    np.subtract(1.0, weights, out=weights)
    np.maximum(weights, LEAST_COSINE_DISTANCE, out=weights)
    gaps = np.abs(positions[rows, None] - positions[None, :])
    weights *= np.maximum(gaps, time_floor, out=gaps)
    weights[np.arange(len(rows)), rows] = np.inf
    return weights


def group_means(features: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(K, C) weighted mean of the features (N, C) of every label; labels are 0 … K − 1, all in use."""
    order = np.argsort(labels, kind="stable")
    starts = run_starts(labels[order])
    weighted = features[order] * sizes[order, None].astype(np.float32)
    total = np.add.reduceat(sizes[order].astype(np.float32), starts)
    return np.add.reduceat(weighted, starts, axis=0) / total[:, None]


def linked(nearest: np.ndarray) -> np.ndarray:
    """Cluster (N,) of every node when each is linked to its nearest: connected components of that graph.

    Following the links from anywhere ends in a loop; a component is named after the lowest node of its
    loop. Both are found by doubling the number of links followed in each round.
    """
    lowest = np.minimum(np.arange(len(nearest)), nearest)
    reached = nearest
    for _ in range(len(nearest).bit_length()):
        lowest = np.minimum(lowest, lowest[reached])
        reached = reached[reached]
    return np.unique(lowest[reached], return_inverse=True)[1]


def hierarchy(frames: np.ndarray, positions: np.ndarray) -> Iterator[tuple[np.ndarray, Nodes]]:
    """Levels of the hierarchy, finest first, as cluster of every frame (T,) and the clusters themselves."""
    steps = len(frames)
    labels = np.arange(steps)
    nodes = Nodes(frames, positions.astype(np.float32), np.ones(steps, dtype=np.int64), 1.0 / steps)
    yield labels, nodes
    while len(nodes.sizes) > 1:
        level = linked(nodes.nearest()[0])
        labels, nodes = level[labels], nodes.merged(level)
        yield labels, nodes


def cut(frames: np.ndarray, positions: np.ndarray, count: int) -> dict[int, np.ndarray]:
    """Partitions of the frames into `count` clusters, `count` − 1, … and 1, by number of clusters.

    Starts at the coarsest level with at least `count` clusters and merges one nearest pair at a time.
    """
    for level in hierarchy(frames, positions):
        if len(level[1].sizes) < count:
            break
        labels, nodes = level
    alive = len(nodes.sizes)
    partitions = {alive: labels} if alive <= count else {}
    owner = np.arange(alive)
    for kept, gone in merge_pairs(nodes):
        owner[owner == gone] = kept
        alive -= 1
        if alive <= count:
            partitions[alive] = owner[labels]
    return partitions


def merge_pairs(nodes: Nodes) -> Iterator[tuple[int, int]]:
    """Merge the two nearest clusters until one is left; each step gives (kept, gone).

    Only rows whose neighbour has changed are computed anew, so no N × N matrix is held. That suffices to
    find the nearest pair: a distance changes with one of its two ends, and the row of that end is new.
    """
    features, positions, sizes = nodes.features.copy(), nodes.positions.copy(), nodes.sizes.copy()
    unit = nodes.unit
    nearest, distance = nodes.nearest()
    for _ in range(len(sizes) - 1):
        first = int(distance.argmin())
        pair = sorted((first, int(nearest[first])))
        kept, gone = pair
        share = (sizes[pair] / sizes[pair].sum()).astype(np.float32)
        features[kept], positions[kept] = share @ features[pair], share @ positions[pair]
        unit[kept] = features[kept] / max(float(np.linalg.norm(features[kept])), 1e-12)
        sizes[kept] += sizes[gone]
        positions[gone] = distance[gone] = np.inf
        yield kept, gone

        stale = np.isin(nearest, pair) & np.isfinite(positions)
        stale[kept] = True
        rows = np.flatnonzero(stale)
        weights = weighted_distances(unit, positions, rows, nodes.time_floor)
        nearest[rows], distance[rows] = weights.argmin(axis=1), weights.min(axis=1)


# -- choosing the number of segments ----------------------------------------------------------------------


def neighbour_silhouette(frames: np.ndarray, labels: np.ndarray) -> float:
    """How much better frames (T, C) fit their own cluster than those shown just before and after, in [−1, 1].

    A frame's score is (b − a) / max(a, b): a is its squared distance to the mean of its own cluster (without
    itself), b the smaller of those to the clusters of the previous and the next run. Averaged over frames.
    Unlike the usual silhouette it compares only what a boundary separates: a cut through one action scores
    near zero on both sides, while two actions in one segment widen a. One cluster scores zero.
    """
    starts, runs = run_starts(labels), np.cumsum(np.r_[0, labels[1:] != labels[:-1]])
    if len(starts) == 1:
        return 0.0
    cluster = np.unique(labels[starts], return_inverse=True)[1]  # cluster of every run
    own = cluster[runs]  # ... and of every frame
    sizes = np.bincount(own).astype(np.float32)
    means = group_means(frames, own, np.ones(len(own)))
    squared = (frames**2).sum(axis=1)[:, None] - 2 * frames @ means.T + (means**2).sum(axis=1)

    def to(other: np.ndarray) -> np.ndarray:
        return np.maximum(squared[np.arange(len(frames)), other], 0.0)

    alone = sizes[own] == 1
    a = to(own) * (sizes[own] / np.maximum(sizes[own] - 1, 1)) ** 2
    before, after = np.r_[cluster[1], cluster[:-1]][runs], np.r_[cluster[1:], cluster[-2]][runs]
    b = np.minimum(to(before), to(after))
    score = (b - a) / np.maximum(np.maximum(a, b), 1e-12)
    return float(np.where(alone, 0.0, score).mean())


def absorb_short_runs(
    frames: np.ndarray, labels: np.ndarray, shortest: int, *, keep_all: bool = False
) -> np.ndarray:
    """Give runs of fewer than `shortest` steps to the neighbouring run whose mean they resemble more.

    The shortest run goes first. With `keep_all` the longest run of every cluster stays, so that no cluster
    disappears.
    """
    labels = labels.copy()
    while True:
        starts = run_starts(labels)
        ends = np.append(starts[1:], len(labels))
        lengths = ends - starts
        allowed = lengths < shortest
        if keep_all:
            for cluster in np.unique(labels):
                of_cluster = np.flatnonzero(labels[starts] == cluster)
                allowed[of_cluster[lengths[of_cluster].argmax()]] = False
        if len(starts) == 1 or not allowed.any():
            return labels
        run = int(np.where(allowed, lengths, len(labels) + 1).argmin())
        mean = frames[starts[run] : ends[run]].mean(axis=0)
        beside = [r for r in (run - 1, run + 1) if 0 <= r < len(starts)]
        apart = [np.square(frames[starts[r] : ends[r]].mean(axis=0) - mean).sum() for r in beside]
        labels[starts[run] : ends[run]] = labels[starts[beside[int(np.argmin(apart))]]]


# -- the track --------------------------------------------------------------------------------------------


def unit_frames(track: FeatureTrack) -> np.ndarray:
    """(T, C) float32 features of length one; all-zero features stay zero."""
    if track.values.ndim != 2 or 0 in track.values.shape:
        raise ValueError(f"features of shape {track.values.shape} hold nothing to segment; expected (C, T)")
    frames = np.array(track.values.T, dtype=np.float32, order="C")
    if not np.isfinite(frames).all():
        step = int(np.flatnonzero(~np.isfinite(frames).all(axis=1))[0])
        raise ValueError(
            f"features of {track.source or 'the track'} are not finite at step {step}; extract them again"
        )
    return frames / np.maximum(np.linalg.norm(frames, axis=1, keepdims=True), 1e-12)


def frame_positions(track: FeatureTrack) -> np.ndarray:
    """(T,) time of every step, 0 at the first and 1 at the last."""
    steps = len(track)
    times = np.arange(steps, dtype=np.float64) if track.times is None else track.times - track.times[0]
    return times / times[-1] if times[-1] > 0 else np.arange(steps) / max(steps - 1, 1)


def min_steps(track: FeatureTrack, min_segment_s: float) -> int:
    """Fewest steps of a segment: `min_segment_s` seconds, or a hundredth of a track without times."""
    if min_segment_s < 0:
        raise ValueError(f"min_segment_s is {min_segment_s}; pass seconds, zero or more")
    if track.times is None:
        return max(1, len(track) // 100)
    step_s = float(np.median(np.diff(track.times))) if len(track) > 1 else 0.0
    return max(1, round(min_segment_s / step_s)) if step_s > 0 else 1


def check_count(num_segments: int, steps: int) -> None:
    if not 1 <= num_segments <= steps:
        raise ValueError(f"{num_segments} segments asked of a track of {steps} steps; pass 1 to {steps}")


def run_starts(labels: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])


def name_segments(labels: np.ndarray, track: FeatureTrack) -> Segments:
    """Letters in order of first appearance, the runs as segments."""
    _, first, cluster = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    classes = tuple(f"segment {letters(i)}" for i in range(len(first)))
    return Segments.from_frames(order[cluster], classes, video=track.source, times=track.times)


def letters(index: int) -> str:
    """A, B, … Z, AA, AB, … as columns of a spreadsheet."""
    name = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        name = chr(ord("A") + rest) + name
    return name
