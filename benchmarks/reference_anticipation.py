"""GTDA and MANTA written straight from their equations, sampled the way the releases sample.

All samples stand in one batch beside copies of the observation; every stage of every step reads the
concatenation of labels and features; nothing is kept from one step to the next but the sample and the last
prediction. MANTA's scan is a loop over frames, one direction after the other. Tensor names are those of the
releases.
Shapes: B batch (videos times samples), T frames, C classes, D0 features, F width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from reference_videomamba import reference_mixer
from torch import Tensor, nn

CLASSES, FEATURES, WIDTH = 48, 2048, 64


class SinusoidalEmbedding(nn.Module):
    def forward(self, time: Tensor) -> Tensor:
        half = WIDTH // 2
        frequencies = torch.exp(torch.arange(half, device=time.device) * -(math.log(10000) / (half - 1)))
        angles = time[:, None] * frequencies[None]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def time_mlp() -> nn.Sequential:
    wide = 4 * WIDTH
    return nn.Sequential(SinusoidalEmbedding(), nn.Linear(WIDTH, wide), nn.GELU(), nn.Linear(wide, wide))


class Modulated(nn.Module):
    """A layer whose answer is scaled and shifted by the time, and added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1x1 = nn.Conv1d(WIDTH, WIDTH, 1)
        self.time_mlp = nn.Sequential(nn.SiLU(), nn.Linear(4 * WIDTH, 2 * WIDTH))

    def finish(self, x: Tensor, u: Tensor, embedded: Tensor, mask: Tensor) -> Tensor:
        scale, shift = self.time_mlp(embedded)[:, :, None].chunk(2, dim=1)
        u = u * (scale + 1) + shift
        return (x + u) * mask


class GatedLayer(Modulated):
    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.conv_dilated = nn.Conv1d(WIDTH, WIDTH, 3, padding=dilation, dilation=dilation)
        self.gate_conv_dilated = nn.Conv1d(WIDTH, WIDTH, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor, embedded: Tensor, mask: Tensor) -> Tensor:
        u = self.conv_dilated(x) * torch.sigmoid(self.gate_conv_dilated(x))
        return self.finish(x, F.relu(self.conv_1x1(u)), embedded, mask)


class MambaWeights(nn.Module):
    """Tensors of a bidirectional mixer; the equations are those of the VideoMamba reference."""

    def __init__(self, states: int = 16, taps: int = 3) -> None:
        super().__init__()
        inner, rank = 2 * WIDTH, math.ceil(WIDTH / 16)
        self.in_proj = nn.Linear(WIDTH, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, WIDTH, bias=False)
        for end in ("", "_b"):
            setattr(self, f"conv1d{end}", nn.Conv1d(inner, inner, taps, groups=inner))
            setattr(self, f"x_proj{end}", nn.Linear(inner, rank + 2 * states, bias=False))
            setattr(self, f"dt_proj{end}", nn.Linear(rank, inner))
            setattr(self, f"A{end}_log", nn.Parameter(torch.arange(1, states + 1).log().repeat(inner, 1)))
            setattr(self, f"D{end}", nn.Parameter(torch.ones(inner)))


class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, WIDTH, 1), 0.1))


class MambaLayer(Modulated):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.mamba = MambaWeights()
        self.drop_path = LayerScale()

    def forward(self, x: Tensor, embedded: Tensor, mask: Tensor) -> Tensor:
        u = self.norm(x.transpose(1, 2)) * mask.transpose(1, 2)
        u = reference_mixer(dict(self.mamba.named_parameters()), u).transpose(1, 2)
        u = self.conv_1x1(u * self.drop_path.scale * mask) * mask
        return self.finish(x, u, embedded, mask)


class Stage(nn.Module):
    def __init__(self, channels: int, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.conv_1x1 = nn.Conv1d(channels, WIDTH, 1)
        self.time_mlp = time_mlp()
        self.layers = nn.ModuleList(layers)
        self.conv_out = nn.Conv1d(WIDTH, CLASSES, 1)

    def forward(self, x: Tensor, time: Tensor, mask: Tensor) -> Tensor:
        u = self.conv_1x1(x) * mask
        embedded = self.time_mlp(time)
        for layer in self.layers:
            u = layer(u, embedded, mask)
        return self.conv_out(u) * mask


class ReferenceDenoiser(nn.Module):
    """x_t and x̂_0 (B, T, C), observation (B, T, D0), mask (B, T, 1) -> scores of all stages (S, B, T, C)."""

    def __init__(self, stage1: Stage, stages: list[Stage]) -> None:
        super().__init__()
        self.ms_tcn = nn.Module()
        self.ms_tcn.stage1, self.ms_tcn.stages = stage1, nn.ModuleList(stages)

    def forward(
        self, noisy: Tensor, time: Tensor, observed: Tensor, self_cond: Tensor, mask: Tensor
    ) -> Tensor:
        x = torch.cat([noisy, observed, self_cond], dim=-1).permute(0, 2, 1)
        mask = mask.permute(0, 2, 1)
        first, *later = [self.ms_tcn.get_submodule("stage1"), *self.ms_tcn.get_submodule("stages").children()]
        scores = first(x, time, mask)
        outputs = [scores]
        for stage in later:
            scores = stage(torch.cat([F.softmax(scores, dim=1) * mask, x], dim=1), time, mask)
            outputs.append(scores)
        return torch.stack(outputs).permute(0, 1, 3, 2)


def reference_gtda(num_stages: int = 5, num_layers: int = 9) -> ReferenceDenoiser:
    channels = FEATURES + 2 * CLASSES
    layers = [[GatedLayer(2**i) for i in range(num_layers)] for _ in range(num_stages)]
    later = [Stage(channels + CLASSES, layers[i]) for i in range(1, num_stages)]
    return ReferenceDenoiser(Stage(channels, layers[0]), later)


def reference_manta(num_layers: int = 15) -> ReferenceDenoiser:
    return ReferenceDenoiser(Stage(FEATURES + 2 * CLASSES, [MambaLayer() for _ in range(num_layers)]), [])


@torch.no_grad()
def reference_sampling(
    denoiser: ReferenceDenoiser, observed: Tensor, noise: Tensor, *, steps: int = 50, first: int | None = None
) -> Tensor:
    """DDIM with η = 0 from noise (N, T, C), observation (1, T, D0) -> x̂_0 (N, T, C) of the last step,
    which after all steps is the sample; first: so many steps only."""
    u = torch.arange(1001, dtype=torch.float64) / 1000
    signal = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    levels = torch.cumprod(1 - torch.clip(1 - signal[1:] / signal[:-1], 0, 0.999), dim=0).float()
    times = list(range(0, 1000, 1000 // steps))[::-1]
    observed = observed.repeat(len(noise), 1, 1)
    mask = torch.ones(*noise.shape[:2], 1)
    x, x0 = noise, torch.zeros_like(noise)
    for step in range(steps if first is None else first):
        time = torch.full((len(noise),), times[step])
        level = levels[time].reshape(-1, 1, 1)
        following = levels[times[step + 1]].reshape(1, 1, 1) if step + 1 < len(times) else torch.ones(1, 1, 1)
        x0 = denoiser(x, time, observed, x0, mask)[-1]
        epsilon = (x / level.sqrt() - x0) / (1 / level - 1).sqrt() * mask
        x = following.sqrt() * x0 + (1 - following).sqrt() * epsilon
    return x0
