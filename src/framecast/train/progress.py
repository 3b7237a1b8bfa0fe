"""What a run has reached; stored with every checkpoint, so a resumed run reports like an unbroken one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from framecast.registry import did_you_mean


@dataclass
class Progress:
    """Counters, means of the log under way, evaluations."""

    step: int = 0  # optimiser steps taken, skipped ones included
    skipped: int = 0  # steps left out because loss or gradient was not finite
    skipped_in_a_row: int = 0  # until now
    best: dict[str, Any] | None = None  # {"step", "epoch", "metrics"} of the kept weights
    last: dict[str, Any] | None = None  # the same of the newest evaluation
    sums: dict[str, float] = field(default_factory=dict)  # since the last line of the log
    summed: int = 0  # steps in `sums`
    seconds: float = 0.0  # wall time over all sessions

    def add(self, values: dict[str, float]) -> None:
        self.summed += 1
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value

    def take_means(self) -> dict[str, float]:
        """Means since they were last taken; empty if all steps were skipped."""
        means = {key: value / self.summed for key, value in self.sums.items()}
        self.sums, self.summed = {}, 0
        return means

    def improves(self, metrics: dict[str, float], select: str, mode: Literal["max", "min"]) -> bool:
        """Whether these metrics are the best so far; ValueError for a metric that is not there."""
        check_metric(select, metrics)
        if self.best is None or math.isnan(self.best["metrics"][select]):
            return True
        sign = 1 if mode == "max" else -1
        return sign * metrics[select] > sign * self.best["metrics"][select]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_metric(select: str, names: Iterable[str]) -> None:
    """ValueError if `select` is none of the metrics' names."""
    names = list(names)
    if select not in names:
        raise ValueError(
            f"select={select!r} is no metric of this task{did_you_mean(select, names)}; it measures "
            f"{', '.join(names)}"
        )
