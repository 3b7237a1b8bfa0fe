"""Reliability of probabilities: how often comes true what was said to be so likely.

Above, observed frequency against confidence, where a model that means what it says lies on the diagonal;
below, how many predictions fall into each bin of confidence. All lengths are inches.
Source: Guo et al., ICML 2017 (https://arxiv.org/abs/1706.04599). Legend: M bins of equal width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from framecast.viz.canvas import FAINT, HAIRLINE, INK, Page, font, shortened
from framecast.viz.palette import class_color, clean

Bins = tuple[np.ndarray, np.ndarray, np.ndarray]  # confidence, accuracy, count of each bin (M,)

PLOT, HISTOGRAM = 3.9, 0.85
LEFT, TOP, GAP, BOTTOM = 0.86, 0.32, 0.42, 0.62
LEGEND, ROW = 2.55, 0.44
MARGIN = 0.32
NAME_SIZE, SMALL, AXIS_SIZE = 9.5, 8.5, 9.5
RARE = 0.005  # bins with a smaller share of the predictions are small dots, off the line
TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Reliability:
    """Bins of one model; counts may be shares."""

    name: str
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, name: str, bins: Bins) -> Reliability:
        """Raises ValueError for arrays that are no bins."""
        confidence, accuracy, count = (np.asarray(values, dtype=np.float64) for values in bins)
        if confidence.ndim != 1 or not confidence.shape == accuracy.shape == count.shape:
            shapes = f"{confidence.shape}, {accuracy.shape} and {count.shape}"
            raise ValueError(f"{name!r} has bins of shapes {shapes}; pass three vectors of equal length")
        if not np.isfinite(count).all() or (count < 0).any() or not count.any():
            raise ValueError(f"{name!r} has no predictions in its bins, or counts that are no counts")
        filled = np.stack([confidence, accuracy])[:, count > 0]
        if not ((filled >= 0) & (filled <= 1 + 1e-9)).all():
            raise ValueError(f"{name!r} has confidences or accuracies outside 0..1; pass shares, not percent")
        return cls(clean(name), confidence, accuracy, count)

    @property
    def shares(self) -> np.ndarray:
        """(M,) share of all predictions in each bin."""
        return self.count / self.count.sum()

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of accuracy and confidence over predictions."""
        filled = self.count > 0
        return float((self.shares * np.abs(self.confidence - self.accuracy))[filled].sum())


def draw_calibration(curves: Mapping[str, Bins], path: str | Path, *, title: str = "") -> Path:
    """Draw reliability curves of named models and a histogram of their confidences, and write a PNG.

    curves: name -> (mean confidence, accuracy, count) of each bin, (M,) each; the bins part 0..1 equally.
    Bins without predictions are left out. Raises ValueError for other arrays and without models.
    """
    if not curves:
        raise ValueError("no model to draw; pass at least one name with its bins")
    models = [Reliability.of(name, bins) for name, bins in curves.items()]
    top = TOP + (0.36 if title else 0.0)
    height = max(top + PLOT + GAP + HISTOGRAM + BOTTOM, top + 0.5 + ROW * (len(models) + 1))
    page = Page(LEFT + PLOT + 0.3 + LEGEND, height)
    if title:
        words = shortened(clean(title), 13, page.width - 2 * MARGIN, True)
        page.text(MARGIN, 0.36, words, 13, bold=True)
    draw_reliability(page, models, top)
    draw_histogram(page, models, top + PLOT + GAP)
    draw_legend(page, models, LEFT + PLOT + 0.3, top)
    return page.save(path)


def draw_reliability(page: Page, models: list[Reliability], top: float) -> None:
    for tick in TICKS:
        x, y = LEFT + PLOT * tick, top + PLOT * (1 - tick)
        page.line((LEFT, LEFT + PLOT), (y, y))
        page.line((x, x), (top, top + PLOT))
        page.text(LEFT - 0.08, y, f"{tick:.0%}", SMALL, FAINT, align="right")
    page.axes.plot((LEFT, LEFT + PLOT), (top + PLOT, top), color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)))
    page.text(LEFT + 0.14, top + 0.2, "happens more often than said", SMALL, FAINT)
    page.text(
        LEFT + PLOT - 0.14, top + PLOT - 0.2, "happens less often than said", SMALL, FAINT, align="right"
    )
    upright(page, "how often it came true", 0.2, top + PLOT / 2)
    for i, model in enumerate(models):
        x = LEFT + PLOT * model.confidence
        y = top + PLOT * (1 - model.accuracy)
        color, order = class_color(i), 3 + i / 100
        many, few = model.shares >= RARE, (model.shares > 0) & (model.shares < RARE)
        page.axes.plot(
            x[many], y[many], color=color, lw=1.8, marker="o", ms=5, mec="white", mew=0.8, zorder=order
        )
        page.axes.plot(x[few], y[few], color=color, lw=0, marker="o", ms=2.6, mew=0, alpha=0.6, zorder=order)


def draw_histogram(page: Page, models: list[Reliability], top: float) -> None:
    """Bars side by side in each bin, as a share of all predictions."""
    highest = max(float(model.shares.max()) for model in models)
    for i, model in enumerate(models):
        bins = len(model.shares)
        wide = PLOT / bins
        bar = wide * 0.84 / len(models)
        for k, share in enumerate(model.shares):
            tall = HISTOGRAM * share / highest
            x = LEFT + k * wide + 0.08 * wide + i * bar
            page.box(x, top + HISTOGRAM - tall, bar, tall, class_color(i))
    page.line((LEFT, LEFT + PLOT), (top, top), HAIRLINE)
    page.line((LEFT, LEFT + PLOT), (top + HISTOGRAM, top + HISTOGRAM), "#aab1bb")
    page.text(LEFT - 0.08, top, f"{highest:.0%}" if highest >= 0.01 else "<1%", SMALL, FAINT, align="right")
    page.text(LEFT - 0.08, top + HISTOGRAM, "0%", SMALL, FAINT, align="right")
    upright(page, "predictions", 0.2, top + HISTOGRAM / 2)
    for tick in TICKS:
        x = LEFT + PLOT * tick
        page.line((x, x), (top + HISTOGRAM, top + HISTOGRAM + 0.05), FAINT)
        page.text(x, top + HISTOGRAM + 0.15, f"{tick:.0%}", SMALL, FAINT, align="center")
    page.text(
        LEFT + PLOT / 2, top + HISTOGRAM + 0.39, "how likely it was said to be", AXIS_SIZE, align="center"
    )


def upright(page: Page, text: str, x: float, y: float) -> None:
    page.axes.text(
        x, y, text, rotation=90, fontproperties=font(AXIS_SIZE), color=INK, ha="center", va="center"
    )


def draw_legend(page: Page, models: list[Reliability], left: float, top: float) -> None:
    """Names with their calibration error and number of predictions, in the order given."""
    page.axes.plot(
        (left, left + 0.3), (top + 0.1, top + 0.1), color=FAINT, linewidth=1.0, linestyle=(0, (4, 3))
    )
    page.text(left + 0.4, top + 0.1, "means what it says", SMALL, FAINT)
    if any(((model.shares > 0) & (model.shares < RARE)).any() for model in models):
        y = top + 0.42 + ROW * len(models)
        page.axes.plot((left + 0.15,), (y,), color=FAINT, marker="o", ms=2.6, mew=0)
        page.text(left + 0.4, y, f"under {RARE:.1%} of the predictions", SMALL, FAINT)
    for i, model in enumerate(models):
        y = top + 0.42 + i * ROW
        page.axes.plot(
            (left, left + 0.15, left + 0.3), (y, y, y), color=class_color(i), lw=1.8, marker="o",
            markevery=[1], ms=5, mec="white", mew=0.8,
        )  # fmt: skip
        page.text(left + 0.4, y, shortened(model.name, NAME_SIZE, LEGEND - 0.55, True), NAME_SIZE, bold=True)
        page.text(left + 0.4, y + 0.18, said(model), SMALL, FAINT)


def said(model: Reliability) -> str:
    """Calibration error, and the number of predictions where counts were given."""
    total = model.count.sum()
    counted = total > 1.5 and np.allclose(model.count, model.count.round())
    number = f" · {total:,.0f} predictions".replace(",", "\u2009") if counted else ""
    return f"ECE {model.error:.1%}{number}"
