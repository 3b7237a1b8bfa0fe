"""STAB, the eyes of Video-Panda (Yi, Wasim, Luo, Naseer, Gall, CVPR 2025, https://arxiv.org/abs/2412.18609):
patches become tokens of a language model with no vision encoder in between.

Neighbouring patches in space and time are mixed (`LocalMixing`), one token sums up each chunk of four frames
(`ClipSummary`), 2 x 2 patches become one token and one more sums up the frame (`SummaryAttention`), both
summaries are fused into a token in front of the frame, and a learned token ends every row. A frame is
`[context, row, end of row, row, end of row, …]`; a projector brings all to the language model's width.

Kept as the weights of the release want it: there is one clip token for each chunk and not for the video;
scores of the frame's attention are scaled by the full width; patches of the frame's margin, and frames that
are all margin, are seen by the clip token and cost tokens (`padding="skipped"` leaves both out). Differs from
the release: a frame is cropped to the box round its valid patches, which is the release's crop for every
letterboxed frame (`crop="release"` has it for other masks, too); the block that the release builds but never
runs is left out (`unused_block=True` has it).
Shapes: B clips, T frames, H and W pixels, h and w patches, D width, L the language model's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from framecast.backbones.stab_frames import Box, Crop, VisualTokens, boxes_of, same_size, valid_patches
from framecast.backbones.stab_layout import OFFICIAL
from framecast.backbones.stab_parts import ClipSummary, LocalMixing, PositionMixing, Projector
from framecast.nn.summary_attention import Impl, SummaryAttention
from framecast.registry import checked_overrides, register_model

__all__ = ["OFFICIAL", "Stab", "StabConfig"]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class StabConfig:
    width: int = 1024
    llm_width: int = 4096  # of the language model that reads the tokens
    num_heads: int = 8  # of the attention within a frame
    temporal_heads: int = 8  # of the clip token; 11 for a width of 1408
    patch_size: int = 14
    image_size: int = 448  # longer side of a frame in pixels; there are no positions, other sizes are taken
    num_frames: int = 8  # of a video
    chunk_frames: int = 4  # that are mixed and summed up together
    pool: int = 2  # patches per side that become one token
    dropout: float = 0.5
    padding: Literal["seen", "skipped"] = "seen"  # margins in the clip token, and tokens of empty frames
    empty_patches: int = 16  # side of the corner that an empty frame is cropped to
    crop: Crop = "box"
    unused_block: bool = False  # the release's second mixing block, which it never runs
    # For studies of what each part is worth; all True is the model.
    local_mixing: bool = True
    clip_token: bool = True
    frame_token: bool = True
    row_token: bool = True
    downsampling: Literal["attention", "average"] = "attention"
    mean: tuple[float, float, float] = CLIP_MEAN  # of the pixels that it was trained on, 0..1
    std: tuple[float, float, float] = CLIP_STD


class Stab(nn.Module):
    """Clips to tokens for a language model; one frame alone is an image and skips all that is about time."""

    def __init__(self, config: StabConfig) -> None:
        super().__init__()
        self.config = c = config
        if not min(c.width, c.patch_size, c.pool, c.chunk_frames, c.num_heads, c.temporal_heads):
            raise ValueError("width, patch_size, pool, chunk_frames and heads of a STAB must be 1 or more")
        self.patch_embed = nn.Linear(3 * c.patch_size**2, c.width, bias=False)
        self.mixing = LocalMixing(c.width) if c.local_mixing else None
        self.unused = LocalMixing(c.width) if c.unused_block else None
        self.position = PositionMixing(c.width)
        self.clip_summary = ClipSummary(c.width, c.temporal_heads, c.dropout) if c.clip_token else None
        attentive = c.downsampling == "attention"
        self.window_summary = SummaryAttention(c.width, c.num_heads) if attentive else None
        self.frame_token = nn.Parameter(torch.randn(c.width)) if c.frame_token else None
        self.frame_summary = SummaryAttention(c.width, c.num_heads) if c.frame_token else None
        both = c.clip_token and c.frame_token
        self.balance = nn.Parameter(torch.zeros(c.width)) if both else None
        fuse = nn.Sequential(nn.LayerNorm(c.width), nn.Dropout(c.dropout), nn.Linear(c.width, c.width))
        self.fuse = fuse if c.clip_token else None
        self.row_token = nn.Parameter(torch.randn(c.width)) if c.row_token else None
        self.projector = Projector(c.width, c.llm_width)

    @property
    def feature_dim(self) -> int:
        return self.config.llm_width

    @property
    def stride(self) -> int:
        """Pixels between two tokens."""
        return self.config.patch_size * self.config.pool

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W) without margins -> tokens (B, T, 1 + h'(w' + 1), L), h' and w' after pooling.

        One call of plain tensor operations, for export; `encode` gives the same and takes margins.
        """
        mixed, clip = self.mix(clips)
        return self.frame_tokens(mixed.flatten(0, 1), clip).unflatten(0, mixed.shape[:2])

    def encode(
        self, clips: Tensor, valid: Tensor | None = None, *, impl: Impl = "auto"
    ) -> list[VisualTokens]:
        """Tokens of every frame of every clip; frames may differ in how many they have.

        clips: (B, 3, T, H, W), normalised; T is 1 or a multiple of `chunk_frames`. valid: (B, T, H, W),
        zero where a pixel is margin; None = no margins. impl: "reference" goes frame by frame and writes
        keys and values down, "auto" takes frames of one size together and does not.
        """
        c = self.config
        patches = None if valid is None else valid_patches(valid, clips, c.patch_size)
        mixed, clip = self.mix(clips, patches, impl)
        num_frames, rows, columns = mixed.shape[1:4]
        maps = mixed.flatten(0, 1)
        boxes: list[Box | None] = [Box(0, 0, rows, columns)] * len(maps)
        if patches is not None:
            corner = Box(0, 0, min(rows, c.empty_patches), min(columns, c.empty_patches))
            empty = None if c.padding == "skipped" else corner
            boxes = [box or empty for box in boxes_of(patches.flatten(0, 1), c.crop)]
        frames, grids = [maps.new_zeros(0, c.llm_width)] * len(maps), [(0, 0)] * len(maps)
        for members in same_size(boxes, alone=impl == "reference"):
            crops = cropped(maps, boxes, members)
            if min(crops.shape[1:3]) < c.pool:
                raise ValueError(
                    f"a frame has {crops.shape[1]} x {crops.shape[2]} valid patches of {c.patch_size} "
                    f"pixels; at least {c.pool} x {c.pool} make a token"
                )
            tokens = self.frame_tokens(crops, None if clip is None else clip[members], impl)
            for i, frame in zip(members, tokens, strict=True):
                frames[i], grids[i] = frame, (crops.shape[1] // c.pool, crops.shape[2] // c.pool)
        return [
            VisualTokens(tuple(frames[i : i + num_frames]), tuple(grids[i : i + num_frames]))
            for i in range(0, len(frames), num_frames)
        ]

    def mix(
        self, clips: Tensor, patches: Tensor | None = None, impl: Impl = "auto"
    ) -> tuple[Tensor, Tensor | None]:
        """Patches after mixing (B, T, h, w, D) and the clip token of each frame's chunk (B * T, D).

        patches: (B, T, h, w) bool, not margin. An image has no clip token.
        """
        self.check(clips)
        embedded = self.embed(clips)
        num_frames = embedded.shape[1]
        if num_frames == 1:
            return embedded, None
        chunk = self.config.chunk_frames
        x = embedded.unflatten(1, (num_frames // chunk, chunk)).flatten(0, 1)
        u = x if self.mixing is None else x + self.mixing(x, impl=impl)
        v = u + self.position(u)
        clip = None
        if self.clip_summary is not None:
            taken = None
            if patches is not None and self.config.padding == "skipped":
                taken = patches.reshape(v.shape[0], -1)
                taken = taken | ~taken.any(1, keepdim=True)  # a chunk of empty frames has no tokens at all
            clip = self.clip_summary(v.flatten(1, 3), taken, impl=impl).repeat_interleave(chunk, dim=0)
        return (v + x).view_as(embedded), clip

    def check(self, clips: Tensor) -> None:
        c = self.config
        if clips.ndim != 5 or clips.shape[1] != 3:
            raise ValueError(f"a STAB reads clips (B, 3, T, H, W), but got {tuple(clips.shape)}")
        num_frames, height, width = clips.shape[2:]
        if num_frames != 1 and (num_frames % c.chunk_frames or not num_frames):
            raise ValueError(
                f"a clip of {num_frames} frames cannot be cut into chunks of {c.chunk_frames}; fill it up "
                "with empty frames (not valid), or pass single frames"
            )
        if height % c.patch_size or width % c.patch_size:
            raise ValueError(f"{height}x{width} pixels cannot be cut into patches of {c.patch_size}")
        if min(height, width) < self.stride:
            raise ValueError(f"{height}x{width} pixels make no token; at least {self.stride} are needed")

    def embed(self, clips: Tensor) -> Tensor:
        """Patches (B, T, h, w, D)."""
        side = self.config.patch_size
        patches = rearrange(clips, "b c t (h p) (w q) -> b t h w (c p q)", p=side, q=side)
        return self.patch_embed(patches.to(self.patch_embed.weight.dtype))

    def frame_tokens(self, maps: Tensor, clip: Tensor | None, impl: Impl = "auto") -> Tensor:
        """Frames of one size (F, h, w, D) and their clip tokens (F, D) -> (F, 1 + h'(w' + 1), L)."""
        tokens, rows = self.pooled(maps, impl), maps.shape[1] // self.config.pool
        context = self.context(tokens, clip, impl)
        first = 0 if context is None else 1
        tokens = self.projector(tokens if context is None else torch.cat([context[:, None], tokens], dim=1))
        grid = tokens[:, first:].unflatten(1, (rows, -1))
        if self.row_token is not None:  # the same for every row, projected once
            ends = self.projector(self.row_token[None]).expand(*grid.shape[:2], 1, -1)
            grid = torch.cat([grid, ends], dim=2)
        return torch.cat([tokens[:, :first], grid.flatten(1, 2)], dim=1)

    def pooled(self, maps: Tensor, impl: Impl = "auto") -> Tensor:
        """Windows of patches to one token each: (F, h, w, D) -> (F, h' w', D); what is left over is cut."""
        pool = self.config.pool
        rows, columns = maps.shape[1] // pool, maps.shape[2] // pool
        maps = maps[:, : rows * pool, : columns * pool]
        windows = rearrange(maps, "f (h p) (w q) d -> (f h w) (p q) d", p=pool, q=pool)
        tokens = windows.mean(1)
        if self.window_summary is not None:
            tokens = self.window_summary(tokens, windows, impl=impl)
        return tokens.unflatten(0, (-1, rows * columns))

    def context(self, tokens: Tensor, clip: Tensor | None, impl: Impl = "auto") -> Tensor | None:
        """The token in front of each frame (F, D), of its pooled tokens (F, N, D) and clip token (F, D)."""
        frame = None
        if self.frame_summary is not None and self.frame_token is not None:
            frame = self.frame_summary(self.frame_token[None], tokens, impl=impl)
        if self.fuse is None or clip is None:
            return frame
        if frame is None or self.balance is None:
            return self.fuse(clip)
        weight = torch.sigmoid(self.balance)
        return self.fuse((1 - weight) * clip + weight * frame)


def cropped(maps: Tensor, boxes: Sequence[Box | None], members: list[int]) -> Tensor:
    """Equally large boxes of some frames of (F, h, w, D), as one tensor."""
    parts = [
        maps[i, b.top : b.top + b.rows, b.left : b.left + b.columns]
        for i in members
        if (b := boxes[i]) is not None
    ]
    whole = len(members) == len(maps) and parts[0].shape == maps.shape[1:]
    return maps if whole else torch.stack(parts)


@register_model(
    tags=["ask", "video", "image"],
    paper="https://arxiv.org/abs/2412.18609",
    params=45_066_578,
    system="video_panda",
)
def video_panda_stab(**overrides: Any) -> Stab:
    """STAB with its projector, the vision part of Video-Panda: 45 M parameters, 105 GMACs for 8 frames."""
    checked = checked_overrides(StabConfig, overrides, "a STAB")
    return Stab(replace(StabConfig(width=1024, llm_width=4096), **checked))
