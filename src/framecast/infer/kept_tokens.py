"""Which patches an adaptive model keeps of what it looks at, read from its record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framecast.backbones.adaptive import adaptive
from framecast.backbones.adaptive_model import AdaptiveModel, SamplingRecord
from framecast.backbones.adaptive_vit import is_timm
from framecast.checkpoints import card_of
from framecast.structures import KeptTokens
from framecast.tasks.recognition import classify


def check_adaptive(model: Any, source: str | Path = "") -> AdaptiveModel:
    """The model itself; ValueError that says how to make it adaptive where it keeps all tokens."""
    if isinstance(model, AdaptiveModel):
        return model
    name = getattr(model, "registered_name", type(model).__name__)
    try:
        adaptive(model)
    except ValueError as error:
        raise ValueError(f"{name} keeps all of its tokens, and {error}") from None
    made = f"fc.save(fc.adaptive(fc.load({str(source)!r}), budget=0.7), 'adaptive')"
    raise ValueError(
        f"{name} keeps all of its tokens, so there is nothing to show; make it adaptive, without training: "
        f'python -c "import framecast as fc; {made}" and pass --model adaptive'
    )


def see_tokens(model: AdaptiveModel, pixels: Tensor) -> list[KeptTokens]:
    """Run normalised images (B, 3, H, W) or clips (B, 3, F, H, W), and say which patches are kept of each.

    draw_tokens(see_tokens(model, pixels)[0], "kept.png")
    """
    with torch.inference_mode(), model.record() as record:
        classify(model, pixels)
    return [replace(kept_tokens(model, record, pixels, i), view="") for i in range(len(pixels))]


def kept_tokens(model: AdaptiveModel, record: SamplingRecord, views: Tensor, shown: int = 0) -> KeptTokens:
    """What the record of all `views`, (V, 3, H, W) or (V, 3, F, H, W), says of the one that is `shown`.

    A last block that hands on the class token alone is no stage here. ValueError where no other one samples.
    """
    config = model.config
    known = vars(config) if hasattr(config, "mean") else model.host.pretrained_cfg  # timm's
    frames = _pixels(views[shown], known["mean"], known["std"], card_of(model).channels)
    rows, columns = _grid(views.shape[-2:], model.host)
    each = len(record.counts) // len(views)  # an image model looks at every frame of a clip by itself
    places = each if each > 1 else len(frames) // getattr(config, "tubelet", 1)
    samples = range(shown * each, (shown + 1) * each)
    stages, blocks = [], []
    for block, ids in zip(config.blocks, record.ids, strict=True):
        if block == model.depth - 1 and not any(len(ids[i]) for i in samples):
            continue
        left = np.zeros(places * rows * columns, dtype=bool)
        for place, i in enumerate(samples):
            left[ids[i].numpy() + place * rows * columns * (each > 1)] = True
        stages.append(left.reshape(places, rows, columns))
        blocks.append(block)
    if not stages:
        raise ValueError(
            "only the last block samples, and it hands on the class token alone; there are no patches to show"
        )
    macs = int(record.macs[samples.start : samples.stop].sum())
    view = f"view {shown + 1} of {len(views)}" if len(views) > 1 else ""
    return KeptTokens(frames, np.stack(stages), tuple(blocks), macs / (each * record.full_macs), view)


def _pixels(view: Tensor, mean: Any, std: Any, channels: str) -> np.ndarray:
    """(F, H, W, 3) uint8 RGB as it was before it was normalised."""
    clip = view if view.ndim == 4 else view[:, None]
    shift, scale = (torch.tensor(values).view(-1, 1, 1, 1) for values in (mean, std))
    pixels = (clip.cpu().float() * scale + shift).mul(255).round().clamp(0, 255).byte()
    if channels == "bgr":
        pixels = pixels.flip(0)
    return pixels.permute(1, 2, 3, 0).numpy()


def _grid(size: Any, host: Any) -> tuple[int, int]:
    """Rows and columns of patches, which may overlap, of an input of that height and width."""
    if is_timm(host):
        return host.patch_embed.dynamic_feat_size(tuple(size))
    patch, stride = host.config.patch_size, host.stride
    return (size[0] - patch) // stride + 1, (size[1] - patch) // stride + 1
