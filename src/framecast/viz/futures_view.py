"""What the picture and the page of futures share: the axis with its now, the rows, the chances, the words.

The axis is that of the video. Where much more was seen than is forecast, only the last part of it is shown.
Legend: S samples, K classes, T coming steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from framecast.data.futures_files import ClassOutlook, FutureGroup, class_outlook, future_groups, is_single
from framecast.structures import Futures, Segments
from framecast.viz.axis import TimeAxis
from framecast.viz.palette import shared_colors
from framecast.viz.timeline import Lane

LONGEST_PAST = 0.8  # of the horizon; what was seen before that is left out
UNLIKELY = 0.05  # classes below are only named where a lane shows them


@dataclass
class FuturesView:
    """Futures on the time axis on which they are shown."""

    futures: Futures
    axis: TimeAxis  # from the first moment shown to the end of the horizon
    now: float
    observed: Lane | None  # None where nothing was seen
    mode: Lane
    groups: list[FutureGroup]
    group_lanes: list[Lane]  # of the first groups
    truth: Lane | None
    outlook: list[ClassOutlook]
    colors: dict[str, str]

    @classmethod
    def of(cls, futures: Futures, truth: Segments | None, rows: int) -> FuturesView:
        """Raises ValueError for futures without a step and for a truth that ends before they begin."""
        if len(futures) == 0 or futures.num_steps == 0:
            raise ValueError(f"{len(futures)} futures of {futures.num_steps} steps; there is nothing to draw")
        observed, step = futures.observed, futures.step_s
        futures = replace(futures, step_probs=futures.probabilities) if len(futures) > 1 else futures
        first, now = shown_past(futures)
        horizon = futures.num_steps * (step or 1.0)
        axis = TimeAxis("frames" if step is None else "seconds", now + horizon, first)

        def coming(segments: Segments) -> Lane:
            edges = np.stack([segments.starts, segments.ends], axis=1) * (step or 1.0)
            return Lane("", segments, now + edges, axis)

        groups = future_groups(futures)
        mode = coming(futures.segments())
        lanes = [coming(futures.segments(group.members[0])) for group in groups[:rows]]
        if len(futures) == 1 and np.array_equal(futures.samples[0], futures.mode):
            lanes = []  # the most probable class says it all
        seen = past_lane(observed, axis, step, (first, now)) if len(observed) else None
        happened = None
        if truth is not None:
            if truth.num_frames <= observed.num_frames:
                raise ValueError(
                    f"the ground truth has {truth.num_frames} frames, of which {observed.num_frames} were "
                    "observed; pass the labels of the whole video, from its first frame on"
                )
            happened = past_lane(truth, axis, step, (now, axis.end))
        vocabularies = [observed] if truth is None else [observed, truth]
        colors = shared_colors(vocabularies)
        return cls(futures, axis, now, seen, mode, groups, lanes, happened, class_outlook(futures), colors)

    @property
    def lanes(self) -> list[Lane]:
        """Every lane, from top to bottom."""
        found = [self.observed, self.mode, *self.group_lanes, self.truth]
        return [lane for lane in found if lane is not None]

    @property
    def coming(self) -> TimeAxis:
        """The part of the axis after now."""
        return replace(self.axis, start=self.now)

    @property
    def is_cut(self) -> bool:
        """Whether the beginning of what was seen is left out."""
        return self.axis.start > 0.0

    @property
    def is_certain(self) -> bool:
        """Whether there is one future without probabilities, so that nothing is to be said on chances."""
        return len(self.futures) == 1 and self.futures.step_probs is None

    @property
    def likely(self) -> list[ClassOutlook]:
        """Classes worth naming: those in the lanes of what may come, and others that are likely enough."""
        drawn = {int(label) for lane in (self.mode, *self.group_lanes) for label in lane.row.labels}
        return [one for one in self.outlook if one.probability >= UNLIKELY or one.label in drawn]

    @property
    def whole_past(self) -> list[tuple[float, float, str]]:
        """Start and end of every segment that was seen, as shares of what was seen, and its class."""
        observed, step = self.futures.observed, self.futures.step_s
        lane = past_lane(observed, self.axis, step, (0.0, self.now))
        return (
            []
            if lane is None
            else [
                (start / self.now, end / self.now, name)
                for (start, end), name in zip(lane.limits, lane.row.names, strict=True)
            ]
        )

    def name(self, one: ClassOutlook) -> str:
        return self.futures.classes[one.label]

    # -- words --------------------------------------------------------------------------------------------

    @property
    def seen_words(self) -> str:
        if self.observed is None:
            return "Nothing seen so far"
        if not self.is_cut:
            return "Seen so far"
        shown = self.length(self.now - self.axis.start)
        return f"Seen so far: the last {shown} of {self.length(self.now)}"

    @property
    def coming_words(self) -> str:
        what = "What is expected" if self.is_certain else "What may come"
        return f"{what} in the next {self.horizon}"

    @property
    def horizon(self) -> str:
        return self.length(self.axis.end - self.now)

    def length(self, value: float) -> str:
        """A duration in words: seconds up to two minutes, whole ones without a tenth."""
        if self.axis.unit == "seconds" and value < 119.95:
            return f"{round(value, 1):g} s"
        return self.axis.length(value)

    @property
    def sample_words(self) -> str:
        count, kinds = len(self.futures), len(self.groups)
        if count == 1:
            return "The one sampled future"
        if kinds == 1:
            return f"{count} sampled futures, all with the same order of actions"
        return f"{count} sampled futures, {kinds} different orders of actions"

    @property
    def chance_words(self) -> tuple[str, str]:
        """What the chances of the classes mean, in a longer and a shorter form."""
        if is_single(self.futures):
            return f"Highest chance in the next {self.horizon}", "Highest chance"
        return f"Chance to happen in the next {self.horizon}", f"Chance in {self.horizon}"

    @property
    def rest_words(self) -> str:
        """What the lanes leave out, "" where they show every group."""
        rest = self.groups[len(self.group_lanes) :]
        if not rest or not self.group_lanes:
            return ""
        members = sum(len(group) for group in rest)
        orders = f"{len(rest)} other order{'' if len(rest) == 1 else 's'} of actions"
        return f"and {orders}: {members} of {len(self.futures)} futures"

    def share(self, group: FutureGroup) -> str:
        return f"{len(group)} of {len(self.futures)}"


def shown_past(futures: Futures) -> tuple[float, float]:
    """Where the part of what was seen that is shown begins, and now: seconds, frames without a rate."""
    step = futures.step_s
    now = futures.start_s if step is not None else float(futures.observed.num_frames)
    return max(0.0, now - LONGEST_PAST * futures.num_steps * (step or 1.0)), now


def past_lane(row: Segments, axis: TimeAxis, step: float | None, part: tuple[float, float]) -> Lane | None:
    """The segments of a row of the video inside a part of the axis, None where there are none."""
    limits = np.stack([row.starts, row.ends], axis=1).astype(np.float64)
    if step is not None:
        limits = limits * step if row.limits_s is None else row.limits_s
    kept = (limits[:, 1] > part[0]) & (limits[:, 0] < part[1])
    if not kept.any():
        return None
    confidence = None if row.confidence is None else row.confidence[kept]
    inside = replace(
        row,
        labels=row.labels[kept],
        starts=row.starts[kept],
        ends=row.ends[kept],
        confidence=confidence,
        frame_probs=None,
    )
    return Lane("", inside, limits[kept].clip(*part), axis)
