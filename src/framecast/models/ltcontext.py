"""LTContext: how much temporal long-term context is needed for action segmentation?
(Bahrami, Francesca, Gall, ICCV 2023, https://arxiv.org/abs/2308.11358)

Every block looks at its neighbourhood three times: a dilated convolution, attention inside windows, and
attention over every G-th frame of the whole video. A first stage reads the features; the later, narrower
stages read the class probabilities of the stage before and take the *values* of their attentions from its
last features.

Differs from the release: queries and keys are projected once per frame, not once per overlapping window;
layers are channels-last inside. What a padded frame contains does not reach a valid one (`strict_padding`;
the release lets the bias of the stage's input projection leak by one convolution, and averages padded frames
in its instance norm). `norm="none"` is what the released weights were trained with: the release's flag
`USE_INSTANCE_NORM: True` builds no norm, `False` builds one.
Shapes: B batch, T frames, C input features, K classes, D width of a stage, S stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.nn.sequence import Pointwise, best_alone, masked, project_channels, stacked, video_by_video
from framecast.nn.standardise import Standardise
from framecast.nn.temporal_attention import strided_attention, windowed_attention
from framecast.nn.temporal_conv import DilatedConv
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class LTContextConfig:
    num_classes: int = 48
    feature_dim: int = 2048
    num_stages: int = 4
    num_layers: int = 9  # blocks per stage
    width: int = 64  # of the first stage
    reduction: float = 2.0  # the later stages are width / reduction wide
    num_heads: int = 1
    window: int = 64  # frames per window, even
    stride: int = 8  # long-term attention sees every stride-th frame: 8 on Breakfast, 64 on Assembly101
    dilation_base: int = 2  # block i is dilated by dilation_base ** i
    channel_dropout: float = 0.3
    dropout: float = 0.2
    attention_dropout: float = 0.2
    norm: Literal["none", "instance"] = "none"
    strict_padding: bool = True  # False = padded frames behave as in the release
    standardise: bool = False  # features by the statistics of the training set, kept in the model

    def __post_init__(self) -> None:
        if self.window % 2 or self.window <= 0:
            raise ValueError(
                f"window must be even and positive, since half reaches to either side; got {self.window}"
            )
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, got {self.stride}")
        for width in (self.width, self.later_width):
            if width % (2 * self.num_heads):
                multiple = 2 * self.num_heads
                raise ValueError(f"stage width {width} must be a multiple of 2 * num_heads = {multiple}")

    @property
    def later_width(self) -> int:
        return int(self.width / self.reduction + 1e-6)  # floor; 16 / (16 / 5) must stay 5


class InstanceNorm(nn.Module):
    """Each channel of each video to mean 0 and variance 1 over time; no parameters."""

    def __init__(self, *, strict_padding: bool) -> None:
        super().__init__()
        self.strict_padding = strict_padding

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:  # (B, T, D), (B, T) -> (B, T, D)
        if mask is None or not self.strict_padding:
            # Without parameters this is instance_norm, which refuses a single frame.
            return F.layer_norm(x.transpose(1, 2), x.shape[1:2], eps=1e-5).transpose(1, 2)
        weight = mask[..., None] / mask.sum(1)[:, None, None]
        mean = (x * weight).sum(1, keepdim=True)
        variance = ((x - mean).square() * weight).sum(1, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-5)


class ContextAttention(nn.Module):
    """Windowed or long-term attention of half the stage's width, then GELU and a projection back."""

    def __init__(
        self, width: int, num_heads: int, dropout: float, *, window: int = 0, stride: int = 0
    ) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.window, self.stride = window, stride
        self.qk = Pointwise(width, width)  # query and key, each width / 2
        self.v = Pointwise(width, width // 2)
        self.proj = Pointwise(width // 2, width, dropout=0.1)  # fixed in the release

    def forward(self, x: Tensor, previous: Tensor | None, residual: Tensor, mask: Tensor | None) -> Tensor:
        """Queries and keys from x, values from the stage before where there is one; all (B, T, D)."""
        q, k = self.qk(x).chunk(2, dim=-1)
        v = self.v(x if previous is None else previous)
        pattern = {
            "num_heads": self.num_heads,
            "mask": mask,
            "dropout": self.dropout if self.training else 0.0,
            "activation": "gelu",
        }
        if self.window:
            context = windowed_attention(q, k, v, window=self.window, **pattern)
        else:
            context = strided_attention(q, k, v, stride=self.stride, **pattern)
        return self.proj(context, residual)


class LTCBlock(nn.Module):
    """Dilated convolution, windowed attention, long-term attention, projection."""

    def __init__(self, c: LTContextConfig, width: int, dilation: int) -> None:
        super().__init__()
        self.conv = DilatedConv(width, dilation, activation="gelu")
        self.norm = InstanceNorm(strict_padding=c.strict_padding) if c.norm == "instance" else None
        self.window_attn = ContextAttention(width, c.num_heads, c.attention_dropout, window=c.window)
        self.long_attn = ContextAttention(width, c.num_heads, c.attention_dropout, stride=c.stride)
        self.proj = Pointwise(width, width, dropout=c.dropout)

    def forward(self, x: Tensor, previous: Tensor | None, mask: Tensor | None) -> Tensor:  # (B, T, D)
        u = masked(self.conv(x), mask)
        for attention in (self.window_attn, self.long_attn):
            source = u if self.norm is None else self.norm(u, mask)
            u = masked(attention(source, previous, u, mask), mask)
        return masked(self.proj(u, x), mask)


class Stage(nn.Module):
    """A stack of blocks with growing dilation between an input and an output projection."""

    def __init__(self, c: LTContextConfig, channels_in: int, width: int) -> None:
        super().__init__()
        self.strict_padding = c.strict_padding
        self.channel_drop = nn.Dropout1d(c.channel_dropout)
        self.proj_in = nn.Linear(channels_in, width)
        self.blocks = nn.ModuleList(LTCBlock(c, width, c.dilation_base**i) for i in range(c.num_layers))
        self.proj_out = Pointwise(width, c.num_classes)

    def forward(self, x: Tensor, previous: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, C, T), features of the stage before (B, T, D) -> logits (B, K, T), features (B, T, D)."""
        u = project_channels(self.channel_drop(x), self.proj_in)
        if self.strict_padding:
            u = masked(u, mask)
        for block in self.blocks:
            u = block(u, previous, mask)
        logits = masked(self.proj_out(u), mask)
        return logits.transpose(1, 2).contiguous(), u


class LTContext(nn.Module):
    """Features (B, C, T) to the logits of all stages (S, B, K, T); the last stage is the answer."""

    def __init__(self, config: LTContextConfig) -> None:
        super().__init__()
        self.config = c = config
        self.standardise = Standardise(c.feature_dim) if c.standardise else None
        self.stage1 = Stage(c, c.feature_dim, c.width)
        self.reduce = Pointwise(c.width, c.later_width)
        self.stages = nn.ModuleList(Stage(c, c.num_classes, c.later_width) for _ in range(c.num_stages - 1))

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: (B, T), True = valid; leave it out when every frame is valid."""
        if mask is not None and bool(mask.all()):
            mask = None
        if mask is not None and self.config.strict_padding and best_alone(mask):
            return video_by_video(self.forward, features, mask)
        if self.standardise is not None:
            features = self.standardise(features)
        if mask is not None and self.config.strict_padding:
            features = features * mask[:, None]
        return stacked(self.refined(features, mask), self.config.num_stages)

    def refined(self, features: Tensor, mask: Tensor | None) -> Iterator[Tensor]:
        """Logits (B, K, T), stage by stage."""
        logits, last = self.stage1(features, None, mask)
        yield logits
        last = self.reduce(last)
        for stage in self.stages:
            probabilities = logits.softmax(1)
            if mask is not None:
                probabilities = probabilities * mask[:, None]
            logits, last = stage(probabilities, masked(last, mask), mask)
            yield logits


# Official layout ------------------------------------------------------------------------------------

STAGE = r"(stage1|stages\.\d+)"
BLOCK = STAGE + r"\.layers\.(\d+)"
KEYS = {
    r"dim_reduction\.(weight|bias)": r"reduce.\1",
    STAGE + r"\.input_proj\.(.*)": r"\1.proj_in.\2",
    STAGE + r"\.out_proj\.(.*)": r"\1.proj_out.\2",
    BLOCK + r"\.dilated_conv\.dilated_conv\.(.*)": r"\1.blocks.\2.conv.\3",
    BLOCK + r"\.out_linear\.(.*)": r"\1.blocks.\2.proj.\3",
    BLOCK + r"\.windowed_attn\.attn\.proj_(qk|v)\.(.*)": r"\1.blocks.\2.window_attn.\3.\4",
    BLOCK + r"\.windowed_attn\.attn\.proj\.1\.(.*)": r"\1.blocks.\2.window_attn.proj.\3",
    BLOCK + r"\.ltc_attn\.attn\.proj_(qk|v)\.(.*)": r"\1.blocks.\2.long_attn.\3.\4",
    BLOCK + r"\.ltc_attn\.attn\.proj\.1\.(.*)": r"\1.blocks.\2.long_attn.proj.\3",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """1x1 convolutions become linear maps; query and key projections become one."""
    out = {k: t.squeeze(-1) if t.ndim == 3 and t.shape[-1] == 1 else t for k, t in state.items()}
    for key in [k for k in out if ".proj_q." in k]:
        parts = [out.pop(key), out.pop(key.replace(".proj_q.", ".proj_k."))]
        out[key.replace(".proj_q.", ".proj_qk.")] = torch.cat(parts)
    return out


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    """Sizes from shapes; window, stride, heads and norm from the YAML that the release stores beside them."""
    width, feature_dim = state["stage1.input_proj.weight"].shape
    release = settings.get("MODEL", {}) if isinstance(settings, dict) else {}
    names = {"WINDOWED_ATTN_W": "window", "LONG_TERM_ATTN_G": "stride", "NUM_ATTN_HEADS": "num_heads"}
    known: dict[str, Any] = {
        ours: int(release[theirs]) for theirs, ours in names.items() if theirs in release
    }
    if "USE_INSTANCE_NORM" in release:  # the flag is inverted in the release
        known["norm"] = "none" if release["USE_INSTANCE_NORM"] else "instance"
    return known | {
        "num_classes": state["stage1.out_proj.weight"].shape[0],
        "feature_dim": feature_dim,
        "num_stages": 1 + len({k.split(".")[1] for k in state if k.startswith("stages.")}),
        "num_layers": len({k.split(".")[2] for k in state if k.startswith("stage1.layers.")}),
        "width": width,
        "reduction": width / state["dim_reduction.weight"].shape[0],
    }


OFFICIAL = (
    OfficialLayout(
        name="LTContext release",
        model="ltcontext",
        detect=r"stage1\.layers\.0\.ltc_attn\.attn\.proj_q\.weight",
        licence="CC BY-NC 4.0 (LTContext release: non-commercial use only)",
        keys=KEYS,
        read_config=_read_config,
        prepare=_prepare,
    ),
)


# Named sizes ----------------------------------------------------------------------------------------


@register_model(
    tags=["segmentation"], paper="https://arxiv.org/abs/2308.11358", params=671_968, system="ltcontext"
)
def ltcontext(**overrides: Any) -> LTContext:
    """LTContext as published for Breakfast: 4 stages of 9 blocks, windows of 64 frames, every 8th frame."""
    return LTContext(replace(LTContextConfig(), **checked_overrides(LTContextConfig, overrides, "ltcontext")))
