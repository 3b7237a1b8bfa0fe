"""What sequence models share: masks, pointwise maps with their residuals, and the way in and out of (B, C, T).

At inference a map takes bias, activation and residual into one pass (`ops.shifted_linear`); while gradients are
recorded each is torch's own operator.
Shapes: B batch, T frames, C channels in, D width in, E width out, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from framecast.ops import native_library
from framecast.ops.shifted_linear import shifted_linear


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros at the invalid frames of (B, T, D); mask (B, T), None = all valid."""
    return x if mask is None else x * mask[..., None]


class Pointwise(nn.Linear):
    """residual + dropout(W x + b), frame by frame."""

    def __init__(self, width_in: int, width_out: int, dropout: float = 0.0) -> None:
        super().__init__(width_in, width_out)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, residual: Tensor | None = None
    ) -> Tensor:  # (B, T, D), (B, T, E) -> (B, T, E)
        dropping = self.drop.training and self.drop.p > 0
        if not dropping and native_library.usable(x, self.weight, residual):
            return shifted_linear(x, self.weight, self.bias, add=residual, impl="native")
        y = self.drop(super().forward(x))
        return y if residual is None else y + residual


def project_channels(x: Tensor, linear: nn.Linear) -> Tensor:
    """(B, C, T) -> (B, T, D); multiplies from the left, since a copy of wide features costs more."""
    if torch.is_grad_enabled():
        return (linear.weight @ x + linear.bias[:, None]).transpose(1, 2).contiguous()
    y = x.new_empty(x.shape[0], x.shape[2], linear.out_features)
    for video, out in zip(x, y, strict=True):
        torch.addmm(linear.bias, video.T, linear.weight.T, out=out)
    return y
