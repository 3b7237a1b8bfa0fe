"""Focal-TSMP's U-Net of focal modulation blocks, written straight down from the equations.

Tokens [B, H W, C] between blocks, [B, C, H, W] inside convolutions, copies from one to the other; layer norm,
modulation, residual, MLP one after the other on whole maps. Tensors are named as in the release.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 0.5**0.5


class Modulation(nn.Module):
    def __init__(self, width: int, levels: int = 3, window: int = 3) -> None:
        super().__init__()
        self.width, self.levels = width, levels
        self.f = nn.Linear(width, 2 * width + levels + 1)
        self.h = nn.Conv2d(width, width, 1)
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, k, padding=k // 2, groups=width, bias=False), nn.GELU())
            for k in range(window, window + 2 * levels, 2)
        )
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C) -> (B, H, W, C)
        x = self.f(x).permute(0, 3, 1, 2).contiguous()
        q, context, gates = x.split([self.width, self.width, self.levels + 1], 1)
        everything = 0
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            everything = everything + context * gates[:, level : level + 1]
        whole = F.gelu(context.mean((2, 3), keepdim=True))
        everything = everything + whole * gates[:, self.levels :]
        x = q * self.h(everything)
        return self.proj(x.permute(0, 2, 3, 1).contiguous())


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.modulation = Modulation(width)
        self.mlp = Mlp(width, int(ratio * width))
        self.gamma_1 = nn.Parameter(torch.full((width,), SCALE))
        self.gamma_2 = nn.Parameter(torch.full((width,), SCALE))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:  # (B, H W, C) -> (B, H W, C)
        batch, tokens, channels = x.shape
        shortcut = x
        x = self.norm1(x).view(batch, height, width, channels)
        x = self.modulation(x).view(batch, tokens, channels)
        x = shortcut + self.gamma_1 * x
        return x + self.gamma_2 * self.mlp(self.norm2(x))


class Patches(nn.Module):
    def __init__(self, channels: int, width: int, size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, size, stride=size)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(x)
        return x.flatten(2).transpose(1, 2), *x.shape[2:]


class UpSample(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.proj = nn.Sequential(up, nn.Conv2d(channels, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Level(nn.Module):
    def __init__(self, width: int, depth: int, ratio: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, ratio) for _ in range(depth))
        self.downsample: Patches | None = None
        self.upsample: UpSample | None = None

    def run(self, x: Tensor, height: int, width: int) -> Tensor:
        for block in self.blocks:
            x = block(x, height, width)
        return x


def levels(layers: nn.ModuleList) -> list[Level]:
    return [layer for layer in layers if isinstance(layer, Level)]


class Encoder(nn.Module):
    def __init__(self, channels: int, widths: tuple[int, ...], depth: int) -> None:
        super().__init__()
        self.patch_embed = Patches(channels, widths[0], 1)
        self.layers = nn.ModuleList(Level(width, depth, 4.0) for width in widths)
        for before, layer, width in zip(widths, levels(self.layers)[1:], widths[1:], strict=False):
            layer.downsample = Patches(before, width, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, height, width = self.patch_embed(x)
        maps = []
        for layer in levels(self.layers):
            if layer.downsample is not None:
                x, height, width = layer.downsample(maps[-1])
            x = layer.run(x, height, width)
            maps.append(x.transpose(1, 2).reshape(len(x), -1, height, width).contiguous())
        return maps


class Head(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.act = nn.Conv2d(width, width // 2, 3, padding=1), nn.LeakyReLU(0.2)
        self.conv3 = nn.Conv2d(width // 2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.act(self.conv1(x)))


class Decoder(nn.Module):
    def __init__(self, widths: tuple[int, ...], depth: int) -> None:
        super().__init__()
        first, second, third = widths
        plan = [(third, third // 2), (second + third // 2, second), (first + second, 3 * first)]
        self.layers = nn.ModuleList(Level(width, depth, 2.0) for width, _ in plan)
        for layer, (width, width_out) in zip(levels(self.layers)[:-1], plan, strict=False):
            layer.upsample = UpSample(width, width_out)
        self.BT_block, self.NDVI_block = Head(3 * first), Head(3 * first)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1]
        for layer, skip in zip(levels(self.layers), [*maps[-2::-1], None], strict=True):
            height, width = x.shape[2:]
            x = layer.run(x.flatten(2).transpose(1, 2).contiguous(), height, width)
            x = x.transpose(1, 2).reshape(len(x), -1, height, width).contiguous()
            if layer.upsample is not None and skip is not None:
                x = layer.upsample(x)
                if x.shape[2:] != skip.shape[2:]:
                    x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
                x = torch.cat([skip, x], dim=1)
        return torch.cat([self.BT_block(x), self.NDVI_block(x)], dim=1)


class ReferenceFocalTSMP(nn.Module):
    """(B, V, H, W) to BT and NDVI (B, 2, H, W)."""

    def __init__(self, channels: int = 71, widths: tuple[int, ...] = (96, 192, 384), depth: int = 2) -> None:
        super().__init__()
        self.encoder = Encoder(channels, widths, depth)
        self.decoder = Decoder(widths, depth)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))
