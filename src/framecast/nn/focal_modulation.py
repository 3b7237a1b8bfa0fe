"""Focal modulation: what surrounds a pixel, gathered at growing distance, modulates it (Yang et al., 2022,
https://arxiv.org/abs/2203.11926).

    [q | context | gates] = W x;  context_l = GELU(depthwise conv_l(context_{l-1}))
    out = W_o (q · W_c (Σ_l gate_l context_l + gate_K GELU(mean over the map of context_K)))

Large maps at inference go through in bands of rows (`FocalBlock.in_bands`): the same numbers up to rounding,
while only three maps exist at a time: the block's own, q and the gathered context.
Shapes: B batch, H rows, W columns, C channels, K focal levels; maps are channel-last.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.nn.map_layers import (
    ConvolutionByRows,
    MapMlp,
    PointConv,
    channels_first,
    channels_last,
    row_bands,
)
from framecast.nn.transformer import DropPath, LayerScale
from framecast.ops import native_library


class FocalModulation(nn.Module):
    """Pixels modulated by their surroundings; level l looks at `window` + 2 l pixels of the level before."""

    def __init__(
        self,
        width: int,
        *,
        levels: int = 3,
        window: int = 3,
        normalise: bool = False,
        post_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if levels < 1 or window % 2 == 0:
            raise ValueError(f"{levels} focal levels of window {window}; have 1 or more, of odd windows")
        self.width = width
        self.normalise = normalise  # the sum over levels by their number
        self.project_in = nn.Linear(width, 2 * width + levels + 1)
        kernels = range(window, window + 2 * levels, 2)
        self.focal = nn.Sequential(
            *(nn.Conv2d(width, width, k, padding=k // 2, groups=width, bias=False) for k in kernels)
        )
        self.project_context = PointConv(width, width)
        self.norm = nn.LayerNorm(width) if post_norm else nn.Identity()
        self.project_out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C) -> (B, H, W, C)
        sizes = [self.width, self.width, len(self.focal) + 1]
        q, context, gates = self.project_in(x).split(sizes, dim=-1)
        gathered: Tensor | float = 0.0
        for conv, gate in zip(self.focal, gates.split(1, dim=-1), strict=False):
            context = F.gelu(channels_last(conv(channels_first(context))))
            gathered = gathered + context * gate
        whole = F.gelu(context.mean((1, 2), keepdim=True))
        return self.dropout(self.modulate(q, gathered + whole * gates[..., -1:]))

    def modulate(self, q: Tensor, context: Tensor) -> Tensor:
        """q by the context gathered from all levels."""
        if self.normalise:
            context = context / (len(self.focal) + 1)
        return self.project_out(self.norm(q * self.project_context(context)))


class FocalBlock(nn.Module):
    """Surroundings modulate each pixel, then it thinks alone; both on residual branches."""

    def __init__(
        self,
        width: int,
        *,
        levels: int = 3,
        window: int = 3,
        mlp_ratio: float = 4.0,
        normalise: bool = False,
        post_norm: bool = False,
        post_norm_modulation: bool = False,
        layer_scale: float | None = 0.5**0.5,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.post_norm = post_norm  # norms stand behind modulation and MLP instead of before
        self.norm1 = nn.LayerNorm(width)
        self.modulation = FocalModulation(
            width,
            levels=levels,
            window=window,
            normalise=normalise,
            post_norm=post_norm_modulation,
            dropout=dropout,
        )
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MapMlp(width, int(width * mlp_ratio), dropout)
        self.scale1 = LayerScale(width, layer_scale) if layer_scale else nn.Identity()
        self.scale2 = LayerScale(width, layer_scale) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C) -> (B, H, W, C)
        if native_library.eager_inference() and not self.training and x.device.type == "cpu":
            return torch.stack([self.in_bands(one) for one in x]) if len(x) > 1 else self.in_bands(x[0])[None]
        x = x + self.drop_path(self.branch(x, self.norm1, self.modulation, self.scale1))
        return x + self.drop_path(self.branch(x, self.norm2, self.mlp, self.scale2))

    def branch(self, x: Tensor, norm: nn.Module, layer: nn.Module, scale: nn.Module) -> Tensor:
        return scale(norm(layer(x)) if self.post_norm else layer(norm(x)))

    def in_bands(self, x: Tensor) -> Tensor:  # (H, W, C) -> (H, W, C)
        """The same for one map without gradients, a band of rows at a time."""
        m, channels = self.modulation, x.shape[-1]
        bands = list(row_bands(len(x), 4 * x.shape[1] * channels))
        q, gathered = torch.empty_like(x), torch.zeros_like(x)
        gates = x.new_empty(*x.shape[:2], len(m.focal) + 1)
        levels = [ConvolutionByRows(cast("nn.Conv2d", conv)) for conv in m.focal]
        total = x.new_zeros(channels, dtype=torch.float64)
        for first, last in bands:
            rows = x[first:last] if self.post_norm else self.norm1(x[first:last])
            q[first:last], context, gates[first:last] = m.project_in(rows).split(
                [channels, channels, gates.shape[-1]], dim=-1
            )
            for level, conv in enumerate(levels):
                done = conv.rows_done
                context = F.gelu(conv(context, end=last == len(x)))
                gathered[done : conv.rows_done].addcmul_(
                    context, gates[done : conv.rows_done, :, level, None]
                )
            total += context.sum((0, 1))
        whole = F.gelu(total / (x.shape[0] * x.shape[1])).to(x.dtype)
        out = q  # row by row the answer takes the place of q
        for first, last in bands:
            context = gathered[first:last].addcmul_(gates[first:last, :, -1:], whole)
            modulated = m.modulate(q[first:last], context)
            rows = x[first:last] + self.scale1(self.norm1(modulated) if self.post_norm else modulated)
            out[first:last] = rows + self.branch(rows, self.norm2, self.mlp, self.scale2)
        return out
