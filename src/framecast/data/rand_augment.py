"""RandAugment by the names that recipes use, "rand-m9-mstd0.5-inc1", on torchvision's operations.

Parts of a name: m9 magnitude out of 10; n2 operations in a row (default 2); mstd0.5 deviation of the
magnitude from draw to draw; inc1 operations grow with the magnitude (always so here); p0.5 probability of
each operation (default 0.5).

Differs from timm, whose names these are: magnitudes are rounded to torchvision's 31 levels (m9 is level 27);
translations reach 45 % of the side at magnitude 10 as there; posterize keeps 4 bits at magnitude 10 where
timm keeps none; torchvision has Identity where timm has Invert and SolarizeAdd; warps are bilinear, as there
are no bicubic ones for tensors. Source: Cubuk et al., 2020 (https://arxiv.org/abs/1909.13719).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

LEVELS = 31
STRONGEST = 10  # magnitude that is torchvision's last level
DEFAULTS = {"m": 10.0, "n": 2.0, "mstd": 0.0, "inc": 0.0, "p": 0.5}


class RandAugment(nn.Module):
    """A few random operations on uint8 images or clips (..., 3, H, W), the same for all frames."""

    def __init__(self, name: str, *, fill: Sequence[float] = (124, 116, 104)) -> None:
        super().__init__()
        values = parse_name(name)
        self.magnitude, self.deviation = values["m"], values["mstd"]
        self.num_ops, self.probability = int(values["n"]), values["p"]
        mode = InterpolationMode.BILINEAR
        self.levels = [
            v2.RandAugment(1, level, LEVELS, interpolation=mode, fill=list(fill)) for level in range(LEVELS)
        ]

    def forward(self, frames: Tensor) -> Tensor:
        for _ in range(self.num_ops):
            if torch.rand(()) < self.probability:
                drawn = self.magnitude + self.deviation * float(torch.randn(()))
                strength = min(max(drawn, 0.0), float(STRONGEST)) / STRONGEST
                frames = self.levels[round(strength * (LEVELS - 1))](frames)
        return frames


def parse_name(name: str) -> dict[str, float]:
    """ "rand-m9-mstd0.5-inc1" -> {"m": 9, "mstd": 0.5, "inc": 1, "n": 2, "p": 0.5}."""
    head, *parts = name.split("-")
    values = dict(DEFAULTS)
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
        if head != "rand" or match is None or match[1] not in values:
            raise ValueError(
                f"rand_augment {name!r}: {part!r} is not understood; "
                "a name is for example rand-m9-mstd0.5-inc1 (parts m, n, mstd, inc, p with a number)"
            )
        values[match[1]] = float(match[2])
    if head != "rand" or not parts:
        raise ValueError(
            f"rand_augment {name!r} is not understood; a name is for example rand-m9-mstd0.5-inc1"
        )
    if not 0 <= values["m"] <= STRONGEST or not 0 <= values["p"] <= 1 or values["n"] != int(values["n"]):
        raise ValueError(
            f"rand_augment {name!r}: m is from 0 to {STRONGEST}, p from 0 to 1, n a whole number"
        )
    return values
