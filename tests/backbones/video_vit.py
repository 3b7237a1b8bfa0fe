"""Small models and clips for the tests of the video ViTs, and an image ViT's weights to start them from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import framecast as fc

TINY: dict[str, Any] = {
    "width": 24,
    "depth": 2,
    "num_heads": 3,
    "patch_size": 8,
    "image_size": 16,
    "num_classes": 5,
}


def randomised(name: str, **config: Any) -> Any:
    """A tiny model in eval mode, its weights far from any special value."""
    torch.manual_seed(0)
    model = fc.create_model(name, **TINY | config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def clip(frames: int = 4, side: int = 16, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, frames, side, side)
