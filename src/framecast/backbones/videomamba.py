"""VideoMamba: state space model for efficient video understanding (Li et al., ECCV 2024,
https://arxiv.org/abs/2403.06977)

A ViT-shaped stack whose only mixer of tokens is a bidirectional selective scan: one for images, and one for
clips, whose cost grows linearly with the number of frames. The sequence is the class token, then frame after
frame, each row by row. One mixer per layer and no MLP.

Kept as the release has it, with the corrected form as an option: both directions are added, not averaged
(`combine="mean"`); Mamba's initial step sizes are overwritten (`dt_init="mamba"`). A_log is decayed like any
matrix. Differs from the release: other image sizes, also oblong ones, and other clip lengths are taken by
resampling the position tables; a patch kernel can be inflated over time by its mean.
Shapes: B batch, T frames, k frames of a tubelet, T' = T / k, N patches of a frame, L = 1 + T' N, D width.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from framecast.backbones.vit import IMAGENET_MEAN, IMAGENET_STD
from framecast.nn.embeddings import (
    Inflation,
    PatchEmbed,
    TubeletEmbed,
    inflate_patch_kernel,
    resample_positions,
    resample_times,
)
from framecast.nn.mamba import Combine, DtInit, MambaMixer, RMSNorm
from framecast.nn.residual_stack import MambaLayer, add
from framecast.nn.transformer import DropPath, init_transformer
from framecast.official import OfficialLayout
from framecast.ops import memory, native_library
from framecast.registry import checked_overrides, register_model

HEAD = r"head\..*"


@dataclass(frozen=True)
class VideoMambaConfig:
    width: int = 192
    depth: int = 24
    patch_size: int = 16
    patch_stride: int | None = None  # smaller than patch_size = overlapping patches, for images only
    image_size: int | tuple[int, int] = 224  # pixels (height, width) of the position table
    num_frames: int | None = None  # of a clip; None = an image model
    tubelet: int = 1  # frames that make one token
    inflation: Inflation = "centre"  # of the patch kernel, where weights of an image model are read
    num_classes: int = 1000  # 0 = features only, no head
    expand: int = 2  # inner width of the mixer / width
    d_state: int = 16
    d_conv: int = 4
    bidirectional: bool = True
    combine: Combine = "sum"
    dt_init: DtInit = "videomamba"
    norm_eps: float = 1e-5
    drop_path: float = 0.0  # rate of the last layer, linear over depth
    head_dropout: float = 0.0
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of the pixels that it was trained on, 0..1
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.num_frames is None:
            return
        if self.num_frames % self.tubelet or not self.num_frames:
            raise ValueError(f"num_frames {self.num_frames} is no multiple of tubelet {self.tubelet}")
        if self.patch_stride not in (None, self.patch_size):
            raise ValueError("patch_stride is for image models; patches of clips do not overlap")

    @property
    def stride(self) -> int:
        return self.patch_stride or self.patch_size

    @property
    def grid(self) -> tuple[int, int]:
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.grid_of(height, width)

    @property
    def steps(self) -> int | None:
        """Rows of the table of times, None for an image model."""
        return None if self.num_frames is None else self.num_frames // self.tubelet

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Patches in an image of that many pixels."""
        return (height - self.patch_size) // self.stride + 1, (width - self.patch_size) // self.stride + 1


class VideoMamba(nn.Module):
    """Images or clips to class scores; `forward_features` gives the tokens, also of an inner layer."""

    num_prefix_tokens = 1

    def __init__(self, config: VideoMambaConfig) -> None:
        super().__init__()
        self.config = c = config
        rows, columns = c.grid
        if c.steps is None:
            self.patch_embed = PatchEmbed(c.patch_size, c.width, stride=c.stride)
        else:
            self.patch_embed = TubeletEmbed(c.patch_size, c.width, tubelet=c.tubelet)
            self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, c.steps, c.width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, c.width))
        self.layers = nn.ModuleList(self.make_layer(i) for i in range(c.depth))
        self.norm_f = self.make_norm()
        self.drop_path = DropPath(c.drop_path)
        self.dropout = nn.Dropout(c.head_dropout)
        self.head = nn.Linear(c.width, c.num_classes) if c.num_classes else nn.Identity()
        self.init_weights()

    @property
    def feature_dim(self) -> int:
        return self.config.width

    @property
    def stride(self) -> int:
        return self.config.stride

    def make_norm(self) -> nn.Module:
        return RMSNorm(self.config.width, self.config.norm_eps)

    def make_layer(self, i: int) -> nn.Module:
        return self.make_mamba_layer(i)

    def make_mamba_layer(self, i: int) -> MambaLayer:
        c = self.config
        mixer = MambaMixer(
            c.width,
            expand=c.expand,
            d_state=c.d_state,
            d_conv=c.d_conv,
            bidirectional=c.bidirectional,
            combine=c.combine,
        )
        return MambaLayer(self.make_norm(), mixer, drop_path=self.drop_rate(i - 1))

    def drop_rate(self, i: int) -> float:
        """Of what layer i adds; it is applied where the next layer adds it."""
        return self.config.drop_path * max(i, 0) / max(self.config.depth - 1, 1)

    def init_weights(self) -> None:
        """The release's: linear maps and positions ~ truncated normal 0.02, biases, class token and times 0,
        the mixers' last map uniform and smaller with depth; convolutions as torch has them."""
        init_transformer(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, MambaMixer):
                module.init_weights(self.config.dt_init)
                nn.init.kaiming_uniform_(module.out_proj.weight, a=math.sqrt(5))
                with torch.no_grad():
                    module.out_proj.weight.div_(math.sqrt(self.config.depth))

    def embed(self, x: Tensor) -> Tensor:
        """Tokens with positions, (B, 1 + T' N, D), of images (B, 3, H, W) or clips (B, 3, T, H, W)."""
        c = self.config
        self.check_axes(x)
        grid = c.grid_of(x.shape[-2], x.shape[-1])
        positions = resample_positions(self.pos_embed, c.grid, grid, num_prefix=1)
        patches = self.patch_embed(x)
        if c.steps is None:
            patches = patches + positions[:, 1:]
        else:
            times = resample_times(self.temporal_pos_embedding, patches.shape[1])
            patches = (patches + positions[:, None, 1:] + times[:, :, None]).flatten(1, 2)
        first = (self.cls_token + positions[:, :1]).expand(x.shape[0], -1, -1)
        return torch.cat([first, patches], dim=1)

    def check_axes(self, x: Tensor) -> None:
        axes, wanted = (
            (4, "images (B, 3, H, W)") if self.config.steps is None else (5, "clips (B, 3, T, H, W)")
        )
        if x.ndim != axes or x.shape[1] != 3:
            raise ValueError(
                f"this {type(self).__name__} reads {wanted}, but got {tuple(x.shape)}; "
                "num_frames in the config makes a model for clips"
            )

    def frames_of(self, x: Tensor) -> int:
        """T' of images or clips."""
        return 1 if self.config.steps is None else x.shape[2] // self.config.tubelet

    def run(self, tokens: Tensor, frames: int, *, first_only: bool = False) -> Tensor:
        """All layers and the final norm: (B, 1 + T' N, D) -> the same, or only the first row of it."""
        h, r = self.carry(tokens, frames, len(self.layers), first_only=first_only)
        return self.norm_f(add(h if r is None else self.drop_path(h), r))

    def carry(
        self, tokens: Tensor, frames: int, num_layers: int, *, first_only: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """What the first so many layers hand on: h, and r before h is added to it."""
        h, r = tokens, None
        with memory.reused() if native_library.usable(tokens) else nullcontext():
            for i, layer in enumerate(self.layers[:num_layers]):
                h, r = layer(h, r, frames=frames, first_only=first_only and i == num_layers - 1)
        return h, r

    def forward_features(self, x: Tensor, layer: int | None = None) -> Tensor:
        """Tokens (B, 1 + T' N, D): after the final norm, or as layer `layer` (0-based) leaves them."""
        depth = len(self.layers)
        if layer is not None and not 0 <= layer < depth:
            raise ValueError(f"layer {layer} asked of a {type(self).__name__} with layers 0..{depth - 1}")
        tokens, frames = self.embed(x), self.frames_of(x)
        if layer is None:
            return self.run(tokens, frames)
        return add(*self.carry(tokens, frames, layer + 1))

    def forward_head(self, tokens: Tensor) -> Tensor:  # (B, L, D) -> (B, classes)
        return self.head(self.dropout(tokens[:, 0]))

    def forward(self, x: Tensor) -> Tensor:  # images or clips -> (B, classes)
        return self.forward_head(self.run(self.embed(x), self.frames_of(x), first_only=True))

    def no_weight_decay(self) -> set[str]:
        """The release decays matrices, A_log among them; neither vectors nor the tables and tokens."""
        tables = {"pos_embed", "cls_token", "temporal_pos_embedding"}
        return {name for name, p in self.named_parameters() if name in tables or p.ndim < 2}

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names from the input to the head."""
        embeddings = ["cls_token", "pos_embed", "temporal_pos_embedding", "patch_embed"]
        return [embeddings, *([f"layers.{i}"] for i in range(len(self.layers))), ["norm_f", "head"]]


# Weights of other sizes ------------------------------------------------------------------------------


def fit_tables(state: dict[str, Tensor], c: VideoMambaConfig) -> list[str]:
    """Bring patch kernel, positions, times and head in `state` to the sizes of the config, in place.

    An image model's weights become a clip model's (kernel inflated, times 0), or the other way round (kernel
    summed over time). The first 400 classes of Kinetics-710 are those of Kinetics-400. Returns what changed.
    """
    before = dict(state)
    kernel, table = state.get("patch_embed.proj.weight"), state.get("pos_embed")
    times = state.pop("temporal_pos_embedding", None)
    if kernel is None or table is None:
        return []  # reported as missing
    if c.steps is None:
        state["patch_embed.proj.weight"] = kernel.sum(2) if kernel.ndim == 5 else kernel
    else:
        inflated = kernel if kernel.ndim == 5 else inflate_patch_kernel(kernel, c.tubelet, c.inflation)
        state["patch_embed.proj.weight"] = inflated
        times = kernel.new_zeros(1, c.steps, c.width) if times is None else times
        state["temporal_pos_embedding"] = resample_times(times, c.steps)
    if table.shape[1] != 1 + math.prod(c.grid):
        side = math.isqrt(table.shape[1] - 1)
        if side * side != table.shape[1] - 1:
            raise ValueError(
                f"pos_embed has {table.shape[1] - 1} positions, which are no square grid; pass image_size"
            )
        state["pos_embed"] = resample_positions(table, (side, side), c.grid, num_prefix=1)
    for key in ("head.weight", "head.bias"):
        if key in state and len(state[key]) == 710 and c.num_classes == 400:
            state[key] = state[key][:400]
    return [key for key in before | state if before.get(key) is not state.get(key)]


# Official layouts -----------------------------------------------------------------------------------


def plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of the release's wrappers."""
    return {key.removeprefix("backbone.").removeprefix("encoder."): tensor for key, tensor in state.items()}


def read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    """Sizes from tensor shapes; `settings` are not needed."""
    kernel, head = state["patch_embed.proj.weight"], state.get("head.weight")
    width, patch_size = kernel.shape[0], kernel.shape[-1]
    tubelet = kernel.shape[2] if kernel.ndim == 5 else 1
    mixer = next(key for key in state if key.endswith("mixer.A_log")).removesuffix("A_log")
    inner, d_state = state[f"{mixer}A_log"].shape
    steps = state["temporal_pos_embedding"].shape[1] if "temporal_pos_embedding" in state else None
    return {
        "width": width,
        "depth": 1 + max(int(key.split(".")[1]) for key in state if key.startswith("layers.")),
        "patch_size": patch_size,
        "image_size": math.isqrt(state["pos_embed"].shape[1] - 1) * patch_size,
        "num_frames": None if steps is None else steps * tubelet,
        "tubelet": tubelet,
        "num_classes": 0 if head is None else head.shape[0],
        "expand": inner // width,
        "d_state": d_state,
        "d_conv": state[f"{mixer}conv1d.weight"].shape[-1],
        "bidirectional": f"{mixer}A_b_log" in state,
    }


LICENCE = "Apache-2.0 (VideoMamba, OpenGVLab)"
DETECT = r"(backbone\.|encoder\.)?layers\.\d+\.mixer\.A_log"
KEYS = {r"norm\.weight": "norm_f.weight", r"(.*)": r"\1"}  # the student of masked pre-training has `norm`
IGNORED = {
    r"distill_head\..*": "only used while distilling",
    r"clip_decoder\..*": "only used while pre-training",
}
OFFICIAL = (
    OfficialLayout(
        name="VideoMamba",
        model="videomamba_tiny",
        detect=DETECT,
        licence=LICENCE,
        keys=KEYS,
        ignored=IGNORED,
        read_config=read_config,
        prepare=plain_names,
        resample=lambda state, config: fit_tables(state, VideoMambaConfig(**config)),
        head=HEAD,
    ),
)


# Named sizes ----------------------------------------------------------------------------------------


def _videomamba(config: VideoMambaConfig, overrides: dict[str, Any]) -> VideoMamba:
    checked = checked_overrides(VideoMambaConfig, overrides, "a VideoMamba")
    return VideoMamba(replace(config, **checked))


@register_model(
    tags=["backbone", "image", "video", "mamba", "recognition"],
    paper="https://arxiv.org/abs/2403.06977",
    params=7_148_008,
    system="videomamba",
)
def videomamba_tiny(**overrides: Any) -> VideoMamba:
    """VideoMamba-Ti: 7.1 M parameters; images, or clips with `num_frames`."""
    return _videomamba(VideoMambaConfig(width=192, depth=24), overrides)


@register_model(
    tags=["backbone", "image", "video", "mamba", "recognition"],
    paper="https://arxiv.org/abs/2403.06977",
    params=25_796_584,
)
def videomamba_small(**overrides: Any) -> VideoMamba:
    """VideoMamba-S: 26 M parameters; images, or clips with `num_frames`."""
    return _videomamba(VideoMambaConfig(width=384, depth=24), overrides)


@register_model(
    tags=["backbone", "image", "video", "mamba", "recognition"],
    paper="https://arxiv.org/abs/2403.06977",
    params=74_217_448,
)
def videomamba_middle(**overrides: Any) -> VideoMamba:
    """VideoMamba-M: 74 M parameters; images, or clips with `num_frames`."""
    return _videomamba(VideoMambaConfig(width=576, depth=32), overrides)


@register_model(
    tags=["backbone", "image", "video", "mamba", "recognition"],
    paper="https://arxiv.org/abs/2403.06977",
    params=97_598_440,
)
def videomamba_base(**overrides: Any) -> VideoMamba:
    """VideoMamba-B: 98 M parameters; images, or clips with `num_frames`."""
    return _videomamba(VideoMambaConfig(width=768, depth=24), overrides)
