"""Three-tap dilated convolution over time, on channels-last sequences, as three shifted matrix products.

Shapes: B batch, T frames, D width in, E width out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DilatedConv(nn.Module):
    """Each frame sees itself and the frames `dilation` before and after; outside the video there are zeros."""

    def __init__(self, width: int, dilation: int, width_out: int | None = None) -> None:
        super().__init__()
        conv = nn.Conv1d(width, width_out or width, kernel_size=3)  # only for torch's initialisation
        self.dilation = dilation
        self.weight = conv.weight  # (E, D, 3)
        self.bias = conv.bias  # (E,)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, E)
        if torch.is_grad_enabled() or x.device.type != "cpu":
            y = F.conv1d(x.transpose(1, 2), self.weight, self.bias, padding=self.dilation, dilation=self.dilation)
            return y.transpose(1, 2)
        return shifted_products(x, self.weight, self.bias, self.dilation)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, dilation={self.dilation}"


def shifted_products(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """The same convolution without copies: y[t] = W1 x[t] + b, plus W0 x[t - d] and W2 x[t + d] in place."""
    before, here, after = weight.permute(2, 1, 0).contiguous().unbind(0)  # (D, E) each
    y = x @ here if bias is None else F.linear(x, here.T, bias)
    if dilation < x.shape[1]:
        batch = x.shape[0]
        y[:, dilation:].baddbmm_(x[:, :-dilation], before.expand(batch, -1, -1))
        y[:, :-dilation].baddbmm_(x[:, dilation:], after.expand(batch, -1, -1))
    return y
