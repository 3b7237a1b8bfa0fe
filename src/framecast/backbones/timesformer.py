"""TimeSformer (Bertasius et al., 2021, https://arxiv.org/abs/2102.05095): a ViT that attends along time too.

"divided": each block attends along time at every place, then inside every frame, where all frames share one
class token and its answers are averaged over them. "joint": one sequence of all patches of all frames.
"space_only": every frame alone, tokens averaged over frames after the last block.

As the release has it, tables of positions and times are resampled by their nearest rows.
Shapes: B clips, T frames, N patches of a frame, D width.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from framecast.backbones.vit_layouts import IMAGE_VIT, read_trunk, resample_pos_embed
from framecast.nn.attention import SelfAttention
from framecast.nn.embeddings import (
    PatchEmbed,
    Resampling,
    check_clips,
    patch_grid,
    resample_positions,
    resample_times,
)
from framecast.nn.transformer import Block, init_transformer
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class TimesformerConfig:
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    patch_size: int = 16
    image_size: int | tuple[int, int] = 224  # pixels (height, width) of the position table
    num_frames: int = 8  # of the table of times
    attention: Literal["divided", "joint", "space_only"] = "divided"
    mlp_ratio: float = 4.0
    num_classes: int = 400  # 0 = features only, no head
    norm_eps: float = 1e-6
    drop_path: float = 0.1  # rate of the last block, linear over depth
    resampling: Resampling = "nearest"
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)

    @property
    def grid(self) -> tuple[int, int]:
        return patch_grid(self.image_size, self.patch_size)


class DividedBlock(Block):
    """Patches exchange messages along time, then inside their frame; then each one thinks alone."""

    def __init__(self, width: int, num_heads: int, **options: Any) -> None:
        super().__init__(width, num_heads, **options)
        self.temporal_norm1 = nn.LayerNorm(width, eps=self.norm1.eps)
        self.temporal_attn = SelfAttention(width, num_heads)
        self.temporal_fc = nn.Linear(width, width)

    def forward(  # (B, 1 + T N, D) -> (B, 1 + T N, D)
        self, x: Tensor, num_out: int | None = None, *, num_frames: int = 1
    ) -> Tensor:
        cls, patches = x[:, :1], x[:, 1:].unflatten(1, (num_frames, -1))  # (B, 1, D), (B, T, N, D)
        places = rearrange(patches, "b t n d -> (b n) t d")
        moved = self.temporal_fc(self.drop_path(self.temporal_attn(self.temporal_norm1(places))))
        patches = patches + rearrange(moved, "(b n) t d -> b t n d", b=x.shape[0])

        frames = torch.cat([cls[:, None].expand(-1, num_frames, -1, -1), patches], dim=2).flatten(0, 1)
        seen = self.drop_path(self.attn(self.norm1(frames), num_out)).unflatten(0, (-1, num_frames))
        x = cls + seen[:, :, 0].mean(1, keepdim=True)
        if num_out is None:
            x = torch.cat([x, (patches + seen[:, :, 1:]).flatten(1, 2)], dim=1)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class TimeSformer(nn.Module):
    """Clips to class scores; `forward_features` gives the tokens, also of an inner block."""

    num_prefix_tokens = 1

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.config = c = config
        self.patch_embed = PatchEmbed(c.patch_size, c.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + c.grid[0] * c.grid[1], c.width))
        in_time = c.attention != "space_only"
        self.time_embed = nn.Parameter(torch.zeros(1, c.num_frames, c.width)) if in_time else None
        self.blocks = nn.ModuleList(
            (DividedBlock if c.attention == "divided" else Block)(
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
        """As DeiT; times and `temporal_fc` 0, so that training starts from a space-only ViT."""
        init_transformer(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for block in self.blocks:
            if isinstance(block, DividedBlock):
                nn.init.zeros_(block.temporal_fc.weight)

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token", "time_embed"}

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names from the input to the head, for rates that fall with depth."""
        embeddings = ["patch_embed", "pos_embed", "cls_token", "time_embed"]
        return [embeddings, *([f"blocks.{i}"] for i in range(self.config.depth)), ["norm", "head"]]

    def embed(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, 1 + T N, D), frame by frame; for "space_only" (B T, 1 + N, D)."""
        c = self.config
        check_clips(clips)
        batch, _, num_frames, height, width = clips.shape
        grid = patch_grid((height, width), c.patch_size)
        positions = resample_positions(self.pos_embed, c.grid, grid, num_prefix=1, mode=c.resampling)
        cls = self.cls_token + positions[:, :1]
        x = self.patch_embed(rearrange(clips, "b c t h w -> (b t) c h w")) + positions[:, 1:]
        if self.time_embed is not None:
            nearest = c.resampling == "nearest"
            times = resample_times(self.time_embed, num_frames, "nearest" if nearest else "linear")
            x = (x.unflatten(0, (batch, num_frames)) + times[:, :, None]).flatten(1, 2)
        return torch.cat([cls.expand(x.shape[0], -1, -1), x], dim=1)

    def encode(self, clips: Tensor, num_blocks: int, num_out: int | None = None) -> Tensor:
        """Tokens after some blocks, frame by frame; only the first `num_out` of them where that is given."""
        num_frames = clips.shape[2]
        options = {"num_frames": num_frames} if self.config.attention == "divided" else {}
        x = self.embed(clips)
        for i in range(num_blocks):
            x = self.blocks[i](x, num_out if i == num_blocks - 1 else None, **options)
        if self.config.attention == "space_only":
            x = x.unflatten(0, (-1, num_frames)).mean(1)
        return x

    def forward_features(self, clips: Tensor, layer: int | None = None) -> Tensor:
        """Tokens (B, 1 + N T, D): after the final norm, or as block `layer` (0-based) leaves them.

        Class token first, then the patches, for each of them its frames, as the release orders them.
        "space_only": (B, 1 + N, D), averaged over the frames.
        """
        depth = self.config.depth
        if layer is not None and not 0 <= layer < depth:
            raise ValueError(f"layer {layer} asked of a TimeSformer with blocks 0..{depth - 1}")
        x = self.encode(clips, depth if layer is None else layer + 1)
        x = self.norm(x) if layer is None else x
        if self.config.attention == "space_only":
            return x
        patches = rearrange(x[:, 1:], "b (t n) d -> b (n t) d", t=clips.shape[2])
        return torch.cat([x[:, :1], patches], dim=1)

    def forward_head(self, tokens: Tensor) -> Tensor:  # (B, 1 + N T, D) -> (B, classes)
        return self.head(tokens[:, 0])

    def forward(self, clips: Tensor) -> Tensor:  # (B, 3, T, H, W) -> (B, classes)
        return self.forward_head(self.norm(self.encode(clips, self.config.depth, num_out=1)))


# Official layouts -----------------------------------------------------------------------------------


def _without_wrapper(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("model."): tensor for key, tensor in state.items()}


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    times = state.get("time_embed")
    attention = "divided" if "blocks.0.temporal_fc.weight" in state else "joint"
    return read_trunk(state) | {
        "attention": "space_only" if times is None else attention,
        "num_frames": 8 if times is None else times.shape[1],
    }


def _read_image_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    return read_trunk(state) | {"resampling": "bicubic"}


def _resample(state: dict[str, Tensor], config: dict[str, Any]) -> list[str]:
    resampled = resample_pos_embed(state, config)
    times = state.get("time_embed")
    if times is not None and times.shape[1] != config["num_frames"]:
        mode = "nearest" if config["resampling"] == "nearest" else "linear"
        state["time_embed"] = resample_times(times, config["num_frames"], mode)
        resampled.append("time_embed")
    return resampled


def _from_image_model(state: dict[str, Tensor], config: dict[str, Any]) -> list[str]:
    """Attention along time starts as that in space; what it says is not heard at first (`temporal_fc` 0)."""
    resampled = resample_pos_embed(state, config)
    if config["attention"] == "divided":
        state |= {re.sub(r"\.(attn|norm1)\.", r".temporal_\1.", key): t for key, t in state.items()}
    return resampled


OFFICIAL = (
    OfficialLayout(
        name="TimeSformer",
        model="timesformer_base",
        detect=r"(model\.)?time_embed",
        licence="CC BY-NC 4.0 (TimeSformer, Facebook)",
        keys={r"(.*)": r"\1"},
        read_config=_read_config,
        prepare=_without_wrapper,
        resample=_resample,
        head=r"head\..*",
    ),
    OfficialLayout(
        name="space-only TimeSformer",  # told from an image ViT by the wrapper alone
        model="timesformer_base",
        detect=r"model\." + IMAGE_VIT,
        licence="CC BY-NC 4.0 (TimeSformer, Facebook)",
        keys={r"(.*)": r"\1"},
        read_config=_read_config,
        prepare=_without_wrapper,
        resample=_resample,
        head=r"head\..*",
    ),
    OfficialLayout(
        name="image ViT (timm / DeiT)",
        model="timesformer_base",
        detect=IMAGE_VIT,
        licence="as stated by the release (timm and DeiT weights: Apache-2.0)",
        keys={r"(.*)": r"\1"},
        read_config=_read_image_config,
        resample=_from_image_model,
        head=r"head\..*",
        fresh=r"time_embed|blocks\.\d+\.temporal_fc\..*",
    ),
)


# Named sizes ----------------------------------------------------------------------------------------


def _timesformer(config: TimesformerConfig, overrides: dict[str, Any]) -> TimeSformer:
    return TimeSformer(replace(config, **checked_overrides(TimesformerConfig, overrides, "a TimeSformer")))


@register_model(
    tags=["backbone", "video", "vit", "recognition"],
    paper="https://arxiv.org/abs/2102.05095",
    params=121_566_352,
    system="timesformer",
)
def timesformer_base(**overrides: Any) -> TimeSformer:
    """TimeSformer: 8 frames of 224 pixels, 122 M parameters, 196 GMACs a view."""
    return _timesformer(TimesformerConfig(num_frames=8, image_size=224), overrides)


@register_model(
    tags=["backbone", "video", "vit", "recognition"],
    paper="https://arxiv.org/abs/2102.05095",
    params=122_024_080,
)
def timesformer_hr(**overrides: Any) -> TimeSformer:
    """TimeSformer-HR: 16 frames of 448 pixels, 122 M parameters, 1.70 TMACs a view."""
    return _timesformer(TimesformerConfig(num_frames=16, image_size=448), overrides)


@register_model(
    tags=["backbone", "video", "vit", "recognition"],
    paper="https://arxiv.org/abs/2102.05095",
    params=121_633_936,
)
def timesformer_large(**overrides: Any) -> TimeSformer:
    """TimeSformer-L: 96 frames of 224 pixels, 122 M parameters, 2.38 TMACs a view."""
    return _timesformer(TimesformerConfig(num_frames=96, image_size=224), overrides)
