"""Activations that an operator applies to its answer, in torch and by number for the kernels."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Activation = Literal["gelu", "relu"]
CODES: dict[Activation | None, int] = {None: 0, "gelu": 1, "relu": 2}


def activate(x: Tensor, activation: Activation | None) -> Tensor:
    if activation == "gelu":
        return F.gelu(x)
    if activation == "relu":
        return F.relu(x)
    return x
