"""Per-frame linear classifier: the baseline that knows nothing of time.

Shapes: B batch, T frames, C input features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.nn.standardise import Standardise
from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class FrameLinearConfig:
    num_classes: int = 48
    feature_dim: int = 2048
    dropout: float = 0.0  # on input features
    median_window: int = 0  # odd number of frames: smooth the probabilities when predicting, 0 = off
    standardise: bool = False  # features by the statistics of the training set, kept in the model

    def __post_init__(self) -> None:
        if self.median_window and self.median_window % 2 == 0:
            raise ValueError(f"median_window must be odd, to have a middle frame; got {self.median_window}")


class FrameLinear(nn.Module):
    """Features (B, C, T) to logits (1, B, K, T); one stage, so that it is read as the other models are."""

    def __init__(self, config: FrameLinearConfig) -> None:
        super().__init__()
        self.config = config
        self.standardise = Standardise(config.feature_dim) if config.standardise else None
        self.drop = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.feature_dim, config.num_classes)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: (B, T), True = valid; valid frames come first."""
        if self.standardise is not None:
            features = self.standardise(features)
        logits = self.head(self.drop(features.transpose(1, 2))).transpose(1, 2)
        if self.config.median_window and not self.training:
            if mask is not None:
                logits = repeat_last(logits, mask)
            logits = moving_median(logits.softmax(1), self.config.median_window).clamp(min=1e-12).log()
        if mask is not None:
            logits = logits * mask[:, None]
        return logits[None]


def repeat_last(x: Tensor, mask: Tensor) -> Tensor:
    """Padded frames of (B, K, T) take the value of the last valid one, as the end of a lone video does."""
    last = mask.sum(1, keepdim=True) - 1
    index = torch.arange(x.shape[-1], device=x.device).minimum(last)  # (B, T)
    return x.gather(-1, index[:, None].expand_as(x))


def moving_median(x: Tensor, window: int) -> Tensor:
    """Median over `window` frames around each frame of (B, K, T); the ends are repeated outwards."""
    padded = F.pad(x, (window // 2, window // 2), mode="replicate")
    return padded.unfold(-1, window, 1).median(-1).values


@register_model(tags=["segmentation", "baseline"], params=98_352)
def frame_linear(**overrides: Any) -> FrameLinear:
    """A linear classifier on every frame by itself."""
    config = replace(FrameLinearConfig(), **checked_overrides(FrameLinearConfig, overrides, "frame_linear"))
    return FrameLinear(config)
