"""Time axes: where the ticks stand and how moments are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from framecast.structures import Segments

SECOND_STEPS = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    14400,
    43200,
    86400,
)


def format_time(seconds: float, decimals: int = 0) -> str:
    """Seconds as m:ss, or h:mm:ss from an hour on, for example "1:05" or "0:04.2"."""
    ticks = round(max(seconds, 0.0) * 10**decimals)
    whole, rest = divmod(ticks, 10**decimals)
    minutes, second = divmod(whole, 60)
    tail = f".{rest:0{decimals}d}" if decimals else ""
    if minutes < 60:
        return f"{minutes}:{second:02d}{tail}"
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}{tail}"


@dataclass(frozen=True)
class TimeAxis:
    """The common axis of rows that are shown together, from `start` to `end`."""

    unit: Literal["seconds", "frames"]
    end: float
    start: float = 0.0

    @property
    def span(self) -> float:
        return self.end - self.start

    def position(self, value: float) -> float:
        """Share of the axis, 0 at its start and 1 at its end."""
        return min(max((value - self.start) / self.span, 0.0), 1.0) if self.span else 0.0

    def ticks(self, at_most: int) -> list[tuple[float, str]]:
        """Values and texts of round ticks, at most so many."""
        step = tick_step(self.span, max(at_most, 2), self.unit)
        first, last = math.ceil(self.start / step - 1e-6), int(self.end / step + 1e-6)
        values = [step * i for i in range(first, last + 1)]
        if self.unit == "frames":
            return [(v, f"{v:,.0f}".replace(",", "\u2009")) for v in values]
        return [(v, format_time(v, decimals=0 if step >= 1 else 1)) for v in values]

    def text(self, value: float) -> str:
        """A moment to a tenth of a second, or a frame number."""
        return format_time(value, 1) if self.unit == "seconds" else f"{value:.0f}"

    def length(self, value: float) -> str:
        """A duration in words, for example "4.2 s", "1:05 min" or "37 frames"."""
        if self.unit == "frames":
            return f"{value:.0f} frame{'' if round(value) == 1 else 's'}"
        if value < 59.95:
            return f"{value:.1f} s"
        return f"{format_time(value)} {'min' if value < 3599.5 else 'h'}"


def tick_step(span: float, at_most: int, unit: str) -> float:
    """The smallest round step that gives at most so many ticks on an axis of that length."""
    steps: Sequence[float] = SECOND_STEPS
    if unit == "frames":
        steps = [base * 10**power for power in range(9) for base in (1, 2, 5)]
    return next((step for step in steps if span / step + 1 <= at_most), span / (at_most - 1))


def common_axis(rows: Sequence[Segments]) -> tuple[TimeAxis, list[np.ndarray]]:
    """The axis of rows and the limits (N, 2) of the segments of each, in its unit.

    Seconds where the frame times are known. A row without times borrows those of a row of equal length.
    Raises ValueError where that is not possible, and for a row without segments.
    """
    if not rows or any(len(row) == 0 for row in rows):
        raise ValueError("a timeline needs at least one row and one segment in every row")
    times = {row.num_frames: row.times for row in rows if row.times is not None}
    limits = []
    for row in rows:
        if times and row.num_frames not in times:
            raise ValueError(
                f"a row of {row.num_frames} frames has no frame times, while others have times for "
                f"{', '.join(str(n) for n in times)} frames; give all rows times or none"
            )
        timed = row if row.times is not None else replace(row, times=times.get(row.num_frames))
        in_frames = np.stack([row.starts, row.ends], axis=1).astype(np.float64)
        limits.append(in_frames if timed.limits_s is None else timed.limits_s)
    end = max(float(one[-1, 1]) for one in limits)
    return TimeAxis("seconds" if times else "frames", end), limits
