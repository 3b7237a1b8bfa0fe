"""Three-tap dilated convolution over time, on channels-last sequences.

Shapes: B batch, T frames, D width in, E width out.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from framecast.ops import native_library
from framecast.ops.activation import Activation, activate
from framecast.ops.shifted_linear import shifted_linear


class DilatedConv(nn.Module):
    """Each frame sees itself and those `dilation` before and after; outside the video there are zeros."""

    def __init__(
        self, width: int, dilation: int, width_out: int | None = None, activation: Activation | None = None
    ) -> None:
        super().__init__()
        conv = nn.Conv1d(width, width_out or width, kernel_size=3)  # only for torch's initialisation
        self.dilation, self.activation = dilation, activation
        self.weight = conv.weight  # (E, D, 3)
        self.bias = conv.bias  # (E,)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, E)
        if native_library.eager_inference() and x.device.type == "cpu":
            shifts = (-self.dilation, 0, self.dilation)
            return shifted_linear(x, self.weight, self.bias, shifts=shifts, activation=self.activation)
        y = F.conv1d(x.transpose(1, 2), self.weight, self.bias, padding=self.dilation, dilation=self.dilation)
        return activate(y.transpose(1, 2), self.activation)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, dilation={self.dilation}"
