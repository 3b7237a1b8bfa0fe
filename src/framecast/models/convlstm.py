"""ConvLSTM: maps that follow each other to the map that comes next (Shi et al., 2015,
https://arxiv.org/abs/1506.04214), a baseline of Earth forecasting.

Every cell of the grid keeps a memory and sees its neighbours' last answers:

    i, f, o, g = conv_x(x_t) + conv_h(h_{t-1});   c_t = σ(f) c_{t-1} + σ(i) tanh(g);   h_t = σ(o) tanh(c_t)

As usual today without the peepholes of the paper.
Shapes: B batch, V variables, T steps, H rows, W columns, D width, K targets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class ConvLSTMConfig:
    in_channels: int = 25  # variables of a step; those that do not change are repeated
    targets: tuple[str, ...] = ("target",)
    width: int = 64
    num_layers: int = 2
    kernel_size: int = 3
    dropout: float = 0.0  # between layers


class ConvLSTMLayer(nn.Module):
    """A sequence of maps to the memory's answer at every step."""

    def __init__(self, channels: int, width: int, kernel_size: int) -> None:
        super().__init__()
        self.width = width
        padding = kernel_size // 2
        self.conv_x = nn.Conv2d(channels, 4 * width, kernel_size, padding=padding)
        self.conv_h = nn.Conv2d(width, 4 * width, kernel_size, padding=padding, bias=False)
        with torch.no_grad():
            bias = torch.zeros(4, width, device=self.conv_x.weight.device)
            bias[1] = 1.0  # what is in memory stays there at first
            assert self.conv_x.bias is not None
            self.conv_x.bias.copy_(bias.flatten())

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, H, W) -> (B, T, D, H, W)
        steps = self.conv_x(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        h = c = x.new_zeros(x.shape[0], self.width, *x.shape[-2:])
        answers = []
        for step in range(x.shape[1]):
            i, f, o, g = (steps[:, step] + self.conv_h(h)).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            answers.append(h)
        return torch.stack(answers, dim=1)


class ConvLSTM(nn.Module):
    """Standardised variables (B, V, T, H, W), oldest step first, to the targets (B, K, H, W) after them."""

    def __init__(self, config: ConvLSTMConfig) -> None:
        super().__init__()
        self.config = c = config
        if c.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size must be odd, got {c.kernel_size}; each cell is its window's centre"
            )
        if c.num_layers < 1 or not c.targets:
            raise ValueError(f"num_layers is {c.num_layers} and targets {c.targets}; at least one of each")
        channels = [c.in_channels] + [c.width] * (c.num_layers - 1)
        self.layers = nn.ModuleList(ConvLSTMLayer(n, c.width, c.kernel_size) for n in channels)
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Conv2d(c.width, len(c.targets), 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 5 or x.shape[1] != self.config.in_channels:
            raise ValueError(
                f"variables have shape {tuple(x.shape)}; this model reads (B, {self.config.in_channels}, T, "
                "H, W)"
            )
        x = rearrange(x, "b v t h w -> b t v h w")
        for layer in self.layers:
            x = self.dropout(layer(x))
        return self.head(x[:, -1])


@register_model(tags=["earth", "maps", "steps"], paper="https://arxiv.org/abs/1506.04214", params=500_545)
def convlstm(**overrides: Any) -> ConvLSTM:
    """ConvLSTM of two layers: the next map from a sequence of maps, the usual baseline."""
    return ConvLSTM(replace(ConvLSTMConfig(), **checked_overrides(ConvLSTMConfig, overrides, "convlstm")))
