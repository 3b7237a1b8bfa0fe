"""Wave-MLP: pixels as waves that meet along rows and columns (Tang et al., 2022,
https://arxiv.org/abs/2111.12294).

A pixel is an amplitude and a phase per channel; neighbours along a row (or column) add up as waves do, and
three branches (along rows, along columns, the pixel alone) are mixed by weights computed from the whole map.
Shapes: B batch, H rows, W columns, C channels; maps are channel-last.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framecast.nn.map_layers import MapMlp, PointConv, channels_first, channels_last
from framecast.nn.transformer import DropPath

REACH = 3  # pixels to either side


class WaveBranch(nn.Module):
    """Amplitude · (cos, sin)(phase), added up along rows or columns.

    The convolution has one group per output channel over the 2 C joined channels: channel i reads channels
    2 i and 2 i + 1 of (all cosines, all sines), as in the release, not the two parts of its own wave.
    """

    def __init__(self, width: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.phase = PointConv(width, width)
        self.phase_norm = nn.BatchNorm2d(width)
        self.amplitude = PointConv(width, width)
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.meet = nn.Conv2d(2 * width, width, kernel, padding=padding, groups=width, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C) -> (B, H, W, C)
        phase = F.relu(channels_last(self.phase_norm(channels_first(self.phase(x)))))
        amplitude = self.amplitude(x)
        wave = torch.cat([amplitude * phase.cos(), amplitude * phase.sin()], dim=-1)
        return channels_last(self.meet(channels_first(wave)))


class PhaseAwareMixing(nn.Module):
    """The three branches, weighted per channel by a softmax over them."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.along_rows = WaveBranch(width, (1, 2 * REACH + 1))
        self.along_columns = WaveBranch(width, (2 * REACH + 1, 1))
        self.alone = PointConv(width, width)
        self.reweight1 = PointConv(width, width // 4)
        self.reweight2 = PointConv(width // 4, 3 * width)
        self.proj = PointConv(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.along_rows(x), self.along_columns(x), self.alone(x)]
        mean = (branches[0] + branches[1] + branches[2]).mean((1, 2))
        weights = self.reweight2(F.gelu(self.reweight1(mean)))
        weights = rearrange(weights, "b (c branch) -> branch b 1 1 c", branch=3).softmax(0)
        x = branches[0] * weights[0] + branches[1] * weights[1] + branches[2] * weights[2]
        return self.dropout(self.proj(x))


class WaveBlock(nn.Module):
    """Pixels meet as waves, then each one thinks alone; norms are over all numbers of a map."""

    def __init__(
        self, width: int, *, mlp_ratio: float = 4.0, dropout: float = 0.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, width)
        self.mixing = PhaseAwareMixing(width, dropout)
        self.norm2 = nn.GroupNorm(1, width)
        self.mlp = MapMlp(width, int(width * mlp_ratio), dropout, linear=PointConv)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C) -> (B, H, W, C)
        x = x + self.drop_path(self.mixing(over_map(self.norm1, x)))
        return x + self.drop_path(self.mlp(over_map(self.norm2, x)))


def over_map(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    return channels_last(norm(channels_first(x)))
