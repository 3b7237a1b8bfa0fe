"""ViT over all patches of all frames: joint space-time attention, the DeiT baseline of VideoMamba.

(Li et al., 2024, https://arxiv.org/abs/2403.06977.) Boxes of `tubelet` frames x P x P pixels are the patches;
there are one class token, one table of positions in the frame and one of times, and plain Transformer blocks
over all tokens.
Shapes: B clips, T time steps (frames / tubelet), N patches of a frame, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from framecast.backbones.vit import IMAGENET_MEAN, IMAGENET_STD
from framecast.backbones.vit_layouts import IMAGE_VIT, read_trunk, resample_pos_embed
from framecast.nn.embeddings import (
    Inflation,
    Resampling,
    TubeletEmbed,
    inflate_patch_kernel,
    patch_grid,
    resample_positions,
    resample_times,
)
from framecast.nn.transformer import Block, init_transformer
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class VitJointConfig:
    width: int = 192
    depth: int = 12
    num_heads: int = 3
    patch_size: int = 16
    tubelet: int = 1  # frames of a patch
    image_size: int | tuple[int, int] = 224  # pixels (height, width) of the position table
    num_frames: int = 8
    mlp_ratio: float = 4.0
    num_classes: int = 400  # 0 = features only, no head
    norm_eps: float = 1e-6
    drop_path: float = 0.0  # rate of the last block, linear over depth
    resampling: Resampling = "bicubic"  # of positions; times are resampled linearly
    inflation: Inflation = "centre"  # of the patch kernel, where weights of an image ViT are read
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def grid(self) -> tuple[int, int]:
        return patch_grid(self.image_size, self.patch_size)


class JointViT(nn.Module):
    """Clips to class scores; `forward_features` gives the tokens, also of an inner block."""

    num_prefix_tokens = 1

    def __init__(self, config: VitJointConfig) -> None:
        super().__init__()
        self.config = c = config
        if c.num_frames % c.tubelet:
            raise ValueError(f"num_frames {c.num_frames} is not a multiple of tubelet {c.tubelet}")
        self.patch_embed = TubeletEmbed(c.patch_size, c.width, tubelet=c.tubelet)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + c.grid[0] * c.grid[1], c.width))
        self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, c.num_frames // c.tubelet, c.width))
        self.blocks = nn.ModuleList(
            Block(
                c.width,
                c.num_heads,
                mlp_ratio=c.mlp_ratio,
                norm_eps=c.norm_eps,
                drop_path=c.drop_path * i / max(c.depth - 1, 1),
            )
            for i in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.head = nn.Linear(c.width, c.num_classes) if c.num_classes else nn.Identity()
        self.init_weights()

    @property
    def feature_dim(self) -> int:
        return self.config.width

    @property
    def stride(self) -> int:
        return self.config.patch_size

    def init_weights(self) -> None:
        """As DeiT; times 0."""
        init_transformer(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token", "temporal_pos_embedding"}

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names from the input to the head, for rates that fall with depth."""
        embeddings = ["patch_embed", "pos_embed", "cls_token", "temporal_pos_embedding"]
        return [embeddings, *([f"blocks.{i}"] for i in range(self.config.depth)), ["norm", "head"]]

    def embed(self, clips: Tensor) -> Tensor:  # (B, 3, frames, H, W) -> (B, 1 + T N, D)
        c = self.config
        x = self.patch_embed(clips)  # (B, T, N, D)
        grid = patch_grid((clips.shape[-2], clips.shape[-1]), c.patch_size)
        positions = resample_positions(self.pos_embed, c.grid, grid, num_prefix=1, mode=c.resampling)
        times = resample_times(self.temporal_pos_embedding, x.shape[1])
        x = x + positions[:, None, 1:] + times[:, :, None]
        cls = (self.cls_token + positions[:, :1]).expand(x.shape[0], -1, -1)
        return torch.cat([cls, x.flatten(1, 2)], dim=1)

    def forward_features(self, clips: Tensor, layer: int | None = None) -> Tensor:
        """Tokens (B, 1 + N T, D): after the final norm, or as block `layer` (0-based) leaves them.

        Class token first, then the patches, for each of them its time steps, as the release orders them.
        """
        depth = self.config.depth
        if layer is not None and not 0 <= layer < depth:
            raise ValueError(f"layer {layer} asked of a ViT with blocks 0..{depth - 1}")
        x = self.embed(clips)
        for block in self.blocks if layer is None else self.blocks[: layer + 1]:
            x = block(x)
        x = self.norm(x) if layer is None else x
        steps = clips.shape[2] // self.config.tubelet
        return torch.cat([x[:, :1], rearrange(x[:, 1:], "b (t n) d -> b (n t) d", t=steps)], dim=1)

    def forward_head(self, tokens: Tensor) -> Tensor:  # (B, 1 + N T, D) -> (B, classes)
        return self.head(tokens[:, 0])

    def forward(self, clips: Tensor) -> Tensor:  # (B, 3, frames, H, W) -> (B, classes)
        x = self.embed(clips)
        for i, block in enumerate(self.blocks):
            x = block(x, 1 if i == self.config.depth - 1 else None)  # the head reads the class token alone
        return self.forward_head(self.norm(x))


# Official layouts -----------------------------------------------------------------------------------


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    tubelet = state["patch_embed.proj.weight"].shape[2]
    steps = state["temporal_pos_embedding"].shape[1]
    return read_trunk(state) | {"tubelet": tubelet, "num_frames": steps * tubelet}


def _read_image_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    return read_trunk(state)


def _resample(state: dict[str, Tensor], config: dict[str, Any]) -> list[str]:
    resampled = resample_pos_embed(state, config)
    steps = config["num_frames"] // config["tubelet"]
    times = state.get("temporal_pos_embedding")
    if times is not None and times.shape[1] != steps:
        state["temporal_pos_embedding"] = resample_times(times, steps)
        resampled.append("temporal_pos_embedding")
    return resampled


def _inflate(state: dict[str, Tensor], config: dict[str, Any]) -> list[str]:
    kernel = state["patch_embed.proj.weight"]
    state["patch_embed.proj.weight"] = inflate_patch_kernel(kernel, config["tubelet"], config["inflation"])
    return [*resample_pos_embed(state, config), "patch_embed.proj.weight"]


OFFICIAL = (
    OfficialLayout(
        name="joint space-time DeiT",
        model="vit_tiny_joint",
        detect=r"temporal_pos_embedding",
        licence="as stated by the release (VideoMamba: Apache-2.0)",
        keys={r"(.*)": r"\1"},
        read_config=_read_config,
        resample=_resample,
        head=r"head\..*",
    ),
    OfficialLayout(
        name="image ViT (timm / DeiT)",
        model="vit_tiny_joint",
        detect=IMAGE_VIT,
        licence="as stated by the release (timm and DeiT weights: Apache-2.0)",
        keys={r"(.*)": r"\1"},
        read_config=_read_image_config,
        resample=_inflate,
        head=r"head\..*",
        fresh=r"temporal_pos_embedding",
    ),
)


# Named sizes ----------------------------------------------------------------------------------------


def _joint(config: VitJointConfig, overrides: dict[str, Any]) -> JointViT:
    return JointViT(replace(config, **checked_overrides(VitJointConfig, overrides, "a joint ViT")))


@register_model(
    tags=["backbone", "video", "vit", "recognition"],
    paper="https://arxiv.org/abs/2403.06977",
    params=5_603_152,
    system="vit_joint",
)
def vit_tiny_joint(**overrides: Any) -> JointViT:
    """Joint space-time ViT Ti/16: 8 frames of 224 pixels, 5.6 M parameters, 20 GMACs a view."""
    return _joint(VitJointConfig(width=192, depth=12, num_heads=3), overrides)


@register_model(
    tags=["backbone", "video", "vit", "recognition"],
    paper="https://arxiv.org/abs/2403.06977",
    params=21_822_736,
)
def vit_small_joint(**overrides: Any) -> JointViT:
    """Joint space-time ViT S/16: 8 frames of 224 pixels, 22 M parameters, 56 GMACs a view."""
    return _joint(VitJointConfig(width=384, depth=12, num_heads=6), overrides)


@register_model(
    tags=["backbone", "video", "vit", "recognition"],
    paper="https://arxiv.org/abs/2403.06977",
    params=86_112_400,
)
def vit_base_joint(**overrides: Any) -> JointViT:
    """Joint space-time ViT B/16: 8 frames of 224 pixels, 86 M parameters, 180 GMACs a view."""
    return _joint(VitJointConfig(width=768, depth=12, num_heads=12), overrides)
