"""Location-aware adaptive normalisation: what a place is like scales and shifts what happens there
(Shams Eddin, Roscher, Gall, TGRS 2023, https://arxiv.org/abs/2212.08208).

Shapes: B batch, C channels, K channels of the condition, T steps, H and W cells.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LocationAwareNorm(nn.Module):
    """x̂ (1 + γ) + β with γ and β read from a map of the same place; they do not change over time.

    a = relu(BN(condition)), γ = conv(a), β = conv(a), x̂ = BN(x), or x itself without `norm`; neither
    normalisation has parameters. The convolutions pad with zeros, so cells at the border of the map are
    treated in their own way.
    """

    def __init__(self, channels: int, condition_channels: int, *, norm: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(channels, affine=False) if norm else nn.Identity()
        self.condition_norm = nn.BatchNorm2d(condition_channels, affine=False)
        self.gamma = nn.Conv2d(condition_channels, channels, kernel_size=3, padding=1)
        self.beta = nn.Conv2d(condition_channels, channels, kernel_size=3, padding=1)
        for conv in (self.gamma, self.beta):  # the layer starts as hardly more than x̂
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def modulation(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, H, W) -> γ and β, each (B, C, H, W)."""
        seen = F.relu(self.condition_norm(condition))
        return self.gamma(seen), self.beta(seen)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, C, T, H, W), condition (B, K, H, W) -> (B, C, T, H, W)."""
        if x.shape[-2:] != condition.shape[-2:]:
            raise ValueError(
                f"the condition has {tuple(condition.shape[-2:])} cells, but x has {tuple(x.shape[-2:])}; "
                "both must cover the same cells"
            )
        gamma, beta = self.modulation(condition)
        return self.norm(x) * (1 + gamma[:, :, None]) + beta[:, :, None]
