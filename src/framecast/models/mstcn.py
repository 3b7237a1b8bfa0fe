"""MS-TCN: multi-stage temporal convolutional network (Farha, Gall, CVPR 2019, https://arxiv.org/abs/1903.01945).

A stage is a stack of dilated convolutions with residuals; each later stage refines the class probabilities of
the one before. The baseline of temporal action segmentation, in the layout of the LTContext release.
Shapes: B batch, T frames, C input features, K classes, D width, S stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from framecast.nn.sequence import Pointwise, best_alone, masked, project_channels, stacked, video_by_video
from framecast.nn.standardise import Standardise
from framecast.nn.temporal_conv import DilatedConv
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class MSTCNConfig:
    num_classes: int = 48
    feature_dim: int = 2048
    num_stages: int = 4
    num_layers: int = 10  # per stage; layer i is dilated by 2 ** i
    width: int = 64
    dropout: float = 0.5
    standardise: bool = False  # features by the statistics of the training set, kept in the model
    strict_padding: bool = (
        True  # False = the input projection's bias reaches across padding, as in the release
    )


class DilatedResidual(nn.Module):
    """x + W ReLU(conv(x)), masked."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv = DilatedConv(width, dilation, activation="relu")
        self.proj = Pointwise(width, width, dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:  # (B, T, D) -> (B, T, D)
        return masked(self.proj(self.conv(x), x), mask)


class Stage(nn.Module):
    """Dilated residual layers between an input and an output projection."""

    def __init__(self, c: MSTCNConfig, channels_in: int) -> None:
        super().__init__()
        self.strict_padding = c.strict_padding
        self.proj_in = nn.Linear(channels_in, c.width)
        self.layers = nn.ModuleList(DilatedResidual(c.width, 2**i, c.dropout) for i in range(c.num_layers))
        self.proj_out = Pointwise(c.width, c.num_classes)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:  # (B, C, T) -> (B, K, T)
        u = project_channels(x, self.proj_in)
        if self.strict_padding:
            u = masked(u, mask)
        for layer in self.layers:
            u = layer(u, mask)
        return masked(self.proj_out(u), mask).transpose(1, 2).contiguous()


class MSTCN(nn.Module):
    """Features (B, C, T) to the logits of all stages (S, B, K, T); the last stage is the answer."""

    def __init__(self, config: MSTCNConfig) -> None:
        super().__init__()
        self.config = c = config
        self.standardise = Standardise(c.feature_dim) if c.standardise else None
        self.stage1 = Stage(c, c.feature_dim)
        self.stages = nn.ModuleList(Stage(c, c.num_classes) for _ in range(c.num_stages - 1))

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: (B, T), True = valid; leave it out when every frame is valid."""
        if mask is not None and bool(mask.all()):
            mask = None
        if mask is not None and self.config.strict_padding and best_alone(mask):
            return video_by_video(self.forward, features, mask)
        if self.standardise is not None:
            features = self.standardise(features)
        return stacked(self.refined(features, mask), self.config.num_stages)

    def refined(self, features: Tensor, mask: Tensor | None) -> Iterator[Tensor]:
        """Logits (B, K, T), stage by stage."""
        logits = self.stage1(features, mask)
        yield logits
        for stage in self.stages:
            probabilities = logits.softmax(1)
            if mask is not None:
                probabilities = probabilities * mask[:, None]
            logits = stage(probabilities, mask)
            yield logits


# Official layout ------------------------------------------------------------------------------------

KEYS = {
    r"(stage1|stages\.\d+)\.conv_1x1\.(.*)": r"\1.proj_in.\2",
    r"(stage1|stages\.\d+)\.conv_out\.(.*)": r"\1.proj_out.\2",
    r"(stage1|stages\.\d+)\.layers\.(\d+)\.conv_dilated\.(.*)": r"\1.layers.\2.conv.\3",
    r"(stage1|stages\.\d+)\.layers\.(\d+)\.conv_1x1\.(.*)": r"\1.layers.\2.proj.\3",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """1x1 convolutions become linear maps."""
    return {k: t.squeeze(-1) if t.ndim == 3 and t.shape[-1] == 1 else t for k, t in state.items()}


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    width, feature_dim = state["stage1.conv_1x1.weight"].shape
    return {
        "num_classes": state["stage1.conv_out.weight"].shape[0],
        "feature_dim": feature_dim,
        "num_stages": 1 + len({k.split(".")[1] for k in state if k.startswith("stages.")}),
        "num_layers": len({k.split(".")[2] for k in state if k.startswith("stage1.layers.")}),
        "width": width,
    }


OFFICIAL = (
    OfficialLayout(
        name="MS-TCN of the LTContext release",
        model="mstcn",
        detect=r"stage1\.layers\.0\.conv_dilated\.weight",
        licence="as stated by the release (LTContext: CC BY-NC 4.0; MS-TCN: MIT)",
        keys=KEYS,
        read_config=_read_config,
        prepare=_prepare,
    ),
)


# Named sizes ----------------------------------------------------------------------------------------


@register_model(
    tags=["segmentation"], paper="https://arxiv.org/abs/1903.01945", params=813_504, system="mstcn"
)
def mstcn(**overrides: Any) -> MSTCN:
    """MS-TCN as published: 4 stages of 10 layers, 64 wide."""
    return MSTCN(replace(MSTCNConfig(), **checked_overrides(MSTCNConfig, overrides, "mstcn")))
