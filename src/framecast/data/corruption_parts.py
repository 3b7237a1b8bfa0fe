"""What several corruptions share: repeatable random numbers, blurs, and images seen through a map.

Images x are (B, C, H, W) float. Lengths are those of a picture whose short side has 224 pixels; `scale_of`
says by how much they shrink or grow.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

REFERENCE_SIDE = 224  # pixels for which the lengths of all corruptions are given


def corruption_seed(source: str, name: str, seed: int = 0) -> int:
    """The same number for the same image or clip and corruption on every machine.

    Severity is no part of it: a corruption gets stronger, and stays the same otherwise.
    """
    digest = hashlib.sha256(f"{seed}\0{name}\0{source}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits


class Draws:
    """Random numbers (n, ...): one row per seed, so that batches do not change what an image gets.

    They come from the CPU's generator also where they are used on a GPU.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.seeds, self.device = tuple(seeds), device
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def normal(self, *shape: int) -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in self._generators]).to(self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """In [low, high)."""
        rows = torch.stack([torch.rand(shape, generator=g) for g in self._generators])
        return rows.mul_(high - low).add_(low).to(self.device)

    def below(self, limit: int, *shape: int) -> Tensor:
        """int64 in [0, limit)."""
        return torch.stack([torch.randint(limit, shape, generator=g) for g in self._generators]).to(
            self.device
        )


def scale_of(x: Tensor) -> float:
    """Short side of the images over 224."""
    return min(x.shape[-2:]) / REFERENCE_SIDE


def canvas_of(x: Tensor) -> tuple[int, int]:
    """Height and width of the same picture with a short side of 224: where weather is drawn."""
    height, width = x.shape[-2:]
    scale = scale_of(x)
    return round(height / scale), round(width / scale)


def fit(layer: Tensor, x: Tensor) -> Tensor:
    """The layer (n, C, h, w) at the size of the images; what shrinks is averaged."""
    if layer.shape[-2:] == x.shape[-2:]:
        return layer
    return F.interpolate(layer, x.shape[-2:], mode="bilinear", antialias=True, align_corners=False)


@lru_cache(maxsize=64)
def gaussian_matrix(size: int, sigma: float, truncate: float = 4.0) -> Tensor:
    """(size, size): smooths one axis; the picture goes on mirrored beyond its border, however wide sigma."""
    radius = max(int(truncate * sigma + 0.5), 0)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
    places = torch.arange(size)[:, None] + offsets.long()
    places = places % (2 * size)
    places = torch.where(places < size, places, 2 * size - 1 - places)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, places, (weights / weights.sum()).expand(size, -1).contiguous())
    return matrix.float()


def smooth(x: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Gaussian blur over the last two axes, sigma in pixels of x."""
    down, across = (gaussian_matrix(size, sigma, truncate).to(x.device) for size in x.shape[-2:])
    return down @ x @ across.T


def convolve(x: Tensor, kernels: Tensor, border: str) -> Tensor:
    """Every image with its kernel (n, k, k), n = B or 1, k odd, by the Fourier transform.

    border: how the picture goes on, "reflect" or "replicate". A tap right of the middle looks to the right.
    """
    height, width = x.shape[-2:]
    radius = kernels.shape[-1] // 2
    padded = F.pad(x, (radius,) * 4, mode=border)
    shape = [_fast_length(size) for size in padded.shape[-2:]]
    taps = torch.fft.rfft2(kernels.flip(-1, -2)[:, None], s=shape)
    whole = torch.fft.irfft2(torch.fft.rfft2(padded, s=shape) * taps, s=shape)
    return whole[..., 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]


def _fast_length(size: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5."""
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 1


def motion_kernels(angles: Tensor, radius: float, sigma: float, scale: float = 1.0) -> Tensor:
    """(n, k, k) a trail of 2 radius + 1 taps that fades as a Gaussian, from each pixel in one direction.

    angles: (n,) radians. Taps lie 1 x scale pixels apart and share their weight among four pixels.
    """
    steps = torch.arange(2 * int(radius) + 1, device=angles.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights = weights / weights.sum()
    reach = math.ceil(2 * int(radius) * scale) + 1
    across = steps * scale * torch.cos(angles)[:, None] + reach  # (n, taps)
    down = steps * scale * torch.sin(angles)[:, None] + reach
    side = 2 * reach + 1
    kernels = torch.zeros(len(angles), side * side, device=angles.device)
    left, top = across.floor(), down.floor()
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = (1 - (across - left - x).abs()) * (1 - (down - top - y).abs())
        kernels.scatter_add_(1, ((top + y) * side + left + x).long(), share * weights)
    return kernels.view(-1, side, side)


def look_up(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x at places (n, H', W') in pixels, bilinear, mirrored beyond the border; n = B or 1."""
    height, width = x.shape[-2:]
    places = torch.stack([columns * (2 / max(width - 1, 1)) - 1, rows * (2 / max(height - 1, 1)) - 1], dim=-1)
    places = places.expand(len(x), -1, -1, -1)
    return F.grid_sample(x, places, mode="bilinear", padding_mode="reflection", align_corners=True)


def pixel_rows_columns(x: Tensor) -> tuple[Tensor, Tensor]:
    """(H, W) row and column number of every pixel."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, dtype=torch.float32, device=x.device)
    columns = torch.arange(width, dtype=torch.float32, device=x.device)
    return rows[:, None].expand(height, width), columns.expand(height, width)
