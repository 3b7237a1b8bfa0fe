"""Small things that sequence models share.

Shapes: B batch, T frames, C channels in, D width.
"""

from __future__ import annotations

from torch import Tensor, nn


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros at the invalid frames of (B, T, D); mask (B, T), None = all valid."""
    return x if mask is None else x * mask[..., None]


def project_channels(x: Tensor, linear: nn.Linear) -> Tensor:
    """(B, C, T) -> (B, T, D); multiplies from the left, since a copy of wide features costs more."""
    return (linear.weight @ x + linear.bias[:, None]).transpose(1, 2).contiguous()
