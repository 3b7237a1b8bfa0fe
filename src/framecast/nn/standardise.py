"""Features brought to mean 0 and deviation 1 by the statistics of the training set.

Shapes: B batch, C channels, T frames.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x - mean) / std per channel; the statistics are buffers and travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def fit(self, tracks: Iterable[np.ndarray]) -> None:
        """Take the statistics of tracks (C, T) over all their frames, in one pass and double precision."""
        count, total, squares = 0, np.zeros(len(self.mean)), np.zeros(len(self.mean))
        for track in tracks:
            values = np.asarray(track, dtype=np.float64)
            count += values.shape[1]
            total += values.sum(1)
            squares += np.square(values).sum(1)
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        self.mean.copy_(torch.from_numpy(mean))
        # A channel that never changes says nothing; dividing by its rounding noise would make it shout.
        self.std.copy_(torch.from_numpy(np.where(std > 1e-6 * (1 + np.abs(mean)), std, 1.0)))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T)
        return (x - self.mean[:, None]) / self.std[:, None]
