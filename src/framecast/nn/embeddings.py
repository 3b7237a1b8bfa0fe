"""Patches to tokens, and tables of positions and times that follow the size of the input.

Shapes: B batch, T frames, k frames of a tubelet, H and W pixels, P patch size, D width, Gh = H / P and
Gw = W / P the grid, N = Gh * Gw.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Resampling = Literal["bicubic", "bilinear", "nearest"]
TimeResampling = Literal["linear", "nearest"]
Inflation = Literal["centre", "mean"]


class PatchEmbed(nn.Module):
    """Cuts an image into P x P patches and maps each one linearly to a token.

    stride: pixels between patches, P unless they shall overlap; pixels that then fill no patch are left out.
    """

    def __init__(self, patch_size: int, width: int, channels: int = 3, *, stride: int | None = None) -> None:
        super().__init__()
        self.patch_size, self.stride = patch_size, stride or patch_size
        self.proj = nn.Conv2d(channels, width, kernel_size=patch_size, stride=self.stride)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, N, D)
        if x.ndim != 4:
            raise ValueError(f"this model reads images (B, 3, H, W), but got {tuple(x.shape)}")
        if self.stride == self.patch_size:
            check_patches(x, self.patch_size)
        return rearrange(self.proj(x), "b d h w -> b (h w) d")


class TubeletEmbed(nn.Module):
    """Cuts a clip into boxes of k frames x P x P pixels and maps each one linearly to a token."""

    def __init__(self, patch_size: int, width: int, *, tubelet: int = 1, channels: int = 3) -> None:
        super().__init__()
        self.patch_size, self.tubelet = patch_size, tubelet
        box = (tubelet, patch_size, patch_size)
        self.proj = nn.Conv3d(channels, width, kernel_size=box, stride=box)

    def forward(self, clips: Tensor) -> Tensor:  # (B, 3, T, H, W) -> (B, T / k, N, D)
        check_clips(clips, self.proj.in_channels)
        check_patches(clips, self.patch_size)
        batch, frames = clips.shape[0], clips.shape[2]
        if frames % self.tubelet:
            raise ValueError(f"clip of {frames} frames cannot be cut into tubelets of {self.tubelet} frames")
        # boxes do not overlap: the frames of one are channels of an image (2-D convolution is the faster one)
        images = rearrange(clips, "b c (t k) h w -> (b t) (c k) h w", k=self.tubelet)
        tokens = F.conv2d(images, self.proj.weight.flatten(1, 2), self.proj.bias, stride=self.patch_size)
        return rearrange(tokens, "(b t) d h w -> b t (h w) d", b=batch)


def patch_grid(image_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches of an image of that many pixels (height, width)."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height // patch_size, width // patch_size


def check_clips(clips: Tensor, channels: int = 3) -> None:
    """ValueError for anything but clips (B, 3, T, H, W)."""
    if clips.ndim != 5 or clips.shape[1] != channels:
        raise ValueError(
            f"this model reads clips (B, {channels}, frames, H, W), but got {tuple(clips.shape)}"
        )


def check_patches(pixels: Tensor, patch_size: int) -> None:
    """ValueError where images or clips (..., H, W) cannot be cut into whole patches."""
    height, width = pixels.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"image of {height}x{width} pixels cannot be cut into patches of {patch_size}; "
            f"resize to multiples of {patch_size}"
        )


def inflate_patch_kernel(weight: Tensor, tubelet: int, how: Inflation = "centre") -> Tensor:
    """The patch kernel (D, 3, P, P) of an image model as one for clips (D, 3, k, P, P).

    "centre": frame k // 2 of each tubelet is read as the image, the others not at all. "mean": the average
    frame is. Both leave the tokens of a still clip as those of the image.
    """
    if how == "mean":
        return (weight[:, :, None] / tubelet).repeat(1, 1, tubelet, 1, 1)
    inflated = weight.new_zeros(*weight.shape[:2], tubelet, *weight.shape[2:])
    inflated[:, :, tubelet // 2] = weight
    return inflated


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
    exact = grid.to(torch.promote_types(grid.dtype, torch.float32))
    image = rearrange(exact, "1 (h w) d -> 1 d h w", h=old_grid[0], w=old_grid[1])
    corners = {} if mode == "nearest" else {"align_corners": False}
    image = F.interpolate(image, size=tuple(new_grid), mode=mode, **corners)
    return torch.cat([prefix, rearrange(image, "1 d h w -> 1 (h w) d").to(table.dtype)], dim=1)


def resample_times(table: Tensor, frames: int, mode: TimeResampling = "linear") -> Tensor:
    """Bring a table of time steps (1, T, D) to another number of frames.

    Linear without aligned corners is what VideoMamba does, nearest TimeSformer.
    """
    if table.shape[1] == frames:
        return table
    corners = {} if mode == "nearest" else {"align_corners": False}
    exact = table.to(torch.promote_types(table.dtype, torch.float32))
    resampled = F.interpolate(exact.mT, size=frames, mode=mode, **corners)
    return resampled.mT.to(table.dtype)
