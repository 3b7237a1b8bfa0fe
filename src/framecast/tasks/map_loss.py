"""Losses of predicted maps against maps with gaps, as Focal-TSMP is trained.

    L_v = Σ w l(predicted, target) / Σ w + λ P(predicted, target)     for each target v
    L   = Σ_v λ_v L_v

w is 0 where a cell does not count (sea), 1 elsewhere; l is the absolute, squared or Huber difference; P is
the perceptual distance. A missing target counts in Σ w with a difference of zero, as in the release.
Shapes: B batch, T targets, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from framecast.nn.perceptual import PerceptualDistance

Difference = Literal["l1", "l2", "huber"]
HUBER_DELTA = {"NDVI": 0.1, "BT": 1.0}  # in deviations; 1.0 for targets of other names


def map_loss(
    predicted: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    targets: Sequence[str],
    difference: Difference = "l1",
    reduction: Literal["mean", "sum"] = "mean",
    target_weights: Mapping[str, float] | None = None,
    perceptual: PerceptualDistance | None = None,
    perceptual_weight: float = 0.1,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its part per target.

    predicted and target: (B, T, H, W), standardised, NaN where there is no target; weight: (B, H, W), of
    every cell; target_weights: λ_v by name, 1 where a name is missing; perceptual: None leaves P out.
    """
    if predicted.shape != target.shape or predicted.shape[1] != len(targets):
        raise ValueError(
            f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)} must both be "
            f"(B, {len(targets)}, H, W) for the targets {', '.join(targets)}"
        )
    parts: dict[str, Tensor] = {}
    for index, name in enumerate(targets):
        ours, theirs = predicted[:, index], target[:, index]
        theirs = torch.where(torch.isfinite(theirs), theirs, ours.detach())
        weighted = weight * differences(ours, theirs, difference, HUBER_DELTA.get(name, 1.0))
        part = weighted.nansum()
        if reduction == "mean":
            part = part / weight.sum().clamp(min=1e-12)  # a map of sea only costs nothing
        if perceptual is not None and perceptual_weight:
            part = part + perceptual_weight * perceptual(ours, theirs)
        parts[name] = part
    factors = target_weights or {}
    total = torch.stack([factors.get(name, 1.0) * part for name, part in parts.items()]).sum()
    return total, parts


def differences(predicted: Tensor, target: Tensor, kind: Difference, delta: float = 1.0) -> Tensor:
    """Cell by cell."""
    if kind == "l1":
        return F.l1_loss(predicted, target, reduction="none")
    if kind == "l2":
        return F.mse_loss(predicted, target, reduction="none")
    if kind == "huber":
        return F.huber_loss(predicted, target, reduction="none", delta=delta)
    raise ValueError(f"difference is {kind!r}; it is one of l1, l2, huber")
