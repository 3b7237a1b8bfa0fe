"""Weather of the common corruptions: snow, frost, fog, brightness.

x (B, 3, H, W) in 0..1. Snow, frost and fog are drawn for a picture of 224 and then brought to its size.

Frost is ours: the published one mixes in photographs of frosted windows, which are not shipped. Here crystals
grow from random points as fans of needles. Scores on it are not comparable with published ones.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from framecast.data.corruption_parts import Draws, canvas_of, convolve, fit, motion_kernels, smooth

GREY = (0.299, 0.587, 0.114)
CRYSTALS = 20
NEEDLES = ((32, 0.45, 8.0), (85, 0.35, 16.0), (256, 0.2, 32.0))  # of a crystal, weight, from pixels on
FOG_MAP = 256
DARK_ICE, BRIGHT_ICE = (0.05, 0.13, 0.22), (0.90, 0.97, 1.0)


def snow(
    x: Tensor,
    draws: Draws,
    mean: float,
    deviation: float,
    flake: float,
    least: float,
    radius: float,
    sigma: float,
    keep: float,
) -> Tensor:
    """Flakes of about `flake` pixels that fall in one direction, over a picture made paler.

    Flakes are normal noise above `least`; `keep` is the weight of the picture beside its pale grey.
    """
    height, width = canvas_of(x)
    noise = mean + deviation * draws.normal(1, -int(-height // flake), -int(-width // flake))
    flakes = F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
    flakes = torch.where(flakes < least, 0.0, flakes).clamp(0, 1)
    angles = torch.deg2rad(draws.uniform(low=-135, high=-45))
    flakes = fit(convolve(flakes, motion_kernels(angles, radius, sigma), "replicate"), x)
    weights = torch.tensor(GREY, device=x.device)[:, None, None]
    pale = torch.maximum(x, (x * weights).sum(1, keepdim=True) * 1.5 + 0.5)
    return keep * x + (1 - keep) * pale + flakes + flakes.flip(-1, -2)


def frost(x: Tensor, draws: Draws, keep: float, amount: float) -> Tensor:
    """The picture at weight `keep` plus ice at weight `amount`."""
    return keep * x + amount * fit(ice(draws.seeds, *canvas_of(x)).to(x.device), x)


@lru_cache(maxsize=2)
def ice(seeds: tuple[int, ...], height: int, width: int) -> Tensor:
    """(n, 3, H, W) colour of ice on glass in 0..1; kept, since all severities share it."""
    draws = Draws(seeds)
    n = len(seeds)
    rows = torch.arange(height, dtype=torch.float32)[:, None]
    columns = torch.arange(width, dtype=torch.float32)
    # Needles are not straight: space is bent a little before it is measured.
    bend = smooth(draws.normal(2, height, width), 12.0)
    bend = 2.5 * bend / bend.std(dim=(-2, -1), keepdim=True)
    y, x = rows + bend[:, 0], columns + bend[:, 1]  # (n, H, W)

    centres = draws.uniform(2, CRYSTALS, low=-0.1, high=1.1)
    growth = draws.uniform(CRYSTALS, low=0.7, high=1.4)  # some grow faster and take more room
    down = y[:, None] - (centres[:, 0] * height)[..., None, None]  # (n, CRYSTALS, H, W)
    across = x[:, None] - (centres[:, 1] * width)[..., None, None]
    away = torch.hypot(down, across)
    reached, owner = (away / growth[..., None, None]).min(dim=1, keepdim=True)
    turn = torch.atan2(down.gather(1, owner), across.gather(1, owner)) / (2 * torch.pi)  # -0.5..0.5
    distance = away.gather(1, owner)

    # Every crystal has long and short needles by direction; finer ones appear further out.
    needles = torch.zeros(n, 1, height, width)
    for count, weight, from_ in NEEDLES:
        lengths = draws.uniform(CRYSTALS * count)
        place = (turn % 1) * count
        first = place.floor()
        value = torch.zeros_like(place)
        for step, share in ((0, 1 - (place - first)), (1, place - first)):
            index = owner * count + (first.long() + step) % count
            value += share * lengths.gather(1, index.flatten(1)).view_as(place)
        needles += weight * (0.5 + 1.9 * (value - 0.5) * (distance / from_).clamp(max=1.0))
    grain = draws.normal(1, height, width)
    patches = smooth(draws.normal(1, height, width), 24.0)
    patches = patches / patches.std(dim=(-2, -1), keepdim=True)
    border = torch.minimum(
        torch.minimum(rows, height - 1 - rows) / height, torch.minimum(columns, width - 1 - columns) / width
    )
    thick = torch.sigmoid(1.1 * patches + 1.2 - 5.0 * border)  # ice grows from the frame inwards
    seam = torch.exp(-reached / 14.0)
    bright = (needles + 0.25 * seam + 0.05 * grain - 0.12) * 1.25
    bright = (bright.clamp(0, 1) ** 1.4 * (0.35 + 0.65 * thick)).clamp(0, 1)
    dark, light = (torch.tensor(c)[:, None, None] for c in (DARK_ICE, BRIGHT_ICE))
    return dark + (light - dark) * bright


def fog(x: Tensor, draws: Draws, amount: float, decay: float) -> Tensor:
    """A cloudy map times `amount` is added, and the whole brought back to the picture's brightness."""
    height, width = canvas_of(x)
    side = FOG_MAP
    while side < max(height, width):
        side *= 2
    clouds = fit(fractal_map(draws, side, decay)[:, None, :height, :width], x)
    brightest = x.amax(dim=(1, 2, 3), keepdim=True)
    return (x + amount * clouds) * brightest / (brightest + amount)


def fractal_map(draws: Draws, side: int, decay: float) -> Tensor:
    """(n, side, side) in 0..1 by midpoint displacement on a torus, displaced decay² less at every level."""
    clouds = torch.zeros(len(draws.seeds), side, side, device=draws.device)
    step, reach = side, 1.0
    while step > 1:
        half, count = step // 2, side // step
        corners = clouds[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        middles = (pairs + pairs.roll(-1, 2)) / 4
        middles = middles + reach * draws.uniform(count, count, low=-1)
        clouds[:, half::step, half::step] = middles
        # An edge's midpoint lies between two corners and two middles.
        across = (corners + corners.roll(-1, 2) + middles + middles.roll(1, 1)) / 4
        down = (corners + corners.roll(-1, 1) + middles + middles.roll(1, 2)) / 4
        clouds[:, ::step, half::step] = across + reach * draws.uniform(count, count, low=-1)
        clouds[:, half::step, ::step] = down + reach * draws.uniform(count, count, low=-1)
        step, reach = half, reach / decay**2
    low, high = clouds.amin((1, 2), keepdim=True), clouds.amax((1, 2), keepdim=True)
    return (clouds - low) / (high - low)


def brightness(x: Tensor, draws: Draws, amount: float) -> Tensor:
    """The value of hue, saturation and value is raised; the other two stay."""
    value = x.amax(dim=1, keepdim=True)
    raised = (value + amount).clamp(max=1.0)
    return torch.where(value > 0, x * (raised / value.clamp(min=1e-6)), raised)
