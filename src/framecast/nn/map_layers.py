"""Layers on maps: pixel-wise maps, patches, changes of resolution, attention over channels.

Maps are channel-last, [B, H, W, C], so that linear maps and norms of a pixel read neighbouring numbers;
`channels_first` shows a map to a convolution without copying it.
Shapes: B batch, H rows (north to south), W columns, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UpSampling = Literal["bilinear", "nearest", "bicubic", "conv"]


def channels_first(x: Tensor) -> Tensor:  # (B, H, W, C) -> (B, C, H, W)
    """The map as convolutions want it; a view in torch's channels-last memory format."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, H, W, C)
    return x.permute(0, 2, 3, 1)


class PointConv(nn.Linear):
    """A 1x1 convolution, which on a channel-last map is a linear map (and initialised as a convolution)."""


class MapMlp(nn.Module):
    """Every pixel thinks alone: two linear maps with a GELU between them."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0, linear: type[nn.Linear] = nn.Linear):
        super().__init__()
        self.fc1 = linear(width, hidden)
        self.fc2 = linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))


class PatchEmbed(nn.Module):
    """Variables (B, V, H, W) to one token per patch: a convolution whose stride is its kernel.

    Rows and columns that do not fill a patch are left out.
    """

    def __init__(self, channels: int, width: int, patch_size: int, *, norm: bool = False) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (B, V, H, W) -> (B, H / p, W / p, C)
        return self.norm(channels_last(self.proj(x)).contiguous())


class DownConv(nn.Module):
    """Half the resolution by a 2x2 convolution of stride 2; an odd last row or column is left out."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return channels_last(self.proj(channels_first(x))).contiguous()


class HalvedMap(nn.Module):
    """Half the resolution at the same width: ReLU(2x2 convolution) or the largest of 2x2."""

    def __init__(self, width: int, how: Literal["conv", "max"]) -> None:
        super().__init__()
        self.conv = DownConv(width, width) if how == "conv" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            return F.relu(self.conv(x))
        return channels_last(F.max_pool2d(channels_first(x), 2))


class PatchMerging(nn.Module):
    """Half the resolution by joining 2x2 pixels; an odd last row or column is completed with zeros.

    As in the Focal-TSMP release there is no norm before the linear map (Swin Transformer has one).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(torch.cat(corners, dim=-1))


class UpSample(nn.Module):
    """Twice the resolution: interpolation and a pixel-wise map, or a transposed 2x2 convolution of stride 2.

    Interpolation weights add up to one, so that the map may come first, where it has a quarter of the pixels.
    """

    def __init__(self, channels: int, width: int, how: UpSampling) -> None:
        super().__init__()
        self.how: UpSampling = how
        self.proj = nn.ConvTranspose2d(channels, width, 2, stride=2) if how == "conv" else None
        self.point = nn.Conv2d(channels, width, 1) if how != "conv" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.proj is not None:
            return channels_last(self.proj(channels_first(x))).contiguous()
        assert self.point is not None
        return interpolate(F.linear(x, self.point.weight.flatten(1), self.point.bias), self.how)


def interpolate(x: Tensor, how: UpSampling) -> Tensor:
    """The map at twice its resolution."""
    aligned = None if how == "nearest" else False
    return channels_last(F.interpolate(channels_first(x), scale_factor=2, mode=how, align_corners=aligned))


class Interpolate(nn.Module):
    """Twice the resolution, nothing else."""

    def __init__(self, how: UpSampling) -> None:
        super().__init__()
        self.how: UpSampling = how

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(x, self.how)


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """The map on another grid over the same area, bilinear."""
    if x.shape[1:3] == (height, width):
        return x
    resized = F.interpolate(channels_first(x), size=(height, width), mode="bilinear", align_corners=False)
    return channels_last(resized)


class ChannelAttention(nn.Module):
    """x · σ(sum over pooled values of one MLP): how much each input variable counts for this map.

    pooled: of "mean", "std" (unbiased) and "max" over the map. The release scales its input in place; here
    the caller's map stays as it is.
    """

    def __init__(self, channels: int, reduction: int, pooled: tuple[str, ...] = ("mean", "std")) -> None:
        super().__init__()
        unknown = set(pooled) - {"mean", "std", "max"}
        if unknown or not pooled:
            raise ValueError(f"channel_pooling is {pooled}; it takes one or more of mean, std and max")
        if not 1 <= reduction <= channels:
            raise ValueError(f"channel_attention is {reduction}; it divides the {channels} channels")
        self.pooled = pooled
        self.fc1 = nn.Linear(channels, channels // reduction)
        self.fc2 = nn.Linear(channels // reduction, channels)

    def importance(self, x: Tensor) -> Tensor:  # (B, V, H, W) -> (B, V)
        pool = {"mean": x.mean, "std": x.std, "max": x.amax}
        scores = [self.fc2(F.gelu(self.fc1(pool[name](dim=(2, 3))))) for name in self.pooled]
        return sum(scores[1:], scores[0]).sigmoid()

    def forward(self, x: Tensor) -> Tensor:  # (B, V, H, W) -> (B, V, H, W)
        return x * self.importance(x)[:, :, None, None]


def row_bands(rows: int, row_bytes: int, band_bytes: int = 2 << 20) -> Iterator[tuple[int, int]]:
    """[first, last) of bands of rows that each fill about `band_bytes`, four rows at least.

    The default lets what a block makes of a band stay in a processor's cache.
    """
    step = max(4, band_bytes // row_bytes)
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


class ConvolutionByRows:
    """A convolution of a map that comes in bands of rows, from north to south; nothing is computed twice.

    An answer waits for the rows south of it, so that each call gives the rows that have become possible.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv  # of stride 1, with zeros around the map
        self.reach = conv.weight.shape[-1] // 2
        self.waiting: Tensor | None = None  # (rows, W, C) that the next rows' answers need
        self.rows_done = 0

    def __call__(self, rows: Tensor, *, end: bool) -> Tensor:  # (R, W, C) -> (R', W, C)
        edge = rows.new_zeros(self.reach, *rows.shape[1:])  # outside the map there are zeros
        parts = [edge if self.waiting is None else self.waiting, rows, *([edge] if end else [])]
        known = torch.cat(parts)
        keep = 2 * self.reach
        self.waiting = known[len(known) - min(keep, len(known)) :]
        if len(known) <= keep:
            return known.new_empty(0, known.shape[1], self.conv.out_channels)
        c, padding = self.conv, (0, self.reach)
        out = F.conv2d(channels_first(known[None]), c.weight, c.bias, padding=padding, groups=c.groups)
        out = channels_last(out)[0]
        self.rows_done += len(out)
        return out
