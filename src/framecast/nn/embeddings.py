"""Patches to tokens, and position tables that follow the image size.

Shapes: B batch, H and W pixels, P patch size, D width, Gh = H / P and Gw = W / P the grid, N = Gh * Gw.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Resampling = Literal["bicubic", "bilinear", "nearest"]


class PatchEmbed(nn.Module):
    """Cuts an image into P x P patches and maps each one linearly to a token."""

    def __init__(self, patch_size: int, width: int, channels: int = 3) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, N, D)
        height, width = x.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"image of {height}x{width} pixels cannot be cut into patches of {self.patch_size}; "
                f"resize to multiples of {self.patch_size}"
            )
        return rearrange(self.proj(x), "b d h w -> b (h w) d")


def resample_positions(
    table: Tensor,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    *,
    num_prefix: int,
    mode: Resampling = "bicubic",
) -> Tensor:
    """Bring a position table (1, num_prefix + N, D) to another grid; prefix rows are kept as they are.

    Bicubic without aligned corners is what DeiT fine-tuning, VideoMamba and DINOv2 do; the original ViT
    is bilinear, TimeSformer nearest.
    """
    if tuple(old_grid) == tuple(new_grid):
        return table
    prefix, grid = table[:, :num_prefix], table[:, num_prefix:]
    image = rearrange(grid.float(), "1 (h w) d -> 1 d h w", h=old_grid[0], w=old_grid[1])
    corners = {} if mode == "nearest" else {"align_corners": False}
    image = F.interpolate(image, size=tuple(new_grid), mode=mode, **corners)
    return torch.cat([prefix, rearrange(image, "1 d h w -> 1 (h w) d").to(table.dtype)], dim=1)
