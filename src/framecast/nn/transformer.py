"""The pre-norm Transformer block and its parts.

Shapes: B batch, N tokens, D width.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from framecast.nn.attention import SelfAttention

Gelu = Literal["erf", "tanh"]


class Mlp(nn.Module):
    """Two linear maps with a GELU between them; "erf" is exact, "tanh" the approximation of JAX releases."""

    def __init__(self, width: int, hidden: int, gelu: Gelu = "erf") -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU(approximate="tanh" if gelu == "tanh" else "none")
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class LayerScale(nn.Module):
    """One learned factor per channel on a residual branch (Touvron et al., 2021, CaiT, eq. 1)."""

    def __init__(self, width: int, init: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class DropPath(nn.Module):
    """Skips a residual branch for whole samples while training (Huang et al., 2016, stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * keep / (1.0 - self.rate)


class Block(nn.Module):
    """Tokens exchange messages, then each one thinks alone."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        gelu: Gelu = "erf",
        norm_eps: float = 1e-6,
        layer_scale: bool = False,
        drop_path: float = 0.0,
        attention: type[SelfAttention] | partial[SelfAttention] = SelfAttention,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = attention(width, num_heads, qkv_bias=qkv_bias)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, round(width * mlp_ratio), gelu)
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, num_out: int | None = None) -> Tensor:  # (B, N, D) -> (B, N, D)
        """num_out: only the first so many tokens are wanted, as the class token after the last block."""
        x = x[:, :num_out] + self.drop_path(self.ls1(self.attn(self.norm1(x), num_out)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


def init_transformer(model: nn.Module) -> None:
    """DeiT: linear maps ~ truncated normal 0.02, biases 0; norms and convolutions as torch has them."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
