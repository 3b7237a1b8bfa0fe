"""What a stream says at a moment: what is done now, what is next, when, and how sure that is.

Legend: S samples, T coming steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from framecast.data.futures_files import BRIEF, LIKELY_RANGE, is_single
from framecast.structures import Futures, Segments

NAMED = 5  # next actions in a record
SURE_S = 1e-6


@dataclass(frozen=True)
class Next:
    """An action that may come next, and in how many seconds it starts."""

    label: int | None  # None = what is done now goes on to the horizon
    probability: float
    in_s: float  # median of the futures that have it next
    earliest_s: float  # 10 % of them start it by then
    latest_s: float  # 90 %


def next_actions(futures: Futures, now: int) -> list[Next]:
    """What the samples have as first action other than `now`, the most probable first.

    Runs shorter than 1/100 of the horizon are flicker, not actions. A model that draws one sample but gives
    probabilities per step: the probability is that of the best step of the action.
    """
    step_s = futures.step_s or 1.0
    starts: dict[int | None, list[int]] = {}
    for sample in futures.samples:
        label, start = _first_other(sample, now)
        starts.setdefault(label, []).append(start)
    found = []
    for label, steps in starts.items():
        early, middle, late = step_s * np.quantile(steps, (LIKELY_RANGE[0], 0.5, LIKELY_RANGE[1]))
        share = len(steps) / len(futures)
        if is_single(futures):
            best = futures.probabilities[:, steps[0] :]
            share = float(best[label].max() if label is not None else futures.probabilities[now].min())
        found.append(Next(label, share, float(middle), float(early), float(late)))
    return sorted(found, key=lambda one: (-one.probability, one.in_s, -1 if one.label is None else one.label))


def _first_other(labels: np.ndarray, now: int) -> tuple[int | None, int]:
    """First lasting run of labels (T,) that is not `now`, and its start; None and T where there is none."""
    edges = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1], True])
    for start, end in pairwise(edges):
        if labels[start] != now and (end - start) * BRIEF >= len(labels):
            return int(labels[start]), int(start)
    return None, len(labels)


@dataclass(frozen=True)
class Moment:
    """What was seen up to a time, and what may follow."""

    time_s: float
    seen: Segments  # as much of it as the anticipation model is shown
    futures: Futures | None
    took_s: float  # to draw the futures
    delay_s: float | None  # from when this was shown to when the futures were there; None = a file, unpaced
    skipped: int = 0  # steps so far that came too late to be looked at
    missed: int = 0  # forecasts so far that were due while another one was being drawn

    @property
    def now(self) -> str:
        return self.seen.names[-1]

    @property
    def since_s(self) -> float:
        """For how long this has been going on."""
        limits = self.seen.limits_s
        return 0.0 if limits is None else max(0.0, self.time_s - float(limits[-1, 0]))

    @property
    def entropy(self) -> float | None:
        """Bits, mean over the horizon."""
        return None if self.futures is None else float(self.futures.entropy.mean())

    def next(self) -> list[Next]:
        return [] if self.futures is None else next_actions(self.futures, self._now_label())

    def _now_label(self) -> int:
        """The class of now, numbered as the futures number it."""
        assert self.futures is not None
        return self.futures.classes.index(self.now) if self.now in self.futures.classes else -100

    def record(self) -> dict[str, Any]:
        """For a line of JSON."""
        coming = self.next()
        going_on = [one.probability for one in coming if one.label is None]
        values: dict[str, Any] = {
            "time_s": round(self.time_s, 3),
            "now": self.now,
            "since_s": round(self.since_s, 3),
        }
        if self.futures is not None:
            actions = [one for one in coming if one.label is not None][:NAMED]
            values |= {
                "next": [self._named(one) for one in actions],
                "no_change": round(sum(going_on), 4),
                "entropy_bits": round(self.entropy or 0.0, 4),
                "most_probable": self._most_probable(),
            }
        delay = None if self.delay_s is None else round(self.delay_s, 3)
        values |= {"took_s": round(self.took_s, 3), "delay_s": delay}
        return values | {"skipped_steps": self.skipped, "missed_forecasts": self.missed}

    def _named(self, one: Next) -> dict[str, Any]:
        assert self.futures is not None
        assert one.label is not None
        times = {key: round(getattr(one, key), 3) for key in ("in_s", "earliest_s", "latest_s")}
        return {"label": self.futures.classes[one.label], "probability": round(one.probability, 4)} | times

    def _most_probable(self) -> list[dict[str, Any]]:
        assert self.futures is not None
        segments, step_s = self.futures.segments(), self.futures.step_s or 1.0
        limits = self.time_s + step_s * np.stack([segments.starts, segments.ends], axis=1)
        return [
            {"label": name, "start_s": round(float(start), 3), "end_s": round(float(end), 3)}
            for name, (start, end) in zip(segments.names, limits, strict=True)
        ]

    def line(self) -> str:
        """ "0:25  now stir for 12 s  next pour 64 % in 8 s (5–11)  entropy 1.32 bits" """
        parts = [f"{clock(self.time_s)}  now {self.now} for {self.since_s:.0f} s"]
        if self.futures is not None:
            parts += [self._next_words(), f"entropy {self.entropy:.2f} bits"]
        if self.delay_s is not None:
            parts.append(f"delay {self.delay_s:.1f} s")
        if self.skipped:
            parts.append(f"{self.skipped} steps skipped")
        if self.missed:
            parts.append(f"{self.missed} forecasts missed")
        return "  ".join(parts)

    def _next_words(self) -> str:
        assert self.futures is not None
        best = self.next()[0]
        if best.label is None:
            horizon = self.futures.num_steps * (self.futures.step_s or 1.0)
            return f"next no change {best.probability:.0%} in {horizon:.0f} s"
        early, late = best.earliest_s, best.latest_s
        spread = f" ({early:.0f}–{late:.0f})" if late - early >= 1 else ""
        return f"next {self.futures.classes[best.label]} {best.probability:.0%} in {best.in_s:.0f} s{spread}"


def clock(time_s: float) -> str:
    """ "0:25.0", "1:02:03.5" """
    tenths = round(10 * time_s)
    hours, minutes, seconds = tenths // 36_000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02d}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"


def came_true(records: Sequence[dict[str, Any]], seen: Segments, horizon_s: float) -> tuple[int, int]:
    """In how many of how many forecasts the action named first is the one that the timeline shows next.

    records: of `Moment.record`. Counted are forecasts that another action follows within the horizon; what
    happened is what the stream itself saw.
    """
    limits = seen.limits_s
    if limits is None:
        return 0, 0
    right = total = 0
    for record in records:
        place = int(np.searchsorted(limits[:, 1], record["time_s"] - SURE_S))
        after = next((i for i in range(place, len(seen)) if seen.names[i] != record["now"]), None)
        if after is None or limits[after, 0] > record["time_s"] + horizon_s or not record.get("next"):
            continue
        total += 1
        right += record["next"][0]["label"] == seen.names[after]
    return right, total
