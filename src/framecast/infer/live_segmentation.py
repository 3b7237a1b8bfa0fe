"""A timeline that grows while a video is watched, from one feature vector after the other.

A classifier of single vectors is causal: it sees each one once, and all that is carried on is the state of
the hysteresis. Other segmentation models look to both sides of a frame; they label a window of what was seen
last again whenever the timeline is asked for. Where the window holds the whole video, that is what
`segment_track` gives.
Legend: C channels, K classes, T steps.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from framecast.checkpoints import card_of
from framecast.models.frame_linear import FrameLinear
from framecast.structures import Segments
from framecast.tasks.segmentation import predict_frames

CONTEXT = 4  # a quarter of a window that does not reach back to the beginning is context, not labelled again


@dataclass
class Hysteresis:
    """A class takes over when it has led for `hold` steps without a break, from the first of these on."""

    hold: int = 1  # 1 = at once
    current: int | None = None
    leader: int | None = None
    lead: int = 0  # steps

    def step(self, label: int) -> tuple[int, int]:
        """Label of this step, and to how many steps before it applies as well."""
        if self.current is None or label == self.current:
            self.current, self.lead = label, 0
            return label, 0
        self.lead = self.lead + 1 if self.lead and label == self.leader else 1
        self.leader = label
        if self.lead < self.hold:
            return self.current, 0
        back, self.current, self.lead = self.lead - 1, label, 0
        return label, back


@dataclass
class VectorWindow:
    """The vectors of the last span_s seconds, oldest first."""

    span_s: float
    first: int = 0  # number of the oldest step that is held
    vectors: list[np.ndarray] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add(self, time_s: float, vector: np.ndarray) -> None:
        self.vectors.append(vector)
        self.times.append(time_s)
        old = bisect_left(self.times, time_s - self.span_s)
        if old > len(self.times) // 2 or old > 1024:  # moved in one go: a move costs as much as what stays
            self._drop(old)

    def _drop(self, old: int) -> None:
        del self.vectors[:old], self.times[:old]
        self.first += old

    def values(self, every: int = 1) -> tuple[int, np.ndarray]:
        """Number of the first step, a multiple of `every`, and the vectors (C, T) from there on."""
        old = bisect_left(self.times, self.times[-1] - self.span_s)
        old += -(self.first + old) % every
        old = min(old, len(self.times) - 1 - (self.first + len(self.times) - 1) % every)
        return self.first + old, np.ascontiguousarray(np.stack(self.vectors[old:]).T)


class LiveTimeline:
    """Label, class probabilities and time of every step that was seen, and a model that gives them.

    hold_s: how long a class has to lead before it takes over, for causal models. look_back_s: length of the
    window that other models label again.
    """

    def __init__(
        self, model: Any, *, hold_s: float = 1.0, look_back_s: float = 60.0, step_s: float | None = None
    ) -> None:
        self.model, self.card = model, card_of(model)
        self.causal = is_causal(model)
        self.video = ""
        self.labels: list[int] = []
        self.probabilities: list[np.ndarray] = []  # (K,) each
        self.times: list[float] = []
        self.window = VectorWindow(0.0 if self.causal else look_back_s)
        self.hold_s, self.step_s = hold_s, step_s
        self.hysteresis: Hysteresis | None = None
        self.settled = 0  # steps that have been labelled

    def __len__(self) -> int:
        return len(self.times)

    def see(self, time_s: float, vector: np.ndarray | None) -> None:
        """One step more; None = what was seen last goes on."""
        rate = self.card.sample_rate
        if vector is None:
            vector = self.window.vectors[-1]
        self.window.add(time_s, vector)
        self.times.append(time_s)
        if not self.causal:
            if time_s - self.times[self.settled] > self.window.span_s / 2:
                self.settle()  # before steps leave the window that were never labelled
            return
        if (len(self) - 1) % rate:
            self.labels.append(self.labels[-1])
            self.probabilities.append(self.probabilities[-1])
            return
        labels, probabilities = predict_frames(self.model, vector[:, None])
        label, back = self._hold().step(int(labels[0]))
        if back:
            self.labels[len(self.labels) - back * rate :] = [label] * (back * rate)
        self.labels.append(label)
        self.probabilities.append(probabilities[:, 0])

    def _hold(self) -> Hysteresis:
        """Made when the time between steps is known; without it, from the first two steps."""
        if self.hysteresis is None:
            if not self.step_s and len(self) > 1:
                self.step_s = self.times[1] - self.times[0]
            if not self.step_s:
                return Hysteresis()
            self.hysteresis = Hysteresis(hold_steps(self.hold_s, self.step_s, self.card.sample_rate))
            self.hysteresis.current = self.labels[0] if self.labels else None
        return self.hysteresis

    def settle(self) -> None:
        """Label what is not labelled yet, and what a model that looks to both sides sees in another light."""
        if self.causal or self.settled == len(self):
            return
        rate = self.card.sample_rate
        first, values = self.window.values(rate)
        labels, probabilities = predict_frames(self.model, values[:, ::rate])
        repeated = np.arange(values.shape[1]) // rate
        again = 0 if first == 0 else len(repeated) // CONTEXT
        again = min(again, self.settled - first) if self.settled >= first else 0
        while len(self.labels) < first:  # after a break that is longer than the window
            self.labels.append(int(labels[0]))
            self.probabilities.append(probabilities[:, 0])
        start = first + again
        self.labels[start:] = labels[repeated[again:]].tolist()
        self.probabilities[start:] = list(probabilities.T[repeated[again:]])
        self.settled = len(self)

    def segments(self, since_s: float = -math.inf) -> Segments:
        """The timeline so far, from a time on."""
        self.settle()
        first = min(bisect_left(self.times, since_s), len(self) - 1)
        return Segments.from_frames(
            np.array(self.labels[first:]),
            self.card.classes,
            video=self.video,
            times=np.array(self.times[first:]),
            frame_probs=np.stack(self.probabilities[first:], axis=1),
        )


def is_causal(model: Any) -> bool:
    """Whether the label of a step depends on that step alone, so that it can be given at once."""
    return isinstance(model, FrameLinear) and not model.config.median_window


def hold_steps(hold_s: float, step_s: float, sample_rate: int) -> int:
    """Steps of the model that a class has to lead."""
    return max(1, round(hold_s / (step_s * sample_rate)))
