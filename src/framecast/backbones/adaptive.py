"""Adaptive Token Sampling (Fayyaz et al., ECCV 2022, https://arxiv.org/abs/2111.15667): only as many tokens
as an input needs.

    adaptive = fc.adaptive(fc.load("runs/flowers/model"), budget=0.7)

A ViT that is trained already leaves tokens out, block after block, where its class token does not use them;
nothing is added to it and nothing has to be trained. Images with little to see become cheap.

As the release has it: n - 1 sample points at every stage, for n tokens of the whole input, and a curve
between the least significant patch and 1, so that a stage drops one patch at least. Differs from the release:
a sample's scores do not depend on the others in its batch (semantics "per-sample"), budgets below the number
of tokens work, gradients pass where tokens are removed, and of tokens that leave only keys and values are
computed. Clips: models of joint space-time attention sample all patches as one set; TimeSformer and XViT
sample every frame by its own class row. The release has no video models; that is our reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from framecast.backbones.adaptive_model import (
    AdaptiveModel,
    Budget,
    SamplingConfig,
    Scope,
    Semantics,
    config_class,
    split_config,
)
from framecast.backbones.adaptive_vit import AdaptiveVit, is_timm
from framecast.backbones.timesformer import TimeSformer
from framecast.backbones.vit import VisionTransformer, VitConfig
from framecast.backbones.vit_joint import JointViT
from framecast.backbones.vit_layouts import (
    HUGGING_FACE,
    IMAGE_VIT,
    JAX,
    read_vit_config,
    resample_pos_embed,
)
from framecast.nn.token_sampling import Grid, Selection
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model

__all__ = ["OFFICIAL", "AdaptiveModel", "SamplingConfig", "adaptive"]


def adaptive(
    model: nn.Module,
    blocks: Sequence[int] | None = None,
    budget: Budget | Sequence[float] | float | None = None,
    *,
    semantics: Semantics = "per-sample",
    grid: Grid = "release",
    scope: Scope = "frame",
    select: Selection = "sampled",
) -> AdaptiveModel:
    """A model with the weights of `model`, which it shares, that leaves out tokens that matter little.

    model: a ViT, joint video ViT, TimeSformer, XViT or StableMamba of this package, or timm's
    VisionTransformer. Settings: see `SamplingConfig`. ValueError where a block cannot sample.
    """
    host = model.host if isinstance(model, AdaptiveModel) else model
    config = SamplingConfig(
        blocks=None if blocks is None else tuple(blocks),
        budget=tuple(budget) if isinstance(budget, Sequence) else budget,
        semantics=semantics,
        grid=grid,
        scope=scope,
        select=select,
    )
    made = adaptive_class(host)(host, config)
    made.take_notes(model)
    return made


def adaptive_class(model: nn.Module) -> type[AdaptiveModel]:
    """Which of the adaptive models a host needs."""
    from framecast.backbones.adaptive_stablemamba import AdaptiveStableMamba
    from framecast.backbones.adaptive_video import AdaptiveTimeSformer, AdaptiveXViT
    from framecast.backbones.stablemamba import StableMamba
    from framecast.backbones.xvit import XViT

    if isinstance(model, TimeSformer) and model.config.attention == "divided":
        return AdaptiveTimeSformer
    if isinstance(model, (VisionTransformer, JointViT, TimeSformer)) or is_timm(model):
        return AdaptiveVit
    if isinstance(model, XViT):
        return AdaptiveXViT
    if isinstance(model, StableMamba):
        return AdaptiveStableMamba
    raise ValueError(
        f"tokens of {type(model).__name__} cannot be sampled; pass a ViT, joint video ViT, TimeSformer, XViT "
        "or StableMamba of this package, or timm's VisionTransformer"
    )


# Official layout --------------------------------------------------------------------------------------


def _without_wrapper(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("base_model."): tensor for key, tensor in state.items()}


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    """As of a ViT; the blocks that sample are those that hold scratch memory for it."""
    sampling = sorted(int(key.split(".")[1]) for key in state if key.endswith("attn.out_zero_mask"))
    return read_vit_config(state, settings) | ({"blocks": tuple(sampling)} if sampling else {})


OFFICIAL = (
    OfficialLayout(
        name="ATS, or DeiT",
        model="deit_tiny_ats",
        detect=r"(base_model\.)?" + IMAGE_VIT,
        licence="as stated by the release (DeiT weights: Apache-2.0)",
        keys={r"(.*)": r"\1"},
        ignored={r"blocks\.\d+\.attn\.out_zero_mask": "constant zeros, scratch memory of the release"},
        read_config=_read_config,
        prepare=_without_wrapper,
        resample=resample_pos_embed,
        head=r"head(_dist)?\..*",
    ),
    replace(HUGGING_FACE, model="deit_tiny_ats"),
    replace(JAX, model="deit_tiny_ats"),
)


# Named sizes ------------------------------------------------------------------------------------------


def _ats(config: VitConfig, overrides: dict[str, Any]) -> AdaptiveModel:
    joined = config_class(VitConfig)
    checked = checked_overrides(joined, overrides, "an adaptive ViT")
    stated = {name: getattr(config, name) for name in VitConfig.__dataclass_fields__}
    vit, sampling = split_config(joined(**stated | checked), VitConfig)
    return AdaptiveVit(VisionTransformer(vit), sampling)


@register_model(
    tags=["image", "vit", "ats", "recognition"],
    paper="https://arxiv.org/abs/2111.15667",
    params=5_717_416,
    system="ats",
)
def deit_tiny_ats(**overrides: Any) -> AdaptiveModel:
    """DeiT-Ti/16 that samples its tokens in the last three quarters of its blocks: 5.7 M parameters."""
    return _ats(VitConfig(width=192, depth=12, num_heads=3), overrides)


@register_model(
    tags=["image", "vit", "ats", "recognition"],
    paper="https://arxiv.org/abs/2111.15667",
    params=22_050_664,
)
def deit_small_ats(**overrides: Any) -> AdaptiveModel:
    """DeiT-S/16 that samples its tokens in the last three quarters of its blocks: 22 M parameters."""
    return _ats(VitConfig(width=384, depth=12, num_heads=6), overrides)


@register_model(
    tags=["image", "vit", "ats", "recognition"],
    paper="https://arxiv.org/abs/2111.15667",
    params=86_567_656,
)
def deit_base_ats(**overrides: Any) -> AdaptiveModel:
    """DeiT-B/16 that samples its tokens in the last three quarters of its blocks: 87 M parameters."""
    return _ats(VitConfig(width=768, depth=12, num_heads=12), overrides)
