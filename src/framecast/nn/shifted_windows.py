"""Attention inside small boxes of a sequence of maps, shifted in every other block
(Liu et al., 2022, Video Swin, https://arxiv.org/abs/2106.13230), in the form that LOAN's release has.

Shapes: B batch, T steps, H and W cells, D width, n boxes, N tokens of a box, h heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framecast.nn.transformer import DropPath, Mlp

Box = tuple[int, int, int]  # steps, rows, columns
HIDDEN = -100.0  # added to the score of a token that was not a neighbour before the maps were rolled


class BoxAttention(nn.Module):
    """Tokens of a box look at each other; a learned bias tells how far apart they are."""

    index: Tensor

    def __init__(self, width: int, num_heads: int, box: Box, dropout: float = 0.0) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of its {num_heads} heads")
        self.num_heads = num_heads
        distances = (2 * box[0] - 1) * (2 * box[1] - 1) * (2 * box[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(distances, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("index", relative_positions(box), persistent=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B n, N, D), mask (n, N, N) added to the scores -> (B n, N, D).

        A box with fewer tokens than the table is made for takes the table's first ones, wherever they are.
        """
        tokens = x.shape[1]
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        bias = self.relative_position_bias_table[self.index[:tokens, :tokens]].permute(2, 0, 1)[None]
        if mask is not None:
            boxes = mask.shape[0]
            bias = (bias + mask[:, None]).expand(boxes, self.num_heads, -1, -1)
            bias = bias.expand(x.shape[0] // boxes, -1, -1, -1, -1).flatten(0, 1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.drop(self.proj(rearrange(x, "b h n d -> b n (h d)")))


class ShiftedWindowBlock3d(nn.Module):
    """Cells of a box exchange messages, then each one thinks alone."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        box: Box,
        shift: Box,
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.box, self.shift = box, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = BoxAttention(width, num_heads, box, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, round(width * mlp_ratio))
        self.drop = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, H, W, D) -> (B, T, H, W, D)
        x = x + self.drop_path(self.look(self.norm1(x)))
        hidden = self.drop(self.mlp.act(self.mlp.fc1(self.norm2(x))))
        return x + self.drop_path(self.drop(self.mlp.fc2(hidden)))

    def look(self, x: Tensor) -> Tensor:
        size: Box = (x.shape[1], x.shape[2], x.shape[3])
        box, shift = clipped(self.box, self.shift, size)
        pad = [-s % b for s, b in zip(size, box, strict=True)]
        x = F.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
        whole: Box = (x.shape[1], x.shape[2], x.shape[3])
        shifted = any(shift)
        if shifted:
            x = x.roll([-s for s in shift], (1, 2, 3))
        boxes = rearrange(x, "b (t i) (h j) (w k) d -> (b t h w) (i j k) d", i=box[0], j=box[1], k=box[2])
        boxes = self.attn(boxes, neighbours(whole, box, shift).to(x) if shifted else None)
        t, h, w = (s // b for s, b in zip(whole, box, strict=True))
        sides = {"i": box[0], "j": box[1], "k": box[2], "t": t, "h": h, "w": w}
        x = rearrange(boxes, "(b t h w) (i j k) d -> b (t i) (h j) (w k) d", **sides)
        if shifted:
            x = x.roll(shift, (1, 2, 3))
        return x[:, : size[0], : size[1], : size[2]]


class PatchMerging3d(nn.Module):
    """Halves steps, rows and columns, doubles the width.

    As the release has it: of the eight neighbours in a cube four are read, those whose row is odd when their
    step is. A single step stays one, and then all four neighbours are read.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, H, W, D) -> (B, T / 2, H / 2, W / 2, 2 D), rounded up
        steps, rows, columns = x.shape[1:4]
        x = F.pad(x, (0, 0, 0, columns % 2, 0, rows % 2, 0, steps % 2 if steps > 1 else 0))
        step = 2 if steps > 1 else 1
        parts = [
            x[:, (row if steps > 1 else 0) :: step, row::2, column::2] for column in (0, 1) for row in (0, 1)
        ]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)))


def clipped(box: Box, shift: Box, size: Box) -> tuple[Box, Box]:
    """Box and shift for maps of that size: no larger than they, not shifted along a side that is filled."""
    i, j, k = (min(b, s) for b, s in zip(box, size, strict=True))
    t, h, w = (0 if s <= b else m for b, m, s in zip(box, shift, size, strict=True))
    return (i, j, k), (t, h, w)


def relative_positions(box: Box) -> Tensor:
    """(N, N) row of the bias table for each pair of tokens of a box."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, box), indexing="ij")).flatten(1)  # (3, N)
    apart = places[:, :, None] - places[:, None, :] + torch.tensor(box)[:, None, None] - 1
    sides = [2 * b - 1 for b in box]
    return (apart[0] * sides[1] + apart[1]) * sides[2] + apart[2]


def neighbours(size: Box, box: Box, shift: Box) -> Tensor:
    """(n, N, N) 0 for tokens that were neighbours before rolling, `HIDDEN` for others."""
    region = torch.zeros(())
    for s, b, m in zip(size, box, shift, strict=True):
        part = torch.zeros(s)
        if m:
            part[s - b : s - m], part[s - m :] = 1, 2
        region = region[..., None] * 3 + part
    region = rearrange(region, "(t i) (h j) (w k) -> (t h w) (i j k)", i=box[0], j=box[1], k=box[2])
    return (region[:, None] != region[:, :, None]) * HIDDEN
