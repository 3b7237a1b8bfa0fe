"""Clips with a few actions each, cut from long recordings whose actions are known."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from framecast.data.problems import Problem, refuse
from framecast.data.recognition_layouts import Listing, RecognitionItem
from framecast.data.video import frame_times
from framecast.structures import Segments

ROUNDING_S = 0.3  # actions that overlap by less, or follow each other so soon, touch


@dataclass(frozen=True)
class Action:
    """Something that happens from one second to another."""

    label: str
    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Timeline:
    """The labelled actions of one video, by their start."""

    video: Path
    actions: tuple[Action, ...]
    group: str = ""  # what must stay on one side of a split, "" = the video


@dataclass(frozen=True)
class LabelledClip:
    """A part of a video and the actions that can be seen in it, in their order."""

    video: Path
    start_s: float | None  # None = the whole file
    end_s: float | None
    actions: tuple[Action, ...]
    group: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(action.label for action in self.actions)


@dataclass(frozen=True)
class Cutting:
    """How long recordings are cut. Durations in seconds."""

    max_actions: int = 4
    clips_per_action: int = 2  # clips that begin with an action, each with another number of actions
    longest_s: float = 8.0  # an action that begins or ends a clip is cut to this; none inside is longer
    shortest_s: float = 0.8  # that is seen of an action
    max_gap_s: float = 1.0  # time without a label inside a clip
    max_clip_s: float = 30.0
    background: tuple[str, ...] = ("background",)  # labels that say that nothing is labelled

    def __post_init__(self) -> None:
        if self.max_actions < 1 or self.clips_per_action < 1:
            raise ValueError("max_actions and clips_per_action must be at least 1")
        if not 0 < self.shortest_s <= self.longest_s <= self.max_clip_s:
            raise ValueError(
                f"shortest_s ({self.shortest_s}), longest_s ({self.longest_s}) and max_clip_s "
                f"({self.max_clip_s}) must be above 0 and in this order"
            )


# --- From annotations --------------------------------------------------------------------------------------


def timeline_of(segments: Segments, video: str | Path, group: str = "") -> Timeline:
    """The labelled segments of a video whose frame times are known."""
    limits = segments.limits_s
    if limits is None:
        raise ValueError(f"the segments of {video} have no times; read them with the times of the frames")
    actions = [
        Action(name, float(start), float(end))
        for name, label, (start, end) in zip(segments.names, segments.labels, limits, strict=True)
        if label >= 0
    ]
    return Timeline(Path(video), tuple(actions), group)


def timelines_of(listing: Listing) -> list[Timeline]:
    """The segments of every video of a listing of layout "segments"."""
    by_video: dict[Path, list[RecognitionItem]] = defaultdict(list)
    for item in listing.items:
        by_video[item.path].append(item)
    return [
        Timeline(video, tuple(_actions(items, listing.classes)), items[0].group)
        for video, items in sorted(by_video.items())
    ]


def _actions(items: Sequence[RecognitionItem], classes: Sequence[str]) -> Iterator[Action]:
    if any(item.unit == "frames" for item in items):
        times = frame_times(items[0].path)
        last = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        edges = np.append(times, times[-1] + last)
    for item in sorted(items, key=lambda one: (one.start or 0, one.end or 0)):
        start, end = float(item.start or 0), float(item.end or 0)
        if item.unit == "frames":
            if end >= len(edges):
                message = (
                    f"the segment ends at frame {end:g} and {item.path.name} has {len(edges) - 1} frames"
                )
                refuse(Problem(item.listed_in or item.path, item.line, message))
            start, end = float(edges[int(start)]), float(edges[int(end)])
        yield Action(classes[item.label], start, end)


# --- Cutting -----------------------------------------------------------------------------------------------


def cut(timeline: Timeline, cutting: Cutting | None = None, seed: int = 0) -> list[LabelledClip]:
    """Clips of 1 to max_actions successive actions; the same seed cuts the same clips.

    What is labelled is seen from its beginning to its end, except that a long first action is seen from
    some later time on and a long last one up to some earlier time. No clip holds more than traces of an
    action that is not in its list.
    """
    cutting = cutting or Cutting()
    actions = _touching(timeline.actions, cutting.background)
    clips: dict[tuple[float, float], LabelledClip] = {}
    for first in range(len(actions)):
        counts = [n for n in range(1, cutting.max_actions + 1) if _fits(actions, first, n, cutting)]
        name = f"{timeline.video.name} {actions[first].start_s:.2f}"
        for n in shuffled(counts, f"{seed} {name}")[: cutting.clips_per_action]:
            window = _trimmed(actions[first : first + n], cutting, f"{seed} {name} {n}")
            start, end = round(window[0].start_s, 3), round(window[-1].end_s, 3)
            if end - start <= cutting.max_clip_s:
                clips[start, end] = LabelledClip(timeline.video, start, end, tuple(window), timeline.group)
    return list(clips.values())


def _touching(actions: Sequence[Action], background: Collection[str]) -> list[Action]:
    """Without small overlaps; what goes on under the same label is one action."""
    found: list[Action] = []
    for action in sorted(actions, key=lambda a: (a.start_s, a.end_s)):
        if action.label in background:
            continue
        gap = action.start_s - found[-1].end_s if found else np.inf
        if abs(gap) <= ROUNDING_S and action.label == found[-1].label:
            found[-1] = replace(found[-1], end_s=max(found[-1].end_s, action.end_s))
            continue
        if -ROUNDING_S <= gap < 0:
            middle = action.start_s - gap / 2
            found[-1] = replace(found[-1], end_s=middle)
            action = replace(action, start_s=middle)
        if action.seconds > 0:
            found.append(action)
    return found


def _fits(actions: Sequence[Action], first: int, count: int, cutting: Cutting) -> bool:
    window = actions[first : first + count]
    if len(window) < count or any(action.seconds < cutting.shortest_s for action in window):
        return False
    if any(action.seconds > cutting.longest_s for action in window[1:-1]):
        return False
    gaps = [after.start_s - before.end_s for before, after in pairwise(window)]
    if any(not -1e-6 <= gap <= cutting.max_gap_s for gap in gaps):
        return False
    others = [*actions[:first], *actions[first + count :]]  # one of these overlaps: what is seen is not known
    return not any(o.start_s < window[-1].end_s - 1e-6 and o.end_s > window[0].start_s + 1e-6 for o in others)


def _trimmed(window: Sequence[Action], cutting: Cutting, name: str) -> list[Action]:
    found = list(window)
    least = max(cutting.shortest_s, 0.5 * cutting.longest_s)
    if len(found) == 1 and found[0].seconds > cutting.longest_s:
        seconds = least + draw(f"{name} length") * (cutting.longest_s - least)
        start = found[0].start_s + draw(f"{name} place") * (found[0].seconds - seconds)
        return [replace(found[0], start_s=start, end_s=start + seconds)]
    if found[0].seconds > cutting.longest_s:
        seconds = least + draw(f"{name} first") * (cutting.longest_s - least)
        found[0] = replace(found[0], start_s=found[0].end_s - seconds)
    if found[-1].seconds > cutting.longest_s:
        seconds = least + draw(f"{name} last") * (cutting.longest_s - least)
        found[-1] = replace(found[-1], end_s=found[-1].start_s + seconds)
    return found


# --- Chance that is the same everywhere --------------------------------------------------------------------


def draw(name: str) -> float:
    """A number from 0 to 1 that belongs to this name, on every machine and in every version."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) / (1 << 56)


def shuffled(values: Sequence[int], name: str) -> list[int]:
    """The values in the order that belongs to this name."""
    return sorted(values, key=lambda value: draw(f"{name} {value}"))
