"""A ConvLSTM on windows of daily maps, the first network that was tried on FireCube (after Kondylatos et al.,
https://arxiv.org/abs/2111.02736, and Shi et al., https://arxiv.org/abs/1506.04214).

Static maps are read once more on every day. What the layers remember after the last day is read in the middle
of the window and on average round it; the day of the year is not known.
Shapes: B batch, V dynamic and S static variables, T days with the latest first, H and W cells, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.models.convlstm import ConvLSTMLayer
from framecast.models.loan import check_windows
from framecast.models.loan_transformers import stacked
from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class DangerConvLSTMConfig:
    num_dynamic: int = 10
    num_static: int = 15
    num_days: int = 10
    window_cells: int = 25
    num_classes: int = 2
    width: int = 64
    num_layers: int = 1
    kernel_size: int = 3
    dropout: float = 0.5


class DangerConvLSTM(nn.Module):
    """Windows of dynamic and static maps to log-probabilities (B, C) for the cell in the middle."""

    def __init__(self, config: DangerConvLSTMConfig) -> None:
        super().__init__()
        self.config = c = config
        channels = [c.num_static + c.num_dynamic] + [c.width] * (c.num_layers - 1)
        self.layers = nn.ModuleList(ConvLSTMLayer(n, c.width, c.kernel_size) for n in channels)
        self.drop = nn.Dropout(c.dropout)
        self.hidden = nn.Linear(2 * c.width, c.width)
        self.head = nn.Linear(c.width, c.num_classes)

    def forward(self, dynamic: Tensor, static: Tensor, day: Tensor | None = None) -> Tensor:
        """dynamic (B, V, T, H, W), static (B, S, H, W) -> (B, C); the day is not used."""
        check_windows(self.config, dynamic, static)
        x = stacked(dynamic, static).flip(2).transpose(1, 2)  # (B, T, S + V, H, W), oldest day first
        for layer in self.layers:
            x = layer(x)
        last = x[:, -1]
        row, column = (n // 2 for n in last.shape[-2:])
        seen = torch.cat([last[..., row, column], last.mean((-2, -1))], dim=1)
        return self.head(self.drop(F.relu(self.hidden(self.drop(seen))))).log_softmax(1)


@register_model(tags=["earth", "danger"], paper="https://arxiv.org/abs/2111.02736", params=213_698)
def danger_convlstm(**overrides: Any) -> DangerConvLSTM:
    """ConvLSTM on windows of dynamic and static maps, an earlier baseline of wildfire danger."""
    own = checked_overrides(DangerConvLSTMConfig, overrides, "danger_convlstm")
    return DangerConvLSTM(replace(DangerConvLSTMConfig(), **own))
