"""Adaptive sampling in the attention layers of StableMamba; Mamba layers then scan fewer tokens.

A scan walks along the sequence, so tokens that are left keep their order. Where attention joins all tokens
they are one set; layers with attention inside windows of frames, or along time, do not sample. Sequences of
different length are scanned one by one, since the backward walk would begin in padding.
Shapes: B inputs, R tokens that are left of all of them, D width.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from framecast.backbones.adaptive_blocks import Stage, Tokens, attend, drop_rows, pack, token_macs
from framecast.backbones.adaptive_model import AdaptiveModel, Trace
from framecast.backbones.stablemamba import StableMamba
from framecast.nn.mamba import MambaMixer
from framecast.nn.ragged import Ragged
from framecast.nn.residual_stack import MambaLayer, TransformerLayer, add
from framecast.ops import memory, native_library


@dataclass
class Carried:
    """What layers hand on, packed: h, the sum before it (None at first), and where the tokens are from."""

    h: Tensor  # (R, D)
    r: Tensor | None
    ids: Tensor  # (R,) -1 for the class token
    layout: Ragged


class AdaptiveStableMamba(AdaptiveModel):
    """A StableMamba whose Transformer layers sample."""

    host: StableMamba

    @property
    def depth(self) -> int:
        return len(self.host.layers)

    def sampling_blocks(self) -> list[int]:
        frames = self.host.config.steps or 1
        return [i for i, layer in enumerate(self.host.layers) if joins_all(layer, frames)]

    def scores(self, pixels: Tensor, trace: Trace | None) -> Tensor:
        host, x = self.host, self.host.embed(pixels)
        frames, num_patches = host.frames_of(pixels), x.shape[1] - 1
        start = pack(x, 1)
        carried = Carried(start.x, None, start.ids, start.layout)
        with memory.reused() if native_library.usable(x) else nullcontext():
            carried = self.run(carried, frames, num_patches, trace)
        summed_up = add(drop_rows(host.drop_path, carried.h, carried.layout), carried.r)
        return host.forward_head(host.norm_f(summed_up)[:, None])  # the class tokens alone are left

    def run(self, carried: Carried, frames: int, num_patches: int, trace: Trace | None) -> Carried:
        """All layers, the last one for the class tokens alone."""
        whole = carried.layout.rows
        for i, layer in enumerate(cast(Any, self.host.layers)):
            last, place = i == self.depth - 1, self.stage_of(i)
            before = carried.layout.counts
            if isinstance(layer, MambaLayer):
                carried = scan(layer, carried, class_only=last)
            elif place is None and not last and carried.layout.rows == whole:
                carried = whole_layer(layer, carried, frames)
            else:
                stage = None
                if place is not None:
                    budget = self.config.budget[place]
                    stage = Stage(self.config, budget, num_patches, generator=self.generator)
                carried = transform(layer, carried, stage, class_only=last)
            if trace is not None:
                trace.work([layer_macs(layer, *n) for n in zip(before, carried.layout.counts, strict=True)])
                trace.full += layer_macs(layer, num_patches + 1, num_patches + 1)
                if place is not None:
                    trace.stage(carried.ids, carried.layout, num_patches)
        return carried


def joins_all(layer: Any, frames: int) -> bool:
    """Whether it is a Transformer layer in which every token looks at every token."""
    if not isinstance(layer, TransformerLayer) or layer.attn_time is not None:
        return False
    return layer.window == 0 or layer.window >= frames


def summed(path: Any, carried: Carried) -> Tensor:
    if carried.r is None:
        return add(carried.h, None)
    return add(drop_rows(path, carried.h, carried.layout), carried.r)


def whole_layer(layer: TransformerLayer, carried: Carried, frames: int) -> Carried:
    """The host's own layer, while every token is there."""
    units = (len(carried.layout.counts), -1)
    r = None if carried.r is None else carried.r.unflatten(0, units)
    h, r = layer(carried.h.unflatten(0, units), r, frames=frames)
    return replace(carried, h=h.flatten(0, 1), r=r.flatten(0, 1))


def transform(layer: TransformerLayer, carried: Carried, stage: Stage | None, *, class_only: bool) -> Carried:
    r = summed(layer.drop_path_before, carried)
    tokens = Tokens(r, carried.ids, carried.layout, 1)
    x = layer.norm1(r)
    h, kept = attend(layer.attn, x, tokens, stage, prefix_only=class_only, in_order=True)
    left = tokens if kept is None else tokens.keep(*kept)
    carried = Carried(h, left.x, left.ids, left.layout)
    if layer.mlp is None or layer.norm2 is None:
        return carried
    r = summed(layer.drop_path, carried)
    return replace(carried, h=layer.mlp(layer.norm2(r)), r=r)


def scan(layer: MambaLayer, carried: Carried, *, class_only: bool) -> Carried:
    r, layout = summed(layer.drop_path, carried), carried.layout
    x = layer.norm(r)
    if layout.uniform:
        h = layer.mixer(layout.pad(x, 0.0), first_only=class_only).flatten(0, 1)
    else:
        h = torch.cat([layer.mixer(part[None], first_only=class_only)[0] for part in x.split(layout.counts)])
    if not class_only:
        return replace(carried, h=h, r=r)
    rows, first = layout.front(1)
    return Carried(h, r.index_select(0, rows), carried.ids.index_select(0, rows), first)


def layer_macs(layer: Any, tokens: int, kept: int) -> int:
    """Multiply-adds of a layer; of a scan the update of its states and what is read from them."""
    if isinstance(layer, MambaLayer):
        mixer: MambaMixer = layer.mixer
        inner = mixer.out_proj.in_features
        each = sum(walk.conv1d.kernel_size[0] + 2 * mixer.d_state for walk in mixer.walks)
        return tokens * (token_macs(mixer) + inner * each)
    width = layer.attn.proj.in_features
    mlp = 0 if layer.mlp is None else token_macs(layer.mlp)
    time = 0 if layer.attn_time is None else 4 * tokens * width**2
    return time + 2 * tokens * width**2 + 2 * kept * (width**2 + tokens * width) + kept * mlp
