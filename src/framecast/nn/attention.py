"""Multi-head self-attention over tokens, fused (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762).

Shapes: B batch, N tokens, D width, H heads, d = D / H.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Every token looks at every token; q, k and v come from one linear map, laid out as [3][H][d]."""

    def __init__(self, width: int, num_heads: int, *, qkv_bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:  # (B, N, D) -> (B, N, D)
        """num_queries: only the first so many tokens are answered, after a look at all of them."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.attend(q[:, :num_queries], k, v)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (B, N, D), heads side by side
        q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=self.num_heads) for t in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.proj(rearrange(x, "b h n d -> b n (h d)"))
