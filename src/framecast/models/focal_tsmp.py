"""Focal-TSMP: satellite vegetation from a week of regional climate simulation (Shams Eddin, Gall, GMD 2024,
https://doi.org/10.5194/gmd-17-2987-2024).

A U-Net maps the weather, soil and ground water of a week to the NDVI and the brightness temperature (BT) that
a satellite would see in that week. Encoder and decoder are made of blocks of one family: focal modulation,
Swin Transformer 1 or 2, Wave-MLP or residual convolutions.
Shapes: B batch, V variables, H rows (north first), W columns, T targets, C channels; maps inside are
channel-last [B, H, W, C]. All variables and targets are standardised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.models.focal_tsmp_layout import OFFICIAL
from framecast.nn.focal_modulation import FocalBlock
from framecast.nn.map_convolution import ConvBlock
from framecast.nn.map_layers import (
    ChannelAttention,
    ConvolutionByRows,
    DownConv,
    HalvedMap,
    Interpolate,
    PatchEmbed,
    PatchMerging,
    PointConv,
    UpSample,
    UpSampling,
    channels_first,
    channels_last,
    resize,
    row_bands,
)
from framecast.nn.wave_mlp import WaveBlock
from framecast.nn.windowed_attention import OffsetBias, SwinBlock
from framecast.ops import native_library
from framecast.registry import checked_overrides, register_model

__all__ = ["OFFICIAL", "FocalTSMP", "FocalTSMPConfig"]

Family = Literal["focal", "swin", "swin2", "wave", "cnn"]


@dataclass(frozen=True)
class FocalTSMPConfig:
    """Pairs of settings are (encoder, decoder)."""

    in_channels: int = 71  # 65 of the simulation, 6 that do not change
    targets: tuple[str, ...] = ("BT", "NDVI")
    encoder: Family = "focal"
    decoder: Family = "focal"
    widths: tuple[int, ...] = (96, 192, 384)  # of the encoder's levels
    depths: tuple[int, ...] = (2, 2, 2)  # blocks per level
    decoder_depths: tuple[int, ...] = (2, 2, 2)  # coarsest level first
    patch_size: int = 1
    patch_norm: bool = False
    grid: tuple[int, int] | None = None  # rows and columns; only a learned position per patch needs them
    channel_attention: int = 0  # reduction of its MLP, 0 = none (5 in the release's option)
    channel_pooling: tuple[str, ...] = ("mean", "std")
    mlp_ratio: tuple[float, float] = (4.0, 2.0)
    up_sampling: UpSampling = "bilinear"
    dropout: float = 0.2
    drop_path: float = 0.3  # largest rate: at the encoder's last and the decoder's first block
    # focal modulation
    focal_levels: tuple[int, ...] = (3, 3, 3)  # per level
    focal_windows: tuple[int, ...] = (3, 3, 3)  # of the first focal level, later ones look 2 pixels further
    decoder_focal_levels: tuple[int, ...] = (3, 3, 3)
    decoder_focal_windows: tuple[int, ...] = (3, 3, 3)
    layer_scale: tuple[bool, bool] = (True, True)
    post_norm: tuple[bool, bool] = (False, False)
    post_norm_modulation: tuple[bool, bool] = (False, False)
    normalise_modulator: tuple[bool, bool] = (False, False)
    # Swin Transformer
    window: int = 8
    heads: tuple[int, ...] = (3, 6, 12)
    decoder_heads: tuple[int, ...] = (3, 6, 12)
    pretrained_window: int = 12  # unit of version 2's offsets, 0 = the window itself
    # convolutions
    down_sampling: Literal["conv", "max"] = "conv"
    scrambled: bool = False  # the release's exchange of height and width, for its own weights only

    def decoder_widths(self) -> list[tuple[int, int]]:
        """(in, out) of the decoder's levels, coarsest first."""
        last = len(self.widths) - 1
        outs = [self.widths[-1] // 2, *self.widths[last - 1 : 0 : -1], 3 * self.widths[0]]
        ins = [self.widths[-1]] + [self.widths[last - 1 - k] + outs[k] for k in range(last)]
        return list(zip(ins, outs, strict=True))


class Encoder(nn.Module):
    """Variables to maps of every level, finest first; each level but the first begins by halving the grid."""

    def __init__(self, c: FocalTSMPConfig) -> None:
        super().__init__()
        cnn, widths = c.encoder == "cnn", c.widths
        self.channel_attention = None
        if c.channel_attention:
            self.channel_attention = ChannelAttention(c.in_channels, c.channel_attention, c.channel_pooling)
        self.embed = None if cnn else PatchEmbed(c.in_channels, widths[0], c.patch_size, norm=c.patch_norm)
        self.position = None
        if c.grid is not None:
            rows, columns = c.grid[0] // c.patch_size, c.grid[1] // c.patch_size
            self.position = nn.Parameter(torch.zeros(rows * columns, widths[0]))
        rates = spread(c.drop_path, c.depths)
        self.down = nn.ModuleList(halving(c, *pair) for pair in pairwise(widths))
        self.levels = nn.ModuleList()
        for level, width in enumerate(widths):
            if cnn:
                before = widths[level - 1] if level else c.in_channels
                blocks: list[nn.Module] = [ConvBlock(before, width, scrambled=c.scrambled)]
            else:
                blocks = [make_block(c, "encoder", level, width, i, r) for i, r in enumerate(rates[level])]
            self.levels.append(nn.ModuleList(blocks))

    def forward(self, x: Tensor) -> list[Tensor]:  # (B, V, H, W) -> levels of (B, H', W', C)
        if self.channel_attention is not None:
            x = self.channel_attention(x)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.embed(x) if self.embed is not None else channels_last(x)
        if self.position is not None:
            x = x + self.position.unflatten(0, x.shape[1:3])
        maps: list[Tensor] = []
        for index, level in enumerate(self.levels):
            x = self.down[index - 1](x) if index else x
            for block in cast("nn.ModuleList", level):
                x = block(x)
            maps.append(x)
        return maps


class Decoder(nn.Module):
    """Maps of every level to one of the finest grid, 3 times as wide as the encoder's first level."""

    def __init__(self, c: FocalTSMPConfig) -> None:
        super().__init__()
        cnn, plan = c.decoder == "cnn", c.decoder_widths()
        self.levels, self.up = nn.ModuleList(), nn.ModuleList()
        rates = spread(c.drop_path, c.decoder_depths, falling=True)
        for level, (width, width_out) in enumerate(plan):
            if cnn:
                blocks: list[nn.Module] = [ConvBlock(width, width_out, scrambled=c.scrambled)]
            else:
                blocks = [make_block(c, "decoder", level, width, i, r) for i, r in enumerate(rates[level])]
            self.levels.append(nn.ModuleList(blocks))
        for width, width_out in plan[:-1]:
            # the convolution block has changed the width by itself
            self.up.append(Interpolate(c.up_sampling) if cnn else UpSample(width, width_out, c.up_sampling))

    def forward(self, maps: list[Tensor]) -> Tensor:  # finest first; emptied on the way, to save memory
        x = maps.pop()
        for index, level in enumerate(self.levels):
            for block in cast("nn.ModuleList", level):
                x = block(x)
            if maps:
                x, skip = self.up[index](x), maps.pop()
                x = torch.cat([skip, resize(x, *skip.shape[1:3])], dim=-1)
                del skip
        return x


class Heads(nn.Module):
    """Per target conv3x3, LeakyReLU, conv3x3; the first convolutions read the same map and are one."""

    def __init__(self, width: int, targets: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, targets * (width // 2), 3, padding=1)
        self.conv2 = nn.Conv2d(targets * (width // 2), targets, 3, padding=1, groups=targets)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C) -> (B, H, W, T)
        if native_library.eager_inference() and x.device.type == "cpu":
            return torch.stack([self.in_bands(one) for one in x])
        return channels_last(self.conv2(F.leaky_relu(self.conv1(channels_first(x)), 0.2)))

    def in_bands(self, x: Tensor) -> Tensor:  # (H, W, C) -> (H, W, T)
        conv1, conv2 = ConvolutionByRows(self.conv1), ConvolutionByRows(self.conv2)
        parts = []
        for first, last in row_bands(len(x), 4 * x.shape[1] * x.shape[2], 8 << 20):
            end = last == len(x)
            hidden = F.leaky_relu(conv1(x[first:last], end=end), 0.2, inplace=True)
            parts.append(conv2(hidden, end=end))
        return torch.cat(parts)


class FocalTSMP(nn.Module):
    """Standardised variables (B, V, H, W) to standardised targets (B, T, H, W), in the config's order."""

    def __init__(self, config: FocalTSMPConfig) -> None:
        super().__init__()
        check(config)
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.heads = Heads(3 * config.widths[0], len(config.targets))
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Raises ValueError for another number of variables or a grid too small for the levels."""
        c, (height, width) = self.config, x.shape[-2:]
        if x.ndim != 4 or x.shape[1] != c.in_channels:
            raise ValueError(
                f"variables have shape {tuple(x.shape)}; this model reads (B, {c.in_channels}, H, W)"
            )
        if min(height, width) < c.patch_size * 2 ** (len(c.widths) - 1):
            raise ValueError(
                f"a grid of {height}x{width} is too small to be halved {len(c.widths) - 1} times from "
                f"patches of {c.patch_size}; pass a larger region or set fewer widths"
            )
        if c.grid is not None and (height, width) != c.grid:
            raise ValueError(
                f"this model has a learned position per patch of a grid of {c.grid}, not {height}x{width}"
            )
        x = resize(self.decoder(self.encoder(x)), height, width)
        return channels_first(self.heads(x)).contiguous()

    def no_weight_decay(self) -> set[str]:
        """Beside vectors, what the release does not decay: tables of Swin's biases."""
        return {name for name, _ in self.named_parameters() if name.endswith("attn.bias.table")}


# Parts by family ------------------------------------------------------------------------------------


def make_block(c: FocalTSMPConfig, side: str, level: int, width: int, index: int, rate: float) -> nn.Module:
    """Block `index` of a level; the decoder's levels count from the coarsest."""
    decoding = side == "decoder"
    family = c.decoder if decoding else c.encoder
    common: dict[str, Any] = {
        "mlp_ratio": c.mlp_ratio[decoding],
        "dropout": c.dropout,
        "drop_path": rate,
    }
    if family == "wave":
        return WaveBlock(width, **common)
    if family == "focal":
        levels, windows = c.focal_levels, c.focal_windows
        if decoding:
            levels, windows = c.decoder_focal_levels, c.decoder_focal_windows
        return FocalBlock(
            width,
            levels=levels[level],
            window=windows[level],
            normalise=c.normalise_modulator[decoding],
            post_norm=c.post_norm[decoding],
            post_norm_modulation=c.post_norm_modulation[decoding],
            layer_scale=0.5**0.5 if c.layer_scale[decoding] else None,
            **common,
        )
    return SwinBlock(
        width,
        (c.decoder_heads if decoding else c.heads)[level],
        c.window,
        shifted=index % 2 == 1,
        version=2 if family == "swin2" else 1,
        trained_window=c.pretrained_window,
        learned_scale=decoding,  # the release's encoder keeps its initial temperature, which is not saved
        **common,
    )


def halving(c: FocalTSMPConfig, width: int, width_out: int) -> nn.Module:
    """What begins a coarser level of the encoder."""
    if c.encoder in ("swin", "swin2"):
        return PatchMerging(width, width_out)
    if c.encoder == "cnn":
        return HalvedMap(width, c.down_sampling)
    return DownConv(width, width_out)


def spread(largest: float, depths: tuple[int, ...], *, falling: bool = False) -> list[list[float]]:
    """Drop-path rates per level and block, rising evenly from 0, or falling to it."""
    rates = torch.linspace(0, largest, sum(depths), device="cpu").tolist()
    ordered: Iterator[float] = iter(rates[::-1] if falling else rates)
    return [[next(ordered) for _ in range(depth)] for depth in depths]


def check(c: FocalTSMPConfig) -> None:
    """ValueError where settings do not fit each other."""
    levels = len(c.widths)
    if levels < 2 or not c.targets:
        raise ValueError(f"widths {c.widths} and targets {c.targets}: give two or more widths, a target")
    per_level: dict[str, tuple[int, ...]] = {}
    if c.encoder != "cnn":
        per_level["depths"] = c.depths
    if c.decoder != "cnn":
        per_level["decoder_depths"] = c.decoder_depths
        width, width_out = c.decoder_widths()[-1]
        if width != width_out:
            raise ValueError(
                f"widths {c.widths} make the decoder's last level {width} wide where its heads read "
                f"{width_out}; let the second width be twice the first, or take the cnn decoder"
            )
    for side, family in (("", c.encoder), ("decoder_", c.decoder)):
        names = {"focal": ("focal_levels", "focal_windows"), "swin": ("heads",), "swin2": ("heads",)}
        per_level |= {side + name: getattr(c, side + name) for name in names.get(family, ())}
    for name, values in per_level.items():
        if len(values) != levels:
            raise ValueError(f"{name} {values} says something else than one number for each width {c.widths}")
    if c.encoder == "cnn" and (c.patch_size != 1 or c.channel_attention or c.grid):
        raise ValueError("the cnn encoder has no patches, positions or channel attention; leave them out")


# Initialisation -------------------------------------------------------------------------------------


def init_weights(model: FocalTSMP) -> None:
    """As the release: convolutions of the encoder Xavier normal, all else truncated normal of 0.02.

    Biases are zero. Norms behind the branches of version 2 of Swin begin at 0: its blocks change nothing.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            plain = type(module) is nn.Linear
            in_decoder = not name.startswith("encoder.")
            fill: Callable[..., Tensor] = nn.init.xavier_normal_
            if plain or (in_decoder and isinstance(module, PointConv | nn.Conv2d)):
                fill = truncated_normal
            fill(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, OffsetBias):
            nn.init.trunc_normal_(module.table, std=0.02)
        elif isinstance(module, SwinBlock) and module.post_norm:
            for norm in (module.norm1, module.norm2):
                nn.init.zeros_(norm.weight)
    if model.encoder.position is not None:
        nn.init.trunc_normal_(model.encoder.position, std=0.02)


def truncated_normal(weight: Tensor) -> Tensor:
    return nn.init.trunc_normal_(weight, std=0.02)


# Named sizes ----------------------------------------------------------------------------------------


@register_model(
    tags=["earth", "maps"],
    paper="https://doi.org/10.5194/gmd-17-2987-2024",
    params=12_312_242,
    system="focal_tsmp",
)
def focal_tsmp(**overrides: Any) -> FocalTSMP:
    """Focal-TSMP as published: a U-Net of focal modulation blocks at three resolutions."""
    given = checked_overrides(FocalTSMPConfig, overrides, "focal_tsmp")
    return FocalTSMP(replace(FocalTSMPConfig(encoder="focal", decoder="focal"), **given))


@register_model(tags=["earth", "maps"], paper="https://doi.org/10.5194/gmd-17-2987-2024", params=12_022_934)
def focal_tsmp_swin(**overrides: Any) -> FocalTSMP:
    """Focal-TSMP's U-Net of Swin Transformer blocks."""
    given = checked_overrides(FocalTSMPConfig, overrides, "focal_tsmp_swin")
    return FocalTSMP(replace(FocalTSMPConfig(encoder="swin", decoder="swin"), **given))


@register_model(tags=["earth", "maps"], paper="https://doi.org/10.5194/gmd-17-2987-2024", params=12_062_060)
def focal_tsmp_swin2(**overrides: Any) -> FocalTSMP:
    """Focal-TSMP's U-Net of blocks of the second Swin Transformer."""
    given = checked_overrides(FocalTSMPConfig, overrides, "focal_tsmp_swin2")
    return FocalTSMP(replace(FocalTSMPConfig(encoder="swin2", decoder="swin2"), **given))


@register_model(tags=["earth", "maps"], paper="https://doi.org/10.5194/gmd-17-2987-2024", params=15_561_698)
def focal_tsmp_wave(**overrides: Any) -> FocalTSMP:
    """Focal-TSMP's U-Net of Wave-MLP blocks."""
    given = checked_overrides(FocalTSMPConfig, overrides, "focal_tsmp_wave")
    return FocalTSMP(replace(FocalTSMPConfig(encoder="wave", decoder="wave"), **given))


@register_model(tags=["earth", "maps"], paper="https://doi.org/10.5194/gmd-17-2987-2024", params=10_022_690)
def focal_tsmp_cnn(**overrides: Any) -> FocalTSMP:
    """Focal-TSMP's U-Net of residual convolutions, without the release's exchange of height and width."""
    given = checked_overrides(FocalTSMPConfig, overrides, "focal_tsmp_cnn")
    return FocalTSMP(replace(FocalTSMPConfig(encoder="cnn", decoder="cnn"), **given))
