"""Per-frame linear classifier: the baseline that knows nothing of time.

Shapes: B batch, T frames, C input features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class FrameLinearConfig:
    num_classes: int = 48
    feature_dim: int = 2048
    dropout: float = 0.0  # on input features


class FrameLinear(nn.Module):
    """Features (B, C, T) to logits (1, B, K, T); one stage, so that it is read as the other models are."""

    def __init__(self, config: FrameLinearConfig) -> None:
        super().__init__()
        self.config = config
        self.drop = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.feature_dim, config.num_classes)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        logits = self.head(self.drop(features.transpose(1, 2))).transpose(1, 2)
        if mask is not None:
            logits = logits * mask[:, None]
        return logits[None]


@register_model(tags=["segmentation", "baseline"], params=98_352)
def frame_linear(**overrides: Any) -> FrameLinear:
    """A linear classifier on every frame by itself."""
    config = replace(FrameLinearConfig(), **checked_overrides(FrameLinearConfig, overrides, "frame_linear"))
    return FrameLinear(config)
