"""The dial: one number of what a model may cost is met on your own images, by searching its budgets.

    model, report = fc.calibrate(fc.load("runs/flowers"), "photos/", macs=0.5)
    print(report)
    fc.save(model, "flowers-adaptive")       # samples as calibrated wherever it is loaded

Blocks are the published ones, the last three quarters; where these leave out more than is wanted at any
budget, sampling begins in a later block. With blocks="search" other spreads are tried too, and of those that
meet the target the one is taken that moves the model's answers least. Nothing is trained, and no labels are
read.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from framecast.backbones.adaptive import adaptive
from framecast.backbones.adaptive_model import AdaptiveModel
from framecast.checkpoints import card_of
from framecast.infer.calibration_images import calibration_pixels
from framecast.infer.token_calibration import Calibration, Unit
from framecast.infer.token_search import Search

__all__ = ["Calibration", "calibrate"]

AT_ONCE = 16  # images that go through together where no time is measured


def calibrate(
    model: nn.Module,
    images: Tensor | str | Path | Sequence[str | Path],
    *,
    macs: float | None = None,
    tokens: float | None = None,
    ms: float | None = None,
    blocks: Sequence[int] | Literal["search"] | None = None,
    tolerance: float | None = None,
    limit: int = 64,
    batch: int | None = None,
) -> tuple[AdaptiveModel, Calibration]:
    """A model that keeps as many tokens as one number allows, on the average of your own images.

    model: what `fc.adaptive` takes, or what it made, whose other settings then stay. images: (N, 3, H, W) or
    (N, 3, T, H, W) normalised, or files or folders, of which `limit` are read, evenly spread. One of
    macs: multiply-adds of an input, or a share of the unmodified model's below 1; tokens: that are left after
    the last stage, or a share of all below 1; ms: wall-clock time of an input in a batch of `batch`
    (1 by default). tolerance: share of the target, by default 1 %, of times 10 %. ValueError where the target
    cannot be met.
    """
    unit, value = one_target(macs=macs, tokens=tokens, ms=ms)
    base = model if isinstance(model, AdaptiveModel) else adaptive(model)
    if batch is not None and batch < 1:
        raise ValueError(f"batch is {batch}; at least one image goes through at a time")
    device = next(base.parameters()).device
    pixels = calibration_pixels(base, images, limit).to(device)
    was_training = base.training
    base.eval()
    try:
        search = Search(base, pixels, unit, value, tolerance, batch or (1 if unit == "ms" else AT_ONCE))
        spreads = search.spreads(blocks)
        made, report = search.best(spreads) if blocks == "search" else search.meet(spreads)
    finally:
        base.train(was_training)
    if not report.met:
        warnings.warn(f"{report.dial()}: times vary here; give a larger tolerance", stacklevel=2)
    if getattr(made, "registered_name", None) is not None:
        card = card_of(made)
        notes = card.notes | {"calibration": report.to_json() | {"dial": report.dial()}}
        made.card = replace(card, notes=notes)  # ty: ignore[invalid-assignment]
    return made.train(was_training), report


def one_target(**given: float | None) -> tuple[Unit, float]:
    """The one number that was given; ValueError otherwise."""
    asked = {name: value for name, value in given.items() if value is not None}
    if len(asked) != 1:
        found = " and ".join(asked) or "none"
        raise ValueError(f"the dial is one number, macs, tokens or ms; given are {found}")
    ((name, value),) = asked.items()
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}; it must be above 0")
    if value == 1 and name != "ms":
        raise ValueError(f"{name} is 1, which is the unmodified model; give a share below 1, or a number")
    return name, value  # ty: ignore[invalid-explicit-return]
