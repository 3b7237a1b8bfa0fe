"""Adaptive sampling in models whose blocks read one sequence: image ViTs, joint video ViTs, timm's ViT.

All patches of a clip are one set where attention joins space and time; a space-only TimeSformer samples each
frame by itself. Where the head reads prefix tokens alone, the last block keeps these alone, which changes no
score; a head that averages patches averages those that are left.
Shapes: U sequences (samples, or their frames), P prefix tokens, M patches, D width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from framecast.backbones.adaptive_blocks import (
    Shift,
    Stage,
    Tokens,
    block_macs,
    pack,
    run_block,
    run_block_masked,
)
from framecast.backbones.adaptive_model import AdaptiveModel, Trace
from framecast.backbones.timesformer import TimeSformer
from framecast.backbones.vit import VisionTransformer


class AdaptiveVit(AdaptiveModel):
    """A ViT that samples patches between its blocks."""

    def __init__(self, host: Any, config: Any) -> None:
        super().__init__(host, config)
        self.num_prefix_tokens = 1 if isinstance(host, TimeSformer) else host.num_prefix_tokens
        self.reads_prefix_alone = not (isinstance(host, VisionTransformer) and host.config.pooling == "mean")
        if is_timm(host):
            self.reads_prefix_alone = check_timm(host)

    @property
    def frames_apart(self) -> bool:
        """Whether each frame of a clip is a sequence of its own."""
        return isinstance(self.host, TimeSformer) and self.host.config.attention == "space_only"

    def scores(self, pixels: Tensor, trace: Trace | None) -> Tensor:
        tokens = self.run(pixels, self.depth, classify=True, trace=trace)
        return self.classify(tokens, pixels.shape[0])

    def tokens(self, pixels: Tensor, layer: int | None = None) -> Tokens:
        """Tokens left after the final norm, or as block `layer` leaves them; the last block samples."""
        tokens = self.run(pixels, self.depth if layer is None else layer + 1)
        return replace(tokens, x=self.host.norm(tokens.x)) if layer is None else tokens

    def run(
        self, pixels: Tensor, num_blocks: int, *, classify: bool = False, trace: Trace | None = None
    ) -> Tokens:
        """Tokens as so many blocks leave them; whole sequences go through the host's blocks."""
        x = self.embed(pixels)
        num_patches = x.shape[1] - self.num_prefix_tokens
        tokens: Tokens | None = None
        for i in range(num_blocks):
            block, stage = self.host.blocks[i], self.stage(i, num_patches, pixels)
            last = classify and self.reads_prefix_alone and i == self.depth - 1
            before = [x.shape[1]] * x.shape[0] if tokens is None else tokens.layout.counts
            if tokens is None and (stage is not None or last):
                tokens = pack(x, self.num_prefix_tokens)
            if tokens is None:
                x = block(x)
            else:
                shift = self.shift(block, tokens, num_patches)
                tokens = run_block(block, tokens, stage, prefix_only=last, shift=shift)
            if trace is not None:
                after = before if tokens is None else tokens.layout.counts
                trace.work([block_macs(block, n, left) for n, left in zip(before, after, strict=True)])
                trace.full += len(before) // len(trace.macs) * block_macs(block, x.shape[1], x.shape[1])
                if stage is not None and tokens is not None:
                    trace.stage(tokens.ids, tokens.layout, num_patches)
        return pack(x, self.num_prefix_tokens) if tokens is None else tokens

    def stage(self, block: int, num_patches: int, pixels: Tensor) -> Stage | None:
        place = self.stage_of(block)
        if place is None:
            return None
        together = pixels.shape[2] if self.frames_apart and self.config.scope == "clip" else 1
        return Stage(self.config, self.config.budget[place], num_patches, together, self.generator)

    def embed(self, pixels: Tensor) -> Tensor:  # (U, P + M, D)
        if not is_timm(self.host):
            return self.host.embed(pixels)
        x = self.host._pos_embed(self.host.patch_embed(pixels))
        return self.host.norm_pre(self.host.patch_drop(x))

    def shift(self, block: Any, tokens: Tokens, num_patches: int) -> Shift | None:
        """What a block does to keys and values before anybody sees them."""
        return None

    def classify(self, tokens: Tokens, samples: int) -> Tensor:
        layout, prefix = tokens.layout, tokens.prefix
        first = tokens.x.index_select(0, layout.front(prefix)[0]).unflatten(0, (-1, prefix))
        if self.reads_prefix_alone:
            return self.classify_prefix(first, samples)
        whole = layout.pad(self.host.norm(tokens.x), 0.0)
        mean = whole[:, prefix:].sum(1) / (layout.lengths - prefix).clamp(min=1)[:, None]
        return self.host.forward_head(torch.cat([self.host.norm(first), mean[:, None]], dim=1))

    def classify_prefix(self, first: Tensor, samples: int) -> Tensor:  # (U, P, D), not yet normed
        if self.frames_apart:
            first = first.unflatten(0, (samples, -1)).mean(1)
        return self.host.forward_head(self.host.norm(first))

    def forward_masked(self, pixels: Tensor) -> Tensor:
        x, prefix = self.embed(pixels), self.num_prefix_tokens
        num_patches = x.shape[1] - prefix
        alive = torch.ones(x.shape[0], num_patches, dtype=torch.bool, device=x.device)
        for i, block in enumerate(self.host.blocks):
            last = self.reads_prefix_alone and i == self.depth - 1
            stage = None if last else self.stage(i, num_patches, pixels)
            x, alive = run_block_masked(block, x, alive, stage, prefix, shift=self.shift_masked(block, alive))
        if self.reads_prefix_alone:
            return self.classify_prefix(x[:, :prefix], pixels.shape[0])
        x = self.host.norm(x)
        mean = (x[:, prefix:] * alive[..., None]).sum(1) / alive.sum(1, keepdim=True).clamp(min=1)
        return self.host.forward_head(torch.cat([x[:, :prefix], mean[:, None]], dim=1))

    def shift_masked(self, block: Any, alive: Tensor) -> Shift | None:
        return None


# timm -------------------------------------------------------------------------------------------------


def is_timm(model: nn.Module) -> bool:
    """Whether it is timm's VisionTransformer or one that is derived from it; timm need not be installed."""
    names = {(c.__module__.split(".")[0], c.__name__) for c in type(model).__mro__}
    return ("timm", "VisionTransformer") in names


def check_timm(model: Any) -> bool:
    """Whether the head reads prefix tokens alone; ValueError where the model has parts unknown here."""
    name = type(model).__name__
    for block in model.blocks:
        parts = ("norm1", "attn", "ls1", "norm2", "mlp", "ls2", "drop_path1")
        attention = getattr(block, "attn", None)
        plain = type(block).__name__ == "Block" and type(attention).__name__ == "Attention"
        if not plain or not all(hasattr(block, part) for part in parts):
            raise ValueError(
                f"{name} has blocks of {type(block).__name__} with {type(attention).__name__}; tokens are "
                "sampled in timm's plain Block and Attention"
            )
        if getattr(attention, "gate", None) is not None:
            raise ValueError(f"{name} gates its attention, which sampling does not know")
    if getattr(model, "cls_token", None) is None:
        raise ValueError(f"{name} has no class token, by whose attention tokens are sampled")
    if model.global_pool == "token":
        return True
    if model.global_pool == "avg" and not model.pool_include_prefix and model.attn_pool is None:
        return False
    raise ValueError(
        f"{name} pools by {model.global_pool!r}; sampling knows the class token and the mean of patches"
    )
