"""Attention of one query without keys and values gives what keys and values give."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from framecast.nn.summary_attention import BLOCK, Impl, SummaryAttention, summary_attention

WIDTH, HEADS = 24, 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True], ids=["all tokens", "some tokens"])
@pytest.mark.parametrize(
    ("sets", "queries"), [(1, 1), (3, 1), (3, 3), (2 * BLOCK + 5, 2 * BLOCK + 5)], ids=str
)
def test_folded_equals_reference_with_gradients(
    sets: int, queries: int, masked: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    query, tokens, key, value = inputs = [
        torch.randn(*shape, dtype=dtype, requires_grad=True)
        for shape in ((queries, WIDTH), (sets, 5, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH))
    ]
    impls: tuple[Impl, ...] = ("folded", "reference")
    taken = torch.rand(sets, 5) < 0.5
    taken[:, 2] = True
    results = []
    for impl in impls:
        mask = taken if masked else None
        out = summary_attention(query, tokens, key, value, num_heads=HEADS, scale=0.3, taken=mask, impl=impl)
        results.append([out, *torch.autograd.grad(out.square().mean(), inputs)])
    near = 1e-4 if dtype == torch.float32 else 1e-10
    assert results[0][0].shape == (sets, WIDTH)
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, rtol=near, atol=near)
    if masked:
        changed = tokens.detach().masked_fill(~taken[..., None], 7.0)
        again = summary_attention(query, changed, key, value, num_heads=HEADS, scale=0.3, taken=taken)
        assert_close(again, results[0][0], rtol=near, atol=near)


def test_a_bias_of_the_keys_cancels_and_one_of_the_values_is_added() -> None:
    """As torch's own attention, which has both."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    nn.init.normal_(theirs.in_proj_bias)
    query, tokens = torch.randn(1, WIDTH), torch.randn(3, 7, WIDTH)
    wq, wk, wv = theirs.in_proj_weight.chunk(3)
    bq, _, bv = theirs.in_proj_bias.chunk(3)
    with torch.no_grad():
        expected = theirs(query.expand(3, 1, -1), tokens, tokens)[0][:, 0]
        asked = nn.functional.linear(query, wq, bq)
        heard = summary_attention(asked, tokens, wk, wv, num_heads=HEADS, scale=(WIDTH // HEADS) ** -0.5)
        assert_close(theirs.out_proj(heard + bv), expected)


def test_scores_are_scaled_by_the_full_width() -> None:
    layer = SummaryAttention(WIDTH, HEADS)
    assert layer.scale == WIDTH**-0.5
    with pytest.raises(ValueError, match="width 24 is not a multiple of num_heads 5"):
        SummaryAttention(WIDTH, 5)
