"""The 15 common corruptions at five severities, computed on the fly (Hendrycks and Dietterich, ICLR 2019).

    worse = corrupt(images, "fog", 3, [corruption_seed(name, "fog") for name in names])   # (B, 3, H, W)
    worse = corrupt(clip, "fog", 3, corruption_seed("clip.mp4", "fog"))                   # (T, 3, H, W)
    blocky = compress_jpeg(images, 25)

Written from the definitions (https://arxiv.org/abs/1903.12261); what differs from the released images:
- lengths are for a short side of 224 and go with the image size, so that a 32-pixel picture is blurred as
  much of its width; noise, contrast, brightness, pixelate (a share of the pixels) and JPEG are not scaled,
  which makes them harder than in CIFAR-10-C, whose settings are milder
- nothing is saved as JPEG in between; values are rounded, not cut; the random numbers are others
- frost is drawn, not photographed (corruptions_weather.py); glass exchanges pixels in another order
  (corruptions_blur.py); elastic moves pixels once where the original interpolates twice

Legend: B images, T frames; (n, ...) drawn numbers have n = B, or 1 where all frames share them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from framecast.data import corruptions_blur as blurs
from framecast.data import corruptions_weather as weather
from framecast.data.corruption_parts import (
    Draws,
    canvas_of,
    corruption_seed,
    fit,
    look_up,
    pixel_rows_columns,
    scale_of,
    smooth,
)
from framecast.registry import did_you_mean

__all__ = ["CORRUPTIONS", "GROUPS", "choose_corruptions", "compress_jpeg", "corrupt", "corruption_seed"]

SEVERITIES = (1, 2, 3, 4, 5)
LEVELS = 4096  # of the uniform numbers that become Poisson counts


# --- Noise -------------------------------------------------------------------------------------------------


def gaussian_noise(x: Tensor, draws: Draws, sigma: float) -> Tensor:
    return x + sigma * draws.normal(*x.shape[1:])


def shot_noise(x: Tensor, draws: Draws, photons: float) -> Tensor:
    """A white pixel counts `photons` of them on average, a darker one fewer (Poisson)."""
    values = (x * 255).round().long()
    uniform = draws.below(LEVELS, *x.shape[1:])
    counts = poisson_table(photons).to(x.device)[values * LEVELS + uniform]
    return counts.float() / photons


@lru_cache(maxsize=8)
def poisson_table(photons: float) -> Tensor:
    """(256 * LEVELS,) uint8 counts: the quantiles (u + 1/2) / LEVELS for every value of a pixel."""
    rates = torch.arange(256, dtype=torch.float64) * (photons / 255)
    counts = torch.arange(int(photons + 12 * photons**0.5) + 12, dtype=torch.float64)
    log_p = torch.xlogy(counts, rates[:, None]) - rates[:, None] - torch.lgamma(counts + 1)
    quantiles = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    return torch.searchsorted(log_p.exp().cumsum(1), quantiles.expand(256, -1).contiguous()).byte().flatten()


def impulse_noise(x: Tensor, draws: Draws, share: float) -> Tensor:
    """That share of the values, each colour by itself, becomes 0 or 1."""
    u = draws.uniform(*x.shape[1:])
    return torch.where(u < share / 2, 0.0, torch.where(u < share, 1.0, x))


# --- Digital -----------------------------------------------------------------------------------------------


def contrast(x: Tensor, draws: Draws, factor: float) -> Tensor:
    """Differences from the image's mean colour shrink."""
    mean = x.mean(dim=(-2, -1), keepdim=True)
    return (x - mean) * factor + mean


def elastic(x: Tensor, draws: Draws, alpha: float, sigma: float, shift: float) -> Tensor:
    """Three points of the image are moved by up to `shift`, then every pixel by alpha times smooth noise."""
    height, width = canvas_of(x)
    wander = draws.uniform(2, height, width, low=-1)
    wander = fit(alpha * smooth(wander, sigma, 3.0), x) * scale_of(x)
    corners = draws.uniform(3, 2, low=-shift, high=shift) * scale_of(x)
    middle = torch.tensor([x.shape[-2] // 2, x.shape[-1] // 2], dtype=torch.float32, device=x.device)
    reach = min(x.shape[-2:]) // 3
    points = middle + reach * torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]], device=x.device)
    ones = torch.ones(len(corners), 3, 1, device=x.device)
    back = torch.linalg.solve(torch.cat([points + corners, ones], 2), points.expand(len(corners), -1, -1))
    rows, columns = pixel_rows_columns(x)
    down, across = rows + wander[:, 0], columns + wander[:, 1]  # (n, H, W)
    seen = down[..., None] * back[:, None, None, 0] + across[..., None] * back[:, None, None, 1]
    seen = seen + back[:, None, None, 2]
    return look_up(x, seen[..., 0], seen[..., 1])


def pixelate(x: Tensor, draws: Draws, share: float) -> Tensor:
    """Shown by that share of its rows and columns, each an average of those it stands for."""
    height, width = x.shape[-2:]
    few = F.interpolate(x, (max(1, int(height * share)), max(1, int(width * share))), mode="area")
    return F.interpolate(few, (height, width), mode="nearest-exact")


def jpeg(x: Tensor, draws: Draws, quality: int) -> Tensor:
    return compress_jpeg((x * 255).round().byte(), quality).float() / 255


def compress_jpeg(images: Tensor, quality: int) -> Tensor:
    """uint8 (..., 3, H, W) after JPEG at a quality from 1 to 100, colours at half the resolution."""
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality is {quality}; it is from 1 to 100")
    flat = images.reshape(-1, *images.shape[-3:]).permute(0, 2, 3, 1).cpu().numpy()
    done = np.empty_like(flat)
    for i, image in enumerate(flat):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
        done[i] = np.asarray(Image.open(buffer))
    return torch.from_numpy(done).permute(0, 3, 1, 2).reshape(images.shape).to(images.device)


# --- By name -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corruption:
    """One of the fifteen, with its settings for severities 1 to 5."""

    name: str
    group: str
    change: Callable[..., Tensor]  # (x in 0..1, draws, *settings) -> x, not yet cut to 0..1
    settings: tuple[tuple[float, ...], ...]
    alexnet: float  # mean top-1 error of AlexNet on ImageNet over the severities, in 0..1


E = 244  # sic: the release scales by 244, not 224
# Settings as published; those of snow and elastic are from memory.
CORRUPTIONS = {
    c.name: c
    for c in (
        Corruption("gaussian", "noise", gaussian_noise, ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)), 0.886),
        Corruption("shot", "noise", shot_noise, ((60,), (25,), (12,), (5,), (3,)), 0.894),
        Corruption("impulse", "noise", impulse_noise, ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)), 0.923),
        Corruption(
            "defocus", "blur", blurs.defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)), 0.820
        ),
        Corruption(
            "glass",
            "blur",
            blurs.glass_blur,
            ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
            0.826,
        ),
        Corruption(
            "motion", "blur", blurs.motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), 0.786
        ),
        Corruption(
            "zoom",
            "blur",
            blurs.zoom_blur,
            ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
            0.798,
        ),
        Corruption(
            "snow",
            "weather",
            weather.snow,
            (
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
            0.867,
        ),
        Corruption(
            "frost",
            "weather",
            weather.frost,
            ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
            0.827,
        ),
        Corruption(
            "fog", "weather", weather.fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), 0.819
        ),
        Corruption(
            "brightness", "weather", weather.brightness, ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)), 0.565
        ),
        Corruption("contrast", "digital", contrast, ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)), 0.853),
        Corruption(
            "elastic",
            "digital",
            elastic,
            (
                (2 * E, 0.7 * E, 0.1 * E),
                (2 * E, 0.08 * E, 0.2 * E),
                (0.05 * E, 0.01 * E, 0.02 * E),
                (0.07 * E, 0.01 * E, 0.02 * E),
                (0.12 * E, 0.01 * E, 0.02 * E),
            ),
            0.646,
        ),
        Corruption("pixelate", "digital", pixelate, ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)), 0.718),
        Corruption("jpeg", "digital", jpeg, ((25,), (18,), (15,), (10,), (7,)), 0.607),
    )
}
GROUPS = {
    group: tuple(c.name for c in CORRUPTIONS.values() if c.group == group)
    for group in dict.fromkeys(c.group for c in CORRUPTIONS.values())
}


def corrupt(images: Tensor, name: str, severity: int, seed: int | Sequence[int] = 0) -> Tensor:
    """uint8 (B, 3, H, W) images or frames, corrupted; on the device where they are.

    seed: one number for a clip, whose frames all get the same random numbers (the same noise, the same
    angle of motion, the same ice); one per image for a batch of images, which then do not depend on each
    other. Raises ValueError for an unknown name or severity.
    """
    corruption = _named(name)
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity}; it is one of 1, 2, 3, 4, 5")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images are {images.dtype} {tuple(images.shape)}; expected uint8 (B, 3, H, W)")
    seeds = [seed] if isinstance(seed, int) else list(seed)
    if not isinstance(seed, int) and len(seeds) != len(images):
        raise ValueError(
            f"{len(seeds)} seeds for {len(images)} images; give one per image, or one for a clip"
        )
    draws = Draws(seeds, images.device)
    changed = corruption.change(images.float() / 255, draws, *corruption.settings[severity - 1])
    return changed.clamp_(0, 1).mul_(255).round_().byte()


def choose_corruptions(text: str) -> tuple[str, ...]:
    """Names from "all", groups and single corruptions, for example "noise,jpeg", in their usual order."""
    chosen: set[str] = set()
    for word in (part.strip() for part in text.split(",")):
        if word == "all":
            chosen.update(CORRUPTIONS)
        elif word in GROUPS:
            chosen.update(GROUPS[word])
        else:
            chosen.add(_named(word).name)
    return tuple(name for name in CORRUPTIONS if name in chosen)


def _named(name: str) -> Corruption:
    if name not in CORRUPTIONS:
        known: Iterable[str] = ("all", *GROUPS, *CORRUPTIONS)
        raise ValueError(
            f"unknown corruption {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
        )
    return CORRUPTIONS[name]
