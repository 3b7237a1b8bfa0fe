"""Adaptive sampling in video models that attend frame by frame: XViT and TimeSformer.

The release has no video models; what follows is our reading. Every frame is sampled by its own class row and
may keep another number of patches; tokens know their frame and place. With scope "clip" the shares are
averaged over the frames and all of them keep the same places.

XViT: a token takes channels from its place in the neighbouring frames, zeros where the patch there is gone.
TimeSformer: a patch attends along time to the frames in which its place is alive.
Shapes: B clips, T frames, N patches of a whole frame, R patches that are left in all frames, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from framecast.backbones.adaptive_blocks import (
    Shift,
    Stage,
    Tokens,
    attend,
    attend_masked,
    drop_path,
    dropout_of,
    token_macs,
)
from framecast.backbones.adaptive_model import Trace
from framecast.backbones.adaptive_vit import AdaptiveVit
from framecast.backbones.xvit import MixingAttention, XViT, shift_in_time
from framecast.nn.ragged import Ragged


class AdaptiveXViT(AdaptiveVit):
    """An XViT that samples the patches of every frame."""

    host: XViT

    def __init__(self, host: XViT, config: Any) -> None:
        super().__init__(host, config)
        self.num_prefix_tokens = 1  # of each frame

    @property
    def frames_apart(self) -> bool:
        return True

    def shift(self, block: Any, tokens: Tokens, num_patches: int) -> Shift | None:
        if not isinstance(block.attn, MixingAttention):
            return None
        after, before = neighbours(tokens, 1 + num_patches, block.attn.group_frames)
        return partial(shift_rows, after=after, before=before, div=block.attn.div)

    def shift_masked(self, block: Any, alive: Tensor) -> Shift | None:
        if not isinstance(block.attn, MixingAttention):
            return None
        attention, living = block.attn, F.pad(alive, (1, 0), value=True)[..., None]
        shifted = partial(shift_in_time, num_frames=attention.group_frames, div=attention.div)
        return lambda k, v: (shifted(k * living), shifted(v * living))

    def classify_prefix(self, first: Tensor, samples: int) -> Tensor:
        return self.host.head(self.host.norm(first[:, 0]).unflatten(0, (samples, -1)))


def neighbours(tokens: Tokens, places: int, group: int) -> tuple[Tensor, Tensor]:
    """Rows (R,) with each token's place in the next frame and in the one before; R where there is none."""
    layout, place = tokens.layout, tokens.ids + 1  # class token: 0
    nobody, frames = layout.rows, len(layout.counts)
    table = torch.full((frames + 2, places), nobody, device=place.device)  # an empty frame on either side
    frame = layout.owners
    table[frame + 1, place] = torch.arange(nobody, device=place.device)
    after = table[frame + 2, place].masked_fill(frame % group == group - 1, nobody)
    return after, table[frame, place].masked_fill(frame % group == 0, nobody)


def shift_rows(k: Tensor, v: Tensor, *, after: Tensor, before: Tensor, div: int) -> tuple[Tensor, Tensor]:
    """`shift_in_time` for the rows that are left, k and v (R, D)."""
    fold = k.shape[-1] // div
    shifted = []
    for x in (k, v):
        sources = F.pad(x[:, : 2 * fold], (0, 0, 0, 1))  # the last row is nobody's
        parts = (sources[after, :fold], sources[before, fold:], x[:, 2 * fold :])
        shifted.append(torch.cat(parts, dim=-1))
    return shifted[0], shifted[1]


# TimeSformer ------------------------------------------------------------------------------------------


@dataclass
class DividedTokens:
    """One class token of each clip, and the patches that are left, frame after frame."""

    cls: Tensor  # (B, D)
    x: Tensor  # (R, D)
    ids: Tensor  # (R,) place in the frame
    layout: Ragged  # of B * T frames


class AdaptiveTimeSformer(AdaptiveVit):
    """A TimeSformer with divided attention that samples the patches of every frame in space."""

    @property
    def frames_apart(self) -> bool:
        return True

    def scores(self, pixels: Tensor, trace: Trace | None) -> Tensor:
        clips, frames = pixels.shape[0], pixels.shape[2]
        whole = self.host.embed(pixels)  # (B, 1 + T N, D)
        places = (whole.shape[1] - 1) // frames
        ids = torch.arange(places, device=whole.device).repeat(clips * frames)
        layout = Ragged([places] * (clips * frames), whole.device)
        tokens = DividedTokens(whole[:, 0], whole[:, 1:].flatten(0, 1), ids, layout)
        for i, block in enumerate(self.host.blocks):
            last, stage = i == self.depth - 1, self.stage(i, places, pixels)
            before = tokens
            tokens = divided_block(block, tokens, stage, frames, places, class_only=last)
            if trace is not None:
                trace.work(divided_macs(block, before, tokens, clips, places))
                trace.full += divided_macs_of_all(block, frames, places)
                if stage is not None:
                    # each frame has seen the class token as its own
                    rows = Ragged([n + 1 for n in tokens.layout.counts], whole.device)
                    with_class = rows.owners.new_full((rows.rows,), -1)
                    with_class[torch.arange(len(tokens.ids)) + tokens.layout.owners + 1] = tokens.ids
                    trace.stage(with_class, rows, places)
        return self.host.forward_head(self.host.norm(tokens.cls)[:, None])

    def forward_masked(self, pixels: Tensor) -> Tensor:
        frames, x = pixels.shape[2], self.host.embed(pixels)
        cls, patches = x[:, :1], x[:, 1:].unflatten(1, (frames, -1))  # (B, 1, D), (B, T, N, D)
        alive = torch.ones(patches.shape[:3], dtype=torch.bool, device=x.device)
        place = torch.arange(alive[:, 0].numel(), device=x.device).view(-1, 1, alive.shape[2])
        place = place.expand(alive.shape).flatten()
        for i, block in enumerate(self.host.blocks):
            stage = None if i == self.depth - 1 else self.stage(i, patches.shape[2], pixels)
            qkv = block.temporal_attn.qkv(block.temporal_norm1(patches))
            x = between_frames(block.temporal_attn, qkv, alive).flatten(0, 2)
            patches = patches + spoken_in_time(block, x, place, x.shape[0] // frames).view(patches.shape)
            together = torch.cat([cls[:, None].expand(-1, frames, -1, -1), patches], dim=2).flatten(0, 1)
            flat = alive.flatten(0, 1)
            answers, left = attend_masked(block.attn, block.norm1(together), flat, stage, 1)
            seen = block.drop_path(answers).unflatten(0, (-1, frames))
            cls = cls + seen[:, :, 0].mean(1, keepdim=True)
            x = torch.cat([cls, (patches + seen[:, :, 1:]).flatten(1, 2)], dim=1)
            x = x + block.drop_path(block.mlp(block.norm2(x)))
            cls, patches = x[:, :1], x[:, 1:].unflatten(1, (frames, -1))
            alive = left.unflatten(0, (-1, frames))
        return self.host.forward_head(self.host.norm(cls))


def between_frames(attention: Any, qkv: Tensor, alive: Tensor | None) -> Tensor:
    """Every place over its frames: (B, T, N, 3 D) -> (B, T, N, D); alive (B, T, N), None = all."""
    q, k, v = rearrange(qkv, "b t n (c h d) -> c (b n) h t d", c=3, h=attention.num_heads)
    seen = None
    if alive is not None:
        seen = rearrange(alive, "b t n -> (b n) 1 1 t")
        seen = seen | ~seen.any(-1, keepdim=True)  # of places without patches nobody reads the answer
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout_of(attention))
    return rearrange(x, "(b n) h t d -> b t n (h d)", b=qkv.shape[0])


def spoken_in_time(block: Any, x: Tensor, place: Tensor, num_places: int) -> Tensor:
    """The way out of the attention along time, x (R, D); while training it is left out for whole places."""
    moved = block.temporal_attn.proj(x)
    if block.drop_path.training and block.drop_path.rate:
        drawn = block.drop_path(torch.ones(num_places, 1, device=x.device))
        moved = moved * drawn.index_select(0, place)
    return block.temporal_fc(moved)


def divided_block(
    block: Any, tokens: DividedTokens, stage: Stage | None, frames: int, places: int, *, class_only: bool
) -> DividedTokens:
    """Time, then space with sampling, then MLP; with class_only the patches are gone after it."""
    clips, layout = tokens.cls.shape[0], tokens.layout
    patches = tokens.x + moved_in_time(block, tokens, frames, places)

    together = torch.cat([tokens.cls, patches])
    patch_rows = torch.arange(layout.rows, device=patches.device)
    inner = Ragged([n + 1 for n in layout.counts], patches.device)  # every frame with the class token
    source = torch.arange(inner.rows, device=patches.device) - inner.owners - 1 + clips
    units = torch.arange(len(layout.counts), device=patches.device)
    source = source.index_copy(0, inner.first_rows, units // frames)
    ids = source.new_full((inner.rows,), -1).index_copy(0, patch_rows + layout.owners + 1, tokens.ids)
    h = block.norm1(together).index_select(0, source)
    answers, kept = attend(block.attn, h, Tokens(h, ids, inner, 1), stage, prefix_only=class_only)

    rows, left = (None, inner) if kept is None else kept
    answers = drop_path(block, 1, answers, left)
    cls = tokens.cls + answers.index_select(0, left.first_rows).unflatten(0, (clips, frames)).mean(1)
    layout = Ragged([n - 1 for n in left.counts], patches.device)
    patch_rows = torch.arange(layout.rows, device=patches.device) + layout.owners + 1
    kept_rows = patch_rows if rows is None else rows.index_select(0, patch_rows)  # of `inner`
    patches = patches.index_select(0, source.index_select(0, kept_rows) - clips)
    patches = patches + answers.index_select(0, patch_rows)

    x = torch.cat([cls, patches])
    branch = block.mlp(block.norm2(x))
    if block.drop_path.training and block.drop_path.rate:  # one draw of each clip
        drawn = block.drop_path(torch.ones(clips, 1, device=x.device))
        clip_of = torch.cat([torch.arange(clips, device=x.device), layout.owners // frames])
        branch = branch * drawn.index_select(0, clip_of)
    x = x + branch
    return DividedTokens(x[:clips], x[clips:], ids.index_select(0, kept_rows), layout)


def moved_in_time(block: Any, tokens: DividedTokens, frames: int, places: int) -> Tensor:  # (R, D)
    attention, layout = block.temporal_attn, tokens.layout
    qkv = attention.qkv(block.temporal_norm1(tokens.x))
    shape, size = (-1, frames, places), len(layout.counts) * places
    if layout.rows == size:  # none has left yet
        x = between_frames(attention, qkv.view(*shape, qkv.shape[-1]), None).flatten(0, 2)
    else:
        slots = layout.owners * places + tokens.ids
        grid = qkv.new_zeros(size, qkv.shape[-1]).index_copy(0, slots, qkv)
        alive = torch.zeros(size, dtype=torch.bool, device=qkv.device).index_fill(0, slots, True)
        x = between_frames(attention, grid.view(*shape, grid.shape[-1]), alive.view(shape))
        x = x.flatten(0, 2).index_select(0, slots)
    return spoken_in_time(block, x, layout.owners // frames * places + tokens.ids, size // frames)


def divided_macs(
    block: Any, before: DividedTokens, after: DividedTokens, clips: int, places: int
) -> list[int]:
    """Multiply-adds of each clip in a block."""
    frames, width = len(before.layout.counts) // clips, block.attn.proj.in_features
    clip_places = before.layout.owners // frames * places + before.ids
    each = torch.bincount(clip_places, minlength=clips * places).view(clips, places)
    pairs = each.square().sum(-1).tolist()
    macs = []
    for i in range(clips):
        came, stay = (t.layout.counts[i * frames : (i + 1) * frames] for t in (before, after))
        space = sum(
            2 * (n + 1) * width**2 + 2 * (m + 1) * (width**2 + (n + 1) * width)
            for n, m in zip(came, stay, strict=True)
        )
        time = 5 * sum(came) * width**2 + 2 * pairs[i] * width
        macs.append(time + space + (1 + sum(stay)) * token_macs(block.mlp))
    return macs


def divided_macs_of_all(block: Any, frames: int, places: int) -> int:
    width, tokens = block.attn.proj.in_features, frames * (places + 1)
    space = 4 * tokens * width**2 + 2 * tokens * (places + 1) * width
    time = 5 * frames * places * width**2 + 2 * places * frames**2 * width
    return time + space + (1 + frames * places) * token_macs(block.mlp)
