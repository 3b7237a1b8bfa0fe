"""StableMamba: distillation-free scaling of large SSMs for images and videos (Suleman, Wasim, Naseer, Gall,
IJCV 2026, https://arxiv.org/abs/2409.11867)

Mamba layers with a Transformer layer after every few of them. The paper's claims: Mamba backbones stop
gaining from parameters unless a smaller model teaches them; interleaved attention cures that without a
teacher, and makes the model less sensitive to corrupted pixels.

There is no public code and there are no public weights, and only the paper's abstract was at hand here. From
it: Mamba and attention blocks interleaved, no distillation, images and videos. Everything else below is our
choice, and a setting where another reading is sensible:

=====================  ======================================  ===========================================
choice                 here                                    settings
=====================  ======================================  ===========================================
outer shell            VideoMamba's, so that both compare      all of `VideoMambaConfig`
ratio                  7 Mamba layers, then 1 Transformer      pattern "m:1", "pure" (no attention), "attn"
depth                  that of VideoMamba; every 8th layer     depth
                       is replaced, none is added
place in a unit        last                                    attention_place "first", "middle", "last"
attention layer        attention and MLP of ratio 4, heads     mlp_ratio (0 = attention alone), num_heads
                       64 wide
norm                   RMSNorm everywhere                      norm "layer"
attention over clips   all tokens of all frames                attention "window" (of `window` frames),
                                                               "divided" (time, then space)
directions             added, as in VideoMamba                 combine "mean"
step sizes             Mamba's initialisation                  dt_init "videomamba"
linear maps            truncated normal 0.02; the last map of  –
                       every residual branch divided by
                       √(number of branches)
pooling                class token                             –
=====================  ======================================  ===========================================

With pattern "pure" the model is VideoMamba, with "attn" and norm "layer" it is a ViT; both are tested against
numbers of the original codes. Weights of VideoMamba can be taken over into the Mamba layers.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from framecast.backbones import videomamba
from framecast.backbones.videomamba import VideoMamba, VideoMambaConfig
from framecast.backbones.vit_layouts import IMAGE_VIT, read_trunk
from framecast.nn.mamba import DtInit, MambaMixer
from framecast.nn.residual_stack import Norm, TransformerLayer, VideoAttention, make_norm
from framecast.nn.transformer import Gelu
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model

TRANSFORMER = r"layers\.\d+\.(norm1|attn|norm2|mlp|norm_time|attn_time)\..*"


@dataclass(frozen=True)
class StableMambaConfig(VideoMambaConfig):
    dt_init: DtInit = "mamba"
    pattern: str = "7:1"  # Mamba layers to one Transformer layer; "pure" = only Mamba, "attn" = no Mamba
    attention_place: Literal["first", "middle", "last"] = "last"  # of the Transformer layer among those
    num_heads: int | None = None  # None = width / 64
    mlp_ratio: float = 4.0  # 0 = no MLP after the attention
    qkv_bias: bool = True
    gelu: Gelu = "erf"
    norm: Norm = "rms"
    attention: VideoAttention = "joint"  # between the frames of a clip
    window: int = 8  # frames that see each other with attention "window"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"pure|attn|[1-9]\d*:1", self.pattern):
            raise ValueError(f'pattern is {self.pattern!r}; it must be "pure", "attn" or like "7:1"')
        if not self.window:
            raise ValueError("window is 0; it must hold one frame at least")

    @property
    def heads(self) -> int:
        return self.num_heads or max(self.width // 64, 1)

    def is_transformer(self, i: int) -> bool:
        """Whether layer i is a Transformer layer; what is left after the last whole unit is Mamba."""
        if self.pattern in ("pure", "attn"):
            return self.pattern == "attn"
        unit = int(self.pattern.removesuffix(":1")) + 1
        place = {"first": 0, "middle": unit // 2, "last": unit - 1}[self.attention_place]
        return i % unit == place and i - place + unit <= self.depth


class StableMamba(VideoMamba):
    """VideoMamba with Transformer layers in between; it can start from a VideoMamba, where those are new."""

    config: StableMambaConfig

    def make_norm(self) -> nn.Module:
        return make_norm(self.config.norm, self.config.width, self.config.norm_eps)

    def make_layer(self, i: int) -> nn.Module:
        c = self.config
        if not c.is_transformer(i):
            return self.make_mamba_layer(i)
        return TransformerLayer(
            c.width,
            c.heads,
            norm=c.norm,
            norm_eps=c.norm_eps,
            mlp_ratio=c.mlp_ratio,
            qkv_bias=c.qkv_bias,
            gelu=c.gelu,
            attention=c.attention,
            window=c.window,
            drop_path_before=self.drop_rate(i - 1),
            drop_path=self.drop_rate(i),
        )

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        ends = [m.out_proj for m in self.modules() if isinstance(m, MambaMixer)]
        for layer in self.layers:
            if isinstance(layer, TransformerLayer):
                ends += layer.branch_ends()
                if layer.attn_time is not None:  # silent at first: a clip model starts as its image model
                    nn.init.zeros_(layer.attn_time.proj.weight)
        for end in ends:
            nn.init.trunc_normal_(end.weight, std=0.02 / math.sqrt(len(ends)))


# Official layouts of the models that it contains --------------------------------------------------------


def _leave_out_layers(state: dict[str, Tensor], config: dict[str, Any]) -> list[str]:
    """Fit the tables; drop VideoMamba's layers where we have a Transformer layer, which stays a new one."""
    c = StableMambaConfig(**config)
    for key in list(state):
        mamba = key.startswith("layers.") and not re.fullmatch(TRANSFORMER, key)
        if mamba and c.is_transformer(int(key.split(".")[1])):
            del state[key]
    return videomamba.fit_tables(state, c)


def _read_vit_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    own = {
        "pattern": "attn",
        "norm": "layer",
        "norm_eps": 1e-6,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
    }
    return read_trunk(state) | own


OFFICIAL = (
    replace(
        videomamba.OFFICIAL[0],
        name="VideoMamba or StableMamba",
        model="stablemamba_tiny",
        resample=_leave_out_layers,
        fresh=TRANSFORMER,
    ),
    OfficialLayout(
        name="timm / DeiT ViT",
        model="stablemamba_tiny",
        detect=IMAGE_VIT,
        licence="as stated by the release (timm and DeiT weights: Apache-2.0)",
        keys={r"blocks\.(.*)": r"layers.\1", r"norm\.(.*)": r"norm_f.\1", r"(.*)": r"\1"},
        read_config=_read_vit_config,
        resample=lambda state, config: videomamba.fit_tables(state, StableMambaConfig(**config)),
        head=videomamba.HEAD,
    ),
)


# Named sizes ----------------------------------------------------------------------------------------


def _stablemamba(config: StableMambaConfig, overrides: dict[str, Any]) -> StableMamba:
    checked = checked_overrides(StableMambaConfig, overrides, "a StableMamba")
    return StableMamba(replace(config, **checked))


@register_model(
    tags=["backbone", "image", "video", "mamba", "recognition"],
    paper="https://arxiv.org/abs/2409.11867",
    params=7_635_304,
    system="stablemamba",
)
def stablemamba_tiny(**overrides: Any) -> StableMamba:
    """StableMamba-Ti: 3 Transformer layers among 21 Mamba layers; images, or clips with `num_frames`."""
    return _stablemamba(StableMambaConfig(width=192, depth=24), overrides)


@register_model(
    tags=["backbone", "image", "video", "mamba", "recognition"],
    paper="https://arxiv.org/abs/2409.11867",
    params=27_987_688,
)
def stablemamba_small(**overrides: Any) -> StableMamba:
    """StableMamba-S: 3 Transformer layers among 21 Mamba layers; images, or clips with `num_frames`."""
    return _stablemamba(StableMambaConfig(width=384, depth=24), overrides)


@register_model(
    tags=["backbone", "image", "video", "mamba", "recognition"],
    paper="https://arxiv.org/abs/2409.11867",
    params=81_032_680,
)
def stablemamba_middle(**overrides: Any) -> StableMamba:
    """StableMamba-M: 4 Transformer layers among 28 Mamba layers; images, or clips with `num_frames`."""
    return _stablemamba(StableMambaConfig(width=576, depth=32), overrides)


@register_model(
    tags=["backbone", "image", "video", "mamba", "recognition"],
    paper="https://arxiv.org/abs/2409.11867",
    params=106_846_696,
)
def stablemamba_base(**overrides: Any) -> StableMamba:
    """StableMamba-B: 3 Transformer layers among 21 Mamba layers; images, or clips with `num_frames`."""
    return _stablemamba(StableMambaConfig(width=768, depth=24), overrides)
