"""A backbone small enough for tests, with the interface of framecast.backbones."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from framecast.infer.features import FeatureSettings


@dataclass(frozen=True)
class TinyConfig:
    mean: tuple[float, float, float] = (0.5, 0.4, 0.3)
    std: tuple[float, float, float] = (0.2, 0.25, 0.5)


class TinyBackbone(nn.Module):
    """Tokens are the mean colour of each patch, twice over; the class token is their mean."""

    num_prefix_tokens = 1
    feature_dim = 6
    stride = 8

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.config = TinyConfig()
        self.scale = nn.Parameter(torch.randn(6, generator=torch.Generator().manual_seed(seed)))
        self.threads_seen: set[str] = set()

    def forward_features(self, images: Tensor, layer: int | None = None) -> Tensor:
        self.threads_seen.add(threading.current_thread().name)
        assert torch.is_inference_mode_enabled()
        patches = nn.functional.avg_pool2d(images, self.stride).flatten(2).transpose(1, 2)
        tokens = torch.cat([patches, patches**2], dim=-1) * self.scale + (layer or 0)
        return torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)


def make_backbone(settings: FeatureSettings) -> TinyBackbone:
    """`weights` is a seed, or a word that makes the backbone misbehave."""
    if settings.weights == "die":
        return DyingBackbone()
    if settings.weights == "random":
        return TinyBackbone(os.getpid())
    return TinyBackbone(int(settings.weights or 0))


class DyingBackbone(TinyBackbone):
    """Takes its process along when it meets a video of five frames."""

    def forward_features(self, images: Tensor, layer: int | None = None) -> Tensor:
        if os.environ.get("TINY_BACKBONE_MAY_DIE") and len(images) == 5:
            os._exit(9)
        return super().forward_features(images, layer)
