"""The native kernels score and sample tokens as the definition in `nn/token_sampling.py` does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from framecast.nn.ragged import Ragged
from framecast.nn.token_sampling import sample_tokens, significance
from framecast.ops.token_sampling_native import sampled_tokens, token_scores

pytestmark = pytest.mark.usefixtures("kernels")
CPU = torch.device("cpu")


def scores_by_definition(q: Tensor, k: Tensor, v: Tensor, layout: Ragged, prefix: int, heads: int) -> Tensor:
    logits = layout.pad((k * q[layout.owners]).unflatten(-1, (heads, -1)).sum(-1), float("-inf"))
    norms, alive = layout.pad(v.norm(dim=-1), 0.0), layout.taken[:, prefix:]
    return significance(logits.softmax(1)[:, prefix:], norms[:, prefix:], alive)


@pytest.mark.parametrize(
    ("heads", "width", "prefix", "patches"),
    [(1, 4, 1, [5]), (3, 20, 1, [7, 30, 1]), (6, 64, 2, [94, 94]), (2, 8, 5, [0, 3, 17]), (3, 64, 1, [196])],
)
def test_scores(heads: int, width: int, prefix: int, patches: list[int]) -> None:
    torch.manual_seed(0)
    layout = Ragged([prefix + n for n in patches], CPU)
    k, v = torch.randn(layout.rows, 2 * heads * width).chunk(2, dim=-1)
    q = 0.3 * torch.randn(len(patches), heads * width)
    scores = token_scores(q, k, v, layout.firsts, layout.counts, prefix, heads)
    assert_close(scores, scores_by_definition(q, k, v, layout, prefix, heads), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("grid", ["release", "paper"])
@pytest.mark.parametrize("seed", range(20))
def test_choices(grid: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randint(0, 60, (5,), generator=generator).tolist()
    layout, prefix, slots = Ragged([2 + n for n in patches], CPU), 2, max(patches)
    scores = (3 * torch.randn(5, slots, generator=generator)).exp()
    scores = scores.masked_fill(torch.arange(slots) >= torch.tensor(patches)[:, None], -1.0)
    points = int(torch.randint(2, 80, (1,), generator=generator))
    from_zero = (torch.rand(5, generator=generator) < 0.5).tolist()
    choice = sample_tokens(scores, points, grid=grid, from_zero=torch.tensor(from_zero))
    expected, smaller = layout.pick(*choice, prefix)
    rows, counts = sampled_tokens(
        scores, layout.firsts, prefix, points, paper=grid == "paper", from_zero=from_zero
    )
    assert counts == smaller.counts
    assert torch.equal(rows, expected)


@pytest.mark.parametrize("points", [2, 6])
@pytest.mark.parametrize(
    "scores",
    [
        [0.0] * 6,
        [float("nan")] * 6,
        [float("inf")] * 6,
        [0.125] * 6,
        [-1.0, 0.4, -1.0, -1.0, -1.0, -1.0],
        [-1.0] * 6,
        [0.0, 0.5, 0.0, 0.5, 0.0, 0.0],
        [0.3, float("nan"), 0.2, -1.0, 0.1, 0.4],
    ],
)
def test_degenerate_scores(scores: list[float], points: int) -> None:
    given = torch.tensor([scores])
    expected, _ = Ragged([7], CPU).pick(*sample_tokens(given, points), 1)
    assert torch.equal(sampled_tokens(given, [0], 1, points)[0], expected)
