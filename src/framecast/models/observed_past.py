"""What a network is told of the steps beyond the past: nothing, or what was seen, and clocks.

The papers leave the observation of all future steps zero, so a network has to carry there what it saw itself.
With features of thousands of channels, large data and long training it learns to. From labels on little data
it helps to be told how long ago the past ended, and with what; that is our addition.
Shapes: B batch, D0 observed channels, T steps.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Beyond = Literal["zeros", "held"]
CLOCKS = 5


def observed_channels(feature_dim: int, beyond: Beyond) -> int:
    """Channels that a network reads of an observation of `feature_dim`."""
    return 2 * feature_dim + CLOCKS if beyond == "held" else feature_dim


def beyond_past(observed: Tensor, mask: Tensor | None, beyond: Beyond) -> Tensor:
    """The observation (B, D0, T), zero beyond the past, as a network reads it.

    "zeros" leaves it as it is. "held" lets the last observed step go on, adds the mean of the past to every
    step, and five channels: beyond the past or not; log of the steps since the past ended; place in the
    video; share of it that is past; log of the steps for which the past had been as at its end. mask: (B, T),
    None = all valid.
    """
    if beyond == "zeros":
        return observed
    frames = observed.shape[2]
    places = torch.arange(frames, device=observed.device)
    seen = (observed != 0).any(dim=1)
    last = (seen * places).amax(1, keepdim=True)  # (B, 1)
    mean = observed.sum(2, keepdim=True) / (last + 1)[..., None]
    final = observed.gather(2, last[:, None].expand(-1, observed.shape[1], -1))  # (B, D0, 1)
    future = places > last
    other = (observed != final).any(dim=1) & ~future
    since = last - (other * (places + 1)).amax(1, keepdim=True) + 1
    total = torch.full_like(last, frames) if mask is None else mask.sum(1, keepdim=True)
    clocks = [
        future,
        (places - last).clamp(min=0).log1p() / 4,
        places / total,
        ((last + 1) / total).expand(-1, frames),
        (since.log1p() / 4).expand(-1, frames),
    ]
    told = torch.stack([clock.to(observed.dtype) for clock in clocks], dim=1)
    held = torch.where(future[:, None], final, observed)
    return torch.cat([held, mean.expand_as(held), told], dim=1)
