"""XViT (Bulat et al., 2021, https://arxiv.org/abs/2106.05968): frames attend to their neighbours in time.

An image ViT reads every frame. Before each attention, part of the channels of keys and values is taken from
the frame after and the frame before, so that attention inside one frame mixes space and time at no cost.
A small Transformer reads the class tokens of all frames and classifies its own class token.

As the release has it, the table of times has 8 rows and is repeated over longer clips, and frames exchange
channels in groups of `group_frames`: the 16-frame Kinetics models read two groups of 8 that meet only in the
temporal head. `group_frames=None, time_steps=16` is the model without these limits.
Shapes: B clips, T frames, N patches of a frame, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framecast.backbones.vit_layouts import IMAGE_VIT, read_trunk, resample_pos_embed
from framecast.nn.attention import SelfAttention
from framecast.nn.embeddings import PatchEmbed, Resampling, check_clips, patch_grid, resample_positions
from framecast.nn.transformer import Block, init_transformer
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class XvitConfig:
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    patch_size: int = 16
    image_size: int | tuple[int, int] = 224  # pixels (height, width) of the position table
    num_frames: int = 16
    group_frames: int | None = 8  # frames that exchange channels, None = all of the clip
    time_steps: int = 8  # rows of the table of times, repeated over longer clips
    shift_div: int = 8  # 1 / shift_div of the channels comes from either neighbour; 4 on SSv2
    shift_blocks: tuple[int, ...] | None = None  # blocks (from 0) whose frames exchange channels, None = all
    mlp_ratio: float = 4.0
    num_classes: int = 400  # 0 = features only: the class token of the temporal head
    norm_eps: float = 1e-6
    temporal_depth: int = 1  # blocks of the temporal head
    temporal_heads: int = 12
    head_width: int = 768  # of the layer before the class scores
    head_dropout: float = 0.5
    drop_path: float = 0.0  # rate of the last block, linear over depth
    resampling: Resampling = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def grid(self) -> tuple[int, int]:
        return patch_grid(self.image_size, self.patch_size)


def shift_in_time(x: Tensor, num_frames: int, div: int) -> Tensor:
    """First C / div channels from the next frame, the next C / div from the one before, zeros past the ends.

    x: (B T, N, C) with T = num_frames.
    """
    fold = x.shape[-1] // div
    x = x.unflatten(0, (-1, num_frames))
    after = F.pad(x[:, 1:, :, :fold], (0, 0, 0, 0, 0, 1))
    before = F.pad(x[:, :-1, :, fold : 2 * fold], (0, 0, 0, 0, 1, 0))
    return torch.cat([after, before, x[..., 2 * fold :]], dim=-1).flatten(0, 1)


class MixingAttention(SelfAttention):
    """Attention inside frames to keys and values that partly come from the neighbouring frames."""

    def __init__(self, width: int, num_heads: int, *, group_frames: int, div: int, **options: Any) -> None:
        super().__init__(width, num_heads, **options)
        self.group_frames, self.div = group_frames, div

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:  # (B T, 1 + N, D) -> the same
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        k, v = (shift_in_time(t, self.group_frames, self.div) for t in (k, v))
        return self.attend(q[:, :num_queries], k, v)


class TemporalHead(nn.Module):
    """Class tokens of the frames to scores of the clip; frames carry no positions here."""

    def __init__(self, config: XvitConfig) -> None:
        super().__init__()
        c = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.blocks = nn.ModuleList(
            Block(c.width, c.temporal_heads, qkv_bias=False, norm_eps=1e-5) for _ in range(c.temporal_depth)
        )
        self.norm = nn.LayerNorm(c.width)
        self.mlp = nn.Identity()
        if c.num_classes:
            self.mlp = nn.Sequential(
                nn.Linear(c.width, c.head_width),
                nn.GELU(),
                nn.Dropout(c.head_dropout),
                nn.Linear(c.head_width, c.num_classes),
            )

    def forward(self, frames: Tensor) -> Tensor:  # (B, T, D) -> (B, classes)
        x = torch.cat([self.cls_token.expand(frames.shape[0], -1, -1), frames], dim=1)
        for i, block in enumerate(self.blocks):
            x = block(x, 1 if i == len(self.blocks) - 1 else None)
        return self.mlp(self.norm(x[:, 0]))


class XViT(nn.Module):
    """Clips of `num_frames` frames to class scores; `forward_features` gives the tokens of all frames."""

    def __init__(self, config: XvitConfig) -> None:
        super().__init__()
        self.config = c = config
        self.time_steps = min(c.time_steps, c.num_frames)
        group_frames = min(c.group_frames or c.num_frames, c.num_frames)
        if c.num_frames % group_frames or c.num_frames % self.time_steps:
            raise ValueError(
                f"num_frames {c.num_frames} is not a multiple of group_frames {group_frames} and of "
                f"time_steps {self.time_steps}"
            )
        mixing = partial(MixingAttention, group_frames=group_frames, div=c.shift_div)
        mixed = range(c.depth) if c.shift_blocks is None else c.shift_blocks
        self.patch_embed = PatchEmbed(c.patch_size, c.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + c.grid[0] * c.grid[1], c.width))
        self.time_embed = nn.Parameter(torch.zeros(1, self.time_steps, 1, c.width))
        self.blocks = nn.ModuleList(
            Block(
                c.width,
                c.num_heads,
                mlp_ratio=c.mlp_ratio,
                norm_eps=c.norm_eps,
                drop_path=c.drop_path * i / max(c.depth - 1, 1),
                attention=mixing if i in mixed else SelfAttention,
            )
            for i in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.head = TemporalHead(c)
        self.init_weights()

    @property
    def feature_dim(self) -> int:
        return self.config.width

    @property
    def stride(self) -> int:
        return self.config.patch_size

    @property
    def num_prefix_tokens(self) -> int:
        return self.config.num_frames

    def init_weights(self) -> None:
        """As DeiT; times and the class token of the temporal head 0."""
        init_transformer(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token", "time_embed", "head.cls_token"}

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names from the input to the head, for rates that fall with depth."""
        embeddings = ["patch_embed", "pos_embed", "cls_token", "time_embed"]
        return [embeddings, *([f"blocks.{i}"] for i in range(self.config.depth)), ["norm", "head"]]

    def embed(self, clips: Tensor) -> Tensor:  # (B, 3, T, H, W) -> (B T, 1 + N, D)
        c = self.config
        check_clips(clips)
        if clips.shape[2] != c.num_frames:
            raise ValueError(f"clip has {clips.shape[2]} frames; this XViT reads clips of {c.num_frames}")
        grid = patch_grid((clips.shape[-2], clips.shape[-1]), c.patch_size)
        x = self.patch_embed(rearrange(clips, "b c t h w -> (b t) c h w"))
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + resample_positions(self.pos_embed, c.grid, grid, num_prefix=1, mode=c.resampling)
        return (x.unflatten(0, (-1, self.time_steps)) + self.time_embed).flatten(0, 1)

    def forward_features(self, clips: Tensor, layer: int | None = None) -> Tensor:
        """Tokens (B, T + T N, D): after the final norm, or as block `layer` (0-based) leaves them.

        First the class tokens of all frames, then their patches, frame by frame.
        """
        depth = self.config.depth
        if layer is not None and not 0 <= layer < depth:
            raise ValueError(f"layer {layer} asked of an XViT with blocks 0..{depth - 1}")
        x = self.embed(clips)
        for block in self.blocks if layer is None else self.blocks[: layer + 1]:
            x = block(x)
        x = (self.norm(x) if layer is None else x).unflatten(0, (clips.shape[0], -1))
        return torch.cat([x[:, :, 0], x[:, :, 1:].flatten(1, 2)], dim=1)

    def forward_head(self, tokens: Tensor) -> Tensor:  # (B, T + T N, D) -> (B, classes)
        return self.head(tokens[:, : self.config.num_frames])

    def forward(self, clips: Tensor) -> Tensor:  # (B, 3, T, H, W) -> (B, classes)
        x = self.embed(clips)
        for i, block in enumerate(self.blocks):
            x = block(x, 1 if i == self.config.depth - 1 else None)  # the head reads class tokens alone
        return self.head(self.norm(x).view(clips.shape[0], -1, self.config.width))


# Official layouts -----------------------------------------------------------------------------------


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    """Sizes from tensor shapes, which show neither `num_frames` nor `group_frames` nor `shift_div`."""
    base = {k.removeprefix("base_model."): t for k, t in state.items() if k.startswith("base_model.")}
    hidden, last = state["consensus.mlp_head.1.weight"], state["consensus.mlp_head.4.weight"]
    trunk = read_trunk(base)
    blocks = [k for k in state if k.endswith("norm1.weight") and k.startswith("consensus.temporal_encoder.")]
    return trunk | {
        "time_steps": base["temp_embed"].shape[1],
        "temporal_depth": len(blocks),
        "temporal_heads": trunk["num_heads"],
        "head_width": hidden.shape[0],
        "num_classes": last.shape[0],
    }


def _read_image_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    trunk = read_trunk(state)
    return trunk | {"temporal_heads": trunk["num_heads"], "head_width": trunk["width"]}


OFFICIAL = (
    OfficialLayout(
        name="XViT",
        model="xvit_base",
        detect=r"base_model\.temp_embed",
        licence="as stated by the release (XViT, Samsung)",
        keys={
            r"base_model\.temp_embed": "time_embed",
            r"base_model\.(.*)": r"\1",
            r"consensus\.cls_token": "head.cls_token",
            r"consensus\.temporal_encoder\.(.*)": r"head.blocks.\1",
            r"consensus\.mlp_head\.0\.(.*)": r"head.norm.\1",
            r"consensus\.mlp_head\.1\.(.*)": r"head.mlp.0.\1",
            r"consensus\.mlp_head\.4\.(.*)": r"head.mlp.3.\1",
        },
        ignored={r"new_fc\..*": "not used by the release itself"},
        read_config=_read_config,
        resample=resample_pos_embed,
        head=r"head\.mlp\..*",
    ),
    OfficialLayout(
        name="image ViT (timm / DeiT)",
        model="xvit_base",
        detect=IMAGE_VIT,
        licence="as stated by the release (timm and DeiT weights: Apache-2.0)",
        keys={r"(.*)": r"\1"},
        ignored={r"(head|pre_logits)\..*": "the temporal head takes its place"},
        read_config=_read_image_config,
        resample=resample_pos_embed,
        fresh=r"time_embed|head\..*",
    ),
)


# Named sizes ----------------------------------------------------------------------------------------


@register_model(
    tags=["backbone", "video", "vit", "recognition"],
    paper="https://arxiv.org/abs/2106.05968",
    params=93_790_864,
    system="xvit",
)
def xvit_base(**overrides: Any) -> XViT:
    """XViT-B/16: 16 frames of 224 pixels, 94 M parameters, 281 GMACs a view."""
    config = XvitConfig(width=768, depth=12, num_heads=12)
    return XViT(replace(config, **checked_overrides(XvitConfig, overrides, "an XViT")))
