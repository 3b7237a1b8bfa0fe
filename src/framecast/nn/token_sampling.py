"""Adaptive token sampling: which tokens of an input are worth keeping (Fayyaz et al., ECCV 2022,
https://arxiv.org/abs/2111.15667).

A patch is as significant as the class token uses it: its share of the class token's attention, times how long
its value vector is. The sorted shares add up to a distribution, and evenly spaced points on that curve pick
the patches next to them. Several points may pick one patch, so that an input whose significance lies in few
patches keeps few.

Decisions are made in float32. Everything is batched: a row holds the slots of one sequence, dead slots score
-1, and nothing that one row holds changes another. Of slots with equal scores the lower one counts as less
significant.
Shapes: U sequences, M slots of patches, H heads, K sample points.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Grid = Literal["release", "paper"]
Selection = Literal["sampled", "top", "random", "stride"]


class Choice(NamedTuple):
    """Which slots stay."""

    order: Tensor  # (U, M) slots by ascending score, dead ones first
    kept: Tensor  # (U, M) bool: whether the slot order[u, m] stays


def significance(attention: Tensor, value_norms: Tensor, alive: Tensor | None = None) -> Tensor:
    """Shares (U, M) that add up to 1 over the patches of a sequence; dead slots are -1.

    attention: (U, M, H) of the class token to each patch, after its softmax over all tokens.
    value_norms: (U, M), of the value vectors with all heads side by side, as the release has it.
    alive: (U, M) bool, None = all.
    """
    score = attention.float().sum(-1) * value_norms.float()
    if alive is None:
        return score / score.sum(-1, keepdim=True)
    score = score.masked_fill(~alive, 0.0)
    return (score / score.sum(-1, keepdim=True)).masked_fill(~alive, -1.0)


def normalised_cdf(
    ranked: Tensor,
    dead: Tensor | None = None,
    *,
    grid: Grid = "release",
    from_zero: Tensor | None = None,
) -> Tensor:
    """The curve (U, M) over ascending scores; it ends at 1, and holds NaN where it has no height.

    The release lets it begin at its own first value: 0 where a slot was removed, else the score of the least
    significant patch, which then can never be picked. from_zero (U,) says where the first case holds. The
    paper's curve always begins at 0. dead: (U, M) bool, None = none are.
    """
    summed = (ranked if dead is None else ranked.masked_fill(dead, 0.0)).cumsum(-1)
    if grid == "paper":
        return summed / summed[:, -1:]
    if dead is None:
        origin = summed[:, :1]
    else:
        origin = summed.gather(1, dead.sum(-1, keepdim=True).clamp(max=ranked.shape[1] - 1))
    if from_zero is not None:
        origin = origin.masked_fill(from_zero[:, None], 0.0)
    cdf = (summed - origin) / (summed[:, -1:] - origin)
    return cdf if dead is None else cdf.masked_fill(dead, 0.0)


def sample_points(cdf: Tensor, num_points: int, grid: Grid = "release") -> Tensor:
    """Heights (U, K) at which the curve is read.

    Release: evenly from the smallest positive value of the curve to 1. Paper: midpoints of K equal parts.
    """
    if grid == "paper":
        return _even_steps(num_points, cdf.device, midpoints=True).expand(cdf.shape[0], -1).contiguous()
    lowest = cdf.masked_fill(cdf <= 0, 1.0).amin(-1, keepdim=True)
    return lowest + (1.0 - lowest) * _even_steps(num_points, cdf.device)


def _even_steps(count: int, device: torch.device, *, midpoints: bool = False) -> Tensor:
    """0 … 1, or the midpoints of as many parts."""
    steps = torch.arange(count, device=device, dtype=torch.float32)
    return (steps + 0.5) / count if midpoints else steps / max(count - 1, 1)


def nearest(cdf: Tensor, heights: Tensor) -> Tensor:
    """Positions (U, K) where the curve is nearest to the heights; the first of equally near ones."""
    halfway = torch.lerp(cdf[:, :-1], cdf[:, 1:], 0.5)
    picked = torch.searchsorted(halfway, heights)
    return torch.searchsorted(cdf, cdf.gather(1, picked))  # the first of steps that have no height


def sample_tokens(
    scores: Tensor,
    num_points: int,
    *,
    full: bool = False,
    grid: Grid = "release",
    from_zero: Tensor | None = None,
) -> Choice:
    """Inverse-transform sampling of the slots, scores (U, M).

    Only the num_points most significant slots are candidates. Where the curve has no height (no scores above
    0, a single patch, numbers that are not finite) all candidates that are alive stay.
    full: nothing is dead, which saves some steps.
    """
    ranked, order = scores.float().sort(dim=-1, stable=True)
    slots = ranked.shape[1]
    if not slots:
        return Choice(order, ranked < 0)
    dead = None if full else ranked < 0
    cdf = normalised_cdf(ranked, dead, grid=grid, from_zero=from_zero)
    picked = nearest(cdf, sample_points(cdf, num_points, grid)).clamp_(max=slots - 1)  # beyond it where NaN
    useless = ~(cdf[:, -1:] > 0)  # NaN, from 0 / 0
    lowest = max(slots - num_points, 0)  # of the candidates
    if dead is not None:
        picked = torch.maximum(picked, dead.sum(-1, keepdim=True).clamp(max=slots - 1))
    kept = torch.zeros_like(ranked, dtype=torch.bool)
    kept.scatter_(1, picked.clamp(min=lowest) if lowest else picked, True)
    kept[:, lowest:] |= useless
    return Choice(order, kept if dead is None else kept & ~dead)


def choose_tokens(
    scores: Tensor,
    ids: Tensor,
    num_points: int,
    *,
    full: bool = False,
    grid: Grid = "release",
    from_zero: Tensor | None = None,
    select: Selection = "sampled",
    generator: torch.Generator | None = None,
) -> Choice:
    """Sampled tokens, or for comparison as many others, scores and ids (U, M).

    "top": the most significant. "random": any. "stride": spread evenly over the patches in the order of
    their ids.
    """
    choice = sample_tokens(scores, num_points, full=full, grid=grid, from_zero=from_zero)
    if select == "sampled":
        return choice
    order, slots = choice.order, scores.shape[1]
    count = choice.kept.sum(-1, keepdim=True)
    if select == "top":
        return Choice(order, torch.arange(slots, device=scores.device) >= slots - count)
    dead = scores < 0
    if select == "random":
        draw = torch.rand(scores.shape, generator=generator, device=scores.device).masked_fill(dead, -1.0)
        kept = _ranks(draw) >= slots - count
    else:
        alive = (~dead).sum(-1, keepdim=True).clamp(min=1)
        rank = _ranks(ids.masked_fill(dead, torch.iinfo(ids.dtype).max))
        kept = ((rank + 1) * count // alive > rank * count // alive) & ~dead
    return Choice(order, kept.gather(1, order))


def _ranks(values: Tensor) -> Tensor:
    """Place of each value of a row in ascending order."""
    return values.argsort(dim=-1, stable=True).argsort(dim=-1)
