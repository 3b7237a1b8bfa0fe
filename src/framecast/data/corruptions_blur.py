"""Blurs of the common corruptions: defocus, glass, motion, zoom.

x (B, 3, H, W) in 0..1; lengths in pixels of a picture of 224, scaled with the size (corruption_parts.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from framecast.data.corruption_parts import (
    Draws,
    convolve,
    look_up,
    motion_kernels,
    pixel_rows_columns,
    scale_of,
    smooth,
)


def defocus_blur(x: Tensor, draws: Draws, radius: float, soft: float) -> Tensor:
    """The mean over a disc, whose edge is softened by a Gaussian of sigma `soft`."""
    return convolve(x, disc(radius, soft, scale_of(x)).to(x.device)[None], "reflect")


def disc(radius: float, soft: float, scale: float = 1.0) -> Tensor:
    """(k, k) kernel. Below scale 1 the picture counts as interpolated between its pixels (bilinear)."""
    finer = max(1, round(1 / scale))
    reach = int(radius * scale) + 2
    points = torch.arange(-reach * finer, reach * finer + 1) / finer
    inside = (points[:, None] ** 2 + points**2 <= (radius * scale) ** 2).float()
    taps = torch.arange(-reach, reach + 1)
    shares = (1 - (taps[:, None] - points).abs()).clamp(min=0)  # (k, points); ones and zeros at scale 1
    kernel = smooth(shares @ inside @ shares.T, soft * scale)
    return kernel / kernel.sum()


def glass_blur(x: Tensor, draws: Draws, sigma: float, distance: int, rounds: int) -> Tensor:
    """Blurred, pixels exchanged with random neighbours, blurred again.

    As published every pixel is exchanged, one after the other, with one of -distance … distance - 1 rows and
    columns away. Here pixels so far apart that they cannot meet are exchanged at once. In small pictures,
    where the distance would be d < 1 pixel, a share d² of the pixels moves by one: as far in mean square.
    """
    scale = scale_of(x)
    sigma, wanted = sigma * scale, distance * scale
    places = shuffled_places(
        draws, x.shape[-2], x.shape[-1], max(1, round(wanted)), rounds, min(wanted**2, 1.0)
    )
    moved = smooth(x, sigma).flatten(2).gather(2, places.flatten(1)[:, None].expand(*x.shape[:2], -1))
    return smooth(moved.view_as(x), sigma)


def shuffled_places(
    draws: Draws, height: int, width: int, distance: int, rounds: int, share: float = 1.0
) -> Tensor:
    """(n, H, W) int64: where each pixel comes from, a permutation of 0 … H W - 1.

    share: of the pixels that start an exchange in each round.
    """
    n, apart = len(draws.seeds), 2 * distance
    places = torch.arange(height * width, device=draws.device).expand(n, -1).clone()
    grid = torch.arange(height * width, device=draws.device).view(height, width)
    for _ in range(rounds):
        steps = draws.below(apart, 2, height, width) - distance
        if share < 1:
            steps = steps * (draws.uniform(1, height, width) < share)
        for top in range(apart):
            for left in range(apart):
                # Pixels whose neighbours within the distance all exist, `apart` from each other.
                chosen = (
                    slice(distance + top, height - distance, apart),
                    slice(distance + left, width - distance, apart),
                )
                ours = grid[chosen].reshape(1, -1).expand(n, -1)
                down, across = (steps[:, i][:, *chosen].flatten(1) for i in (0, 1))
                theirs = ours + down * width + across
                here, there = places.gather(1, ours), places.gather(1, theirs)
                places.scatter_(1, ours, there).scatter_(1, theirs, here)
    return places.view(n, height, width)


def motion_blur(x: Tensor, draws: Draws, radius: float, sigma: float) -> Tensor:
    """A fading trail at a random angle within 45 degrees of the horizontal."""
    angles = torch.deg2rad(draws.uniform(low=-45, high=45))
    return convolve(x, motion_kernels(angles, radius, sigma, scale_of(x)), "replicate")


def zoom_blur(x: Tensor, draws: Draws, largest: float, step: float) -> Tensor:
    """The mean of the image and of enlargements by 1, 1 + step, … below `largest` about its middle."""
    factors = [1 + i * step for i in range(round((largest - 1) / step))]
    rows, columns = pixel_rows_columns(x)
    middle = (x.shape[-2] - 1) / 2, (x.shape[-1] - 1) / 2
    total = x.clone()
    for factor in factors:
        seen = (middle[0] + (rows - middle[0]) / factor, middle[1] + (columns - middle[1]) / factor)
        total += look_up(x, seen[0][None], seen[1][None])
    return total / (len(factors) + 1)
