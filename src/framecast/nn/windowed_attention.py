"""Attention inside windows of a map that shift from block to block: Swin Transformer, versions 1 and 2.

Version 1 (Liu et al., 2021, https://arxiv.org/abs/2103.14030): norms before the branches, scaled products,
a learned bias per offset. Version 2 (Liu et al., 2022, https://arxiv.org/abs/2111.09883): norms behind the
branches, cosine attention with a learned temperature, a bias that an MLP computes from the offset.
As in the Focal-TSMP release, pixels that only fill up the last windows take part in attention.
Shapes: B batch, H rows, W columns, C channels, w window, h heads; maps are channel-last.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framecast.nn.map_layers import MapMlp
from framecast.nn.transformer import DropPath

HIDDEN_BIAS = 512  # width of the MLP that gives the bias of version 2
LARGEST_SCALE = math.log(100.0)


class OffsetBias(nn.Module):
    """One learned number per head and offset between two pixels of a window (version 1)."""

    def __init__(self, window: int, num_heads: int) -> None:
        super().__init__()
        self.window = window
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))

    def forward(self, window: int) -> Tensor:  # (h, w², w²)
        table = self.table.unflatten(0, (2 * self.window - 1, -1))
        return by_pairs(table, window)


class ContinuousBias(nn.Module):
    """16 σ(MLP(offset on a logarithmic scale)) per head (version 2).

    trained_window: offsets are measured in that window, 0 = in this one.
    """

    def __init__(self, window: int, num_heads: int, trained_window: int = 0) -> None:
        super().__init__()
        self.window = window
        self.unit = (trained_window or window) - 1
        self.fc1 = nn.Linear(2, HIDDEN_BIAS)
        self.fc2 = nn.Linear(HIDDEN_BIAS, num_heads, bias=False)

    def forward(self, window: int) -> Tensor:  # (h, w², w²)
        steps = torch.arange(1 - window, window, device=self.fc1.weight.device, dtype=self.fc1.weight.dtype)
        steps = steps * 8 / max(self.unit, 1)
        steps = steps.sign() * torch.log2(steps.abs() + 1) / math.log2(8)
        offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
        return by_pairs(16 * self.fc2(F.relu(self.fc1(offsets))).sigmoid(), window)


def by_pairs(table: Tensor, window: int) -> Tensor:
    """Values per offset (2 v - 1, 2 v - 1, h), v >= w, as values per pair of pixels (h, w², w²)."""
    centre = table.shape[0] // 2
    place = torch.arange(window, device=table.device)
    offset = place[:, None] - place[None, :] + centre  # (w, w)
    rows, columns = offset[:, None, :, None], offset[None, :, None, :]
    return rearrange(table[rows, columns], "a b c d h -> h (a b) (c d)")


class WindowAttention(nn.Module):
    """The pixels of a window look at each other.

    learned_scale: version 2 learns a temperature per head; False keeps the release's constant 10.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        window: int,
        *,
        version: int = 1,
        trained_window: int = 0,
        learned_scale: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of {num_heads} heads")
        self.num_heads = num_heads
        self.version = version
        self.qkv = nn.Linear(width, 3 * width, bias=version == 1)
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.bias: OffsetBias | ContinuousBias
        if version == 1:
            self.bias = OffsetBias(window, num_heads)
            return
        self.bias = ContinuousBias(window, num_heads, trained_window)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        scale = torch.full((num_heads, 1, 1), math.log(10.0))
        if learned_scale:
            self.logit_scale = nn.Parameter(scale)
        else:
            self.register_buffer("logit_scale", scale, persistent=False)

    def forward(self, x: Tensor, window: int, mask: Tensor | None = None) -> Tensor:
        """x: (B, i, j, w², C) -> the same; mask: (w², w²), 0 or -100, added to the scores."""
        if not x.numel():
            return x
        qkv = self.qkv(x)
        if self.version == 2:
            qkv = qkv + torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = rearrange(qkv, "b i j n (three h d) -> three (b i j) h n d", three=3, h=self.num_heads)
        scale = None
        if self.version == 2:
            q = F.normalize(q, dim=-1) * self.logit_scale.clamp(max=LARGEST_SCALE).exp()
            k, scale = F.normalize(k, dim=-1), 1.0
        bias = self.bias(window)[None]  # (1, h, w², w²)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias if mask is None else bias + mask, scale=scale
        )
        out = rearrange(out, "(b i j) h n d -> b i j n (h d)", i=x.shape[1], j=x.shape[2])
        return self.dropout(self.proj(out))


class SwinBlock(nn.Module):
    """Windows of pixels exchange messages, then each pixel thinks alone; `shifted` moves the windows."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        window: int,
        *,
        shifted: bool,
        version: int = 1,
        trained_window: int = 0,
        learned_scale: bool = True,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.post_norm = version == 2
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(
            width,
            num_heads,
            window,
            version=version,
            trained_window=trained_window,
            learned_scale=learned_scale,
            dropout=dropout,
        )
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MapMlp(width, int(width * mlp_ratio), dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C) -> (B, H, W, C)
        if self.post_norm:
            x = x + self.drop_path(self.norm1(self.attend(x)))
            return x + self.drop_path(self.norm2(self.mlp(x)))
        x = x + self.drop_path(self.attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def attend(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        window, shift = self.window, self.window // 2 if self.shifted else 0
        if min(height, width) <= window:  # one window spans the map
            window, shift = min(height, width), 0
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        windows = rearrange(x, "b (i p) (j q) c -> b i j (p q) c", p=window, q=window)
        windows = self.attend_rolled(windows, window, shift) if shift else self.attn(windows, window)
        x = rearrange(windows, "b i j (p q) c -> b (i p) (j q) c", p=window)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x[:, :height, :width]

    def attend_rolled(self, x: Tensor, window: int, shift: int) -> Tensor:
        """Windows of a rolled map; only the last ones hold pixels that are no neighbours, and need a mask."""
        _, right, bottom, corner = shift_masks(window, shift, x)
        upper = [self.attn(x[:, :-1, :-1], window), self.attn(x[:, :-1, -1:], window, right)]
        lower = [self.attn(x[:, -1:, :-1], window, bottom), self.attn(x[:, -1:, -1:], window, corner)]
        return torch.cat([torch.cat(upper, dim=2), torch.cat(lower, dim=2)], dim=1)


def shift_masks(window: int, shift: int, like: Tensor) -> Tensor:
    """(4, w², w²): -100 between pixels that only the roll has brought into one window.

    Of windows in the middle, in the last column, in the last row, and in both.
    """
    place = torch.arange(2 * window, device=like.device)
    strip = (place >= window).int() + (place >= 2 * window - shift).int()  # of the last two windows
    areas = rearrange(3 * strip[:, None] + strip, "(i p) (j q) -> (i j) (p q)", i=2, j=2)
    foreign = areas[:, :, None] != areas[:, None, :]
    return torch.zeros_like(foreign, dtype=like.dtype).masked_fill(foreign, -100.0)
