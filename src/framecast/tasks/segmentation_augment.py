"""Augmentation of feature tracks while training: other speed, other start, noise, lost channels.

Temporal data sets are small (tens of videos), and a model that sees the whole video learns their order by
heart. Randomness comes from torch's generator, which the training loop seeds per sample.
Shapes: C channels, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Augmentation:
    """How strongly a track is changed; every part is off by default."""

    speed: float = 0.0  # each fifth of the video is stretched by a factor from 1/(1+speed) to 1+speed
    noise: float = 0.0  # deviation of Gaussian noise, in units of the track's own deviation per channel
    crop: float = 0.0  # largest share of frames cut away, at a random end or both
    channel_drop: float = 0.0  # probability that a channel is replaced by its mean over the video
    pieces: int = 5  # parts of a video with a speed of their own

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """A changed copy of a sample with features (C, T) and labels (T,)."""
        frames = self.chosen_frames(len(sample["labels"]))
        features = sample["features"][:, frames]
        if self.noise:
            spread = features.std(1, keepdims=True)
            features = features + self.noise * spread * torch.randn(features.shape).numpy()
        if self.channel_drop:
            dropped = (torch.rand(len(features)) < self.channel_drop).numpy()
            features = np.where(dropped[:, None], features.mean(1, keepdims=True), features)
        changed = {"features": features.astype(np.float32), "labels": sample["labels"][frames], "times": None}
        return sample | changed

    def chosen_frames(self, num_frames: int) -> np.ndarray:
        """Indices of the frames that the changed video shows, in order; repeats slow it down."""
        cut = int(self.crop * num_frames * torch.rand(()).item())
        first = int(torch.randint(cut + 1, ()).item())
        position = np.arange(first, num_frames - cut + first)
        if not self.speed:
            return position
        factors = (1 + self.speed) ** (2 * torch.rand(self.pieces) - 1).numpy()
        edges = np.linspace(0, len(position), self.pieces + 1)
        warped = np.append(0.0, np.cumsum(np.diff(edges) * factors))
        target = np.arange(max(1, round(warped[-1]))) + 0.5
        back = np.interp(target, warped, edges)
        return position[np.minimum(back.astype(np.int64), len(position) - 1)]


class Augmented:
    """A data set whose samples are changed anew each time they are asked for."""

    def __init__(self, data: Sequence[dict[str, Any]] | Any, augmentation: Augmentation) -> None:
        self.data, self.augmentation = data, augmentation

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.augmentation(self.data[index])
