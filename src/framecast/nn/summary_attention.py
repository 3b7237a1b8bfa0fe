"""One query that sums up a set of tokens: attention with neither keys nor values written down.

With q the query of a head and W_k, W_v its rows of the key and value maps, the score of a token y is
q · W_k y = (W_kᵀ q) · y, and Σ a W_v y = W_v Σ a y. So both maps are applied once for each query instead of
once for each token. A bias of the keys adds the same to all scores and cancels; one of the values is added
as it is, for the shares a sum to one.
Shapes: G sets, N tokens of a set, D width, H heads, d = D / H.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Impl = Literal["auto", "folded", "reference"]
BLOCK = 512  # sets at once: H vectors of the full width are held for each


def summary_attention(
    query: Tensor,
    tokens: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_heads: int,
    scale: float,
    taken: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Every query over the tokens of its own set: (G, D) and (G, N, D) -> (G, D), heads side by side.

    query: (G, D), or (1, D) where all sets are asked the same. key, value: maps (D, D) of the tokens.
    taken: (G, N) bool, the tokens that count; at least one in every set. impl: "folded" as above,
    "reference" with keys and values; "auto" = "folded".
    """
    if impl == "reference":
        return _with_keys_and_values(query, tokens, key, value, num_heads, scale, taken)
    query = rearrange(query * scale, "g (h d) -> h g d", h=num_heads)
    key = rearrange(key, "(h d) c -> h d c", h=num_heads)
    value = rearrange(value, "(h d) c -> h c d", h=num_heads)
    if query.shape[1] == 1:
        return _one_query(query, tokens, key, value, taken)
    if torch.compiler.is_compiling() or tokens.shape[0] <= BLOCK:
        return _own_queries(query, tokens, key, value, taken)
    masks = [None] * len(tokens) if taken is None else taken.split(BLOCK)
    parts = zip(query.split(BLOCK, dim=1), tokens.split(BLOCK), masks, strict=False)
    return torch.cat([_own_queries(q, x, key, value, mask) for q, x, mask in parts])


def _with_keys_and_values(
    query: Tensor,
    tokens: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    scale: float,
    taken: Tensor | None,
) -> Tensor:
    k, v = (rearrange(F.linear(tokens, w), "g n (h d) -> g h n d", h=num_heads) for w in (key, value))
    q = rearrange(query, "g (h d) -> g h 1 d", h=num_heads)
    scores = scale * q @ k.mT
    if taken is not None:
        scores = scores.masked_fill(~taken[:, None, None], -torch.inf)
    return rearrange(scores.softmax(-1) @ v, "g h 1 d -> g (h d)")


def _one_query(query: Tensor, tokens: Tensor, key: Tensor, value: Tensor, taken: Tensor | None) -> Tensor:
    asked = (query @ key)[:, 0]  # (H, D)
    scores = tokens @ asked.mT  # (G, N, H)
    if taken is not None:
        scores = scores.masked_fill(~taken[..., None], -torch.inf)
    mixed = scores.softmax(1).mT @ tokens  # (G, H, D)
    return _values(mixed, value)


def _own_queries(query: Tensor, tokens: Tensor, key: Tensor, value: Tensor, taken: Tensor | None) -> Tensor:
    asked = (query @ key).transpose(0, 1)  # (G, H, D)
    scores = asked @ tokens.mT  # (G, H, N)
    if taken is not None:
        scores = scores.masked_fill(~taken[:, None], -torch.inf)
    return _values(scores.softmax(-1) @ tokens, value)


def _values(mixed: Tensor, value: Tensor) -> Tensor:  # (G, H, D) -> (G, D)
    return rearrange(mixed.transpose(0, 1) @ value, "h g d -> g (h d)")


class SummaryAttention(nn.Module):
    """Queries and tokens are normed apart, and what the tokens say is added to the query.

    The scores are scaled by the full width, not by a head's, as in the release of Video-Panda.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.scale = width**-0.5
        self.norm_query = nn.LayerNorm(width)
        self.norm_tokens = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, query: Tensor, tokens: Tensor, *, impl: Impl = "auto") -> Tensor:
        """(G, D) or (1, D), and (G, N, D) -> (G, D)."""
        key, value = self.key_value.weight.chunk(2)
        heard = summary_attention(
            self.query(self.norm_query(query)),
            self.norm_tokens(tokens),
            key,
            value,
            num_heads=self.num_heads,
            scale=self.scale,
            impl=impl,
        )
        return query + self.proj(heard)
