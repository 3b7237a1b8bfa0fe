"""MANTA: diffusion Mamba for efficient and effective stochastic long-term dense anticipation
(Zatsarynna, Bahrami, Abu Farha, Francesca, Gall, CVPR 2025, https://arxiv.org/abs/2501.08837).

The task, the diffusion and the sampling of GTDA with another denoiser: one stage of bidirectional Mamba
layers in place of five stages of gated convolutions. Every frame reaches every other at linear cost, so what
was observed informs the whole future from the first layer on.

As in the release: dropout is never active while the model trains (`dropout_active`, see GTDA).
Our choices, where the authors' modified Mamba is not public: both directions are added before their shared
output projection; its dropout (`inner_dropout`) acts on that sum; with `mask_inside`, padded frames leave the
states of both walks as they are, so that a padded batch gives what its videos give alone. `mask_inside=False`
is the plain Mamba, in which the bias of its convolution runs from the padding into the video.
Shapes: B batch, N samples, T frames, C classes, D0 observed channels, F width, E inner width of a mixer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from framecast.models.label_diffusion import (
    IGNORED,
    InputProjection,
    LabelDenoiser,
    Prepared,
    Shown,
    averaged_weights,
    read_schedule,
    share_embedding,
    shown_channels,
    shown_labels,
    switch_off_dropout,
)
from framecast.models.observed_past import Beyond, beyond_past, observed_channels
from framecast.nn.diffusion import Diffusion, Modulation, Objective, Schedule, TimeEmbedding
from framecast.nn.mamba import MambaMixer
from framecast.nn.sequence import Pointwise, masked
from framecast.nn.transformer import DropPath, LayerScale
from framecast.official import OfficialLayout
from framecast.ops.shifted_linear import shifted_linear
from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class MANTAConfig:
    num_classes: int = 48
    feature_dim: int = 2048  # of what is observed; num_classes where labels are
    beyond: Beyond = "zeros"  # what is told of the steps beyond the past; "held" = what was last, and clocks
    noisy: Shown = "plain"  # how x_t is shown; "evidence" = what each frame says of its class by itself
    num_layers: int = 15
    width: int = 64
    expand: int = 2
    d_state: int = 16
    d_conv: int = 3
    mask_inside: bool = True  # False = padded frames change valid ones, as in the plain Mamba
    layer_scale: float = 1e-4  # initial weight of the Mamba branch
    channel_dropout: float = 0.4  # 0.5 on Assembly101, like the two below
    drop_path: float = 0.4
    dropout: float = 0.4
    inner_dropout: float = 0.2
    dropout_active: bool = False  # while training
    diffusion_steps: int = 1000
    schedule: Schedule = "cosine"
    objective: Objective = "x0"
    self_condition: bool = True


class MANTALayer(nn.Module):
    """x + the Mamba branch, mixed, scaled and shifted by the time."""

    def __init__(self, c: MANTAConfig) -> None:
        super().__init__()
        self.mask_inside = c.mask_inside
        self.norm = nn.LayerNorm(c.width)
        self.mixer = MambaMixer(c.width, expand=c.expand, d_state=c.d_state, d_conv=c.d_conv)
        self.inner_drop = nn.Dropout(c.inner_dropout)
        self.scale = LayerScale(c.width, c.layer_scale)
        self.drop_path = DropPath(c.drop_path)
        self.proj = nn.Linear(c.width, c.width)
        self.drop = nn.Dropout(c.dropout)
        self.modulation = Modulation(c.width)

    def forward(self, x: Tensor, embedded: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, T, F), embedded time (B, 4 F), mask (B, T) -> (B, T, F)."""
        u = self.inner_drop(self.mixer.mixed(masked(self.norm(x), mask), mask if self.mask_inside else None))
        u = masked(self.drop_path(self.scale(self.mixer.out_proj(u))), mask)
        u = self.drop(masked(self.proj(u), mask))
        factor, shift = self.modulation(embedded)
        return masked(x + u * factor[:, None] + shift[:, None], mask)


class MANTA(LabelDenoiser):
    """x_t, time and observation to the scores of its only stage (1, B, C, T): x̂_0."""

    config: MANTAConfig

    def __init__(self, config: MANTAConfig) -> None:
        super().__init__()
        self.config = c = config
        self.diffusion = Diffusion(c.schedule, c.diffusion_steps, c.objective, c.self_condition)
        self.padding_is_inert = c.mask_inside
        self.channel_drop = nn.Dropout1d(c.channel_dropout)
        told = observed_channels(c.feature_dim, c.beyond)
        noisy = shown_channels(c.num_classes, c.noisy)
        self.proj_in = InputProjection(c.width, before=noisy, observed=told, after=c.num_classes)
        self.time = TimeEmbedding(c.width)
        self.layers = nn.ModuleList(MANTALayer(c) for _ in range(c.num_layers))
        self.proj_out = Pointwise(c.width, c.num_classes)
        if c.noisy == "evidence":
            share_embedding(self.proj_in, self.proj_out)

    def train(self, mode: bool = True) -> MANTA:
        super().train(mode)
        if not self.config.dropout_active:
            switch_off_dropout(self)
        return self

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        observed: Tensor,
        self_cond: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """noisy, self_cond: (B, C, T), None = zeros; time: (B,); observed: (B, D0, T), zero beyond the past;
        mask: (B, T), None = all valid."""
        self_cond = torch.zeros_like(noisy) if self_cond is None else self_cond
        shown = shown_labels(self.channel_drop(noisy).mT, time, mask, self.diffusion, self.config.noisy)
        labels = torch.cat([shown, self_cond.mT], dim=-1)
        observed = beyond_past(observed, mask, self.config.beyond)
        x = masked(self.proj_in.context(observed) + self.proj_in.of_labels(labels), mask)
        embedded = self.time(time)
        for layer in self.layers:
            x = layer(x, embedded, mask)
        return masked(self.proj_out(x), mask).mT[None]

    def prepared(self, observed: Tensor, mask: Tensor | None, times: Sequence[int]) -> Prepared:
        observed = beyond_past(observed, mask, self.config.beyond)
        return PreparedMANTA(self, observed, mask, torch.tensor(times, device=observed.device))


class PreparedMANTA:
    """MANTA for given observation and times: the context and tables of factors and shifts are made."""

    def __init__(self, model: MANTA, observed: Tensor, mask: Tensor | None, times: Tensor) -> None:
        self.proj_out, self.mask, self.videos = model.proj_out, mask, len(observed)
        self.times, self.diffusion, self.noisy = times, model.diffusion, model.config.noisy
        self.context = self.repeated = model.proj_in.context(observed)
        self.label_weight = model.proj_in.label_weight
        embedded = model.time(times)
        layers: list[Any] = [*model.layers]
        self.layers = [PreparedLayer(layer, embedded) for layer in layers]

    def __call__(self, step: int, noisy: Tensor, self_cond: Tensor | None) -> Tensor:
        samples = len(noisy) // self.videos
        mask = None if self.mask is None else self.mask.repeat(samples, 1)
        if len(self.repeated) != len(noisy):
            self.repeated = self.context.repeat(samples, 1, 1)
        shown = shown_labels(noisy, self.times[step : step + 1], mask, self.diffusion, self.noisy)
        labels = torch.cat([shown, torch.zeros_like(noisy) if self_cond is None else self_cond], dim=-1)
        x = masked(shifted_linear(labels, self.label_weight, None, add=self.repeated), mask)
        for layer in self.layers:
            x = layer(step, x, mask)
        return masked(self.proj_out(x), mask)


class PreparedLayer:
    """A layer of MANTA for given times: all linear maps behind the scan are one."""

    def __init__(self, layer: MANTALayer, embedded: Tensor) -> None:
        self.layer = layer
        self.factors, self.shifts = layer.modulation(embedded)  # (steps, F)
        self.mix = layer.proj.weight * layer.scale.gamma @ layer.mixer.out_proj.weight  # (F, E)

    def __call__(self, step: int, x: Tensor, mask: Tensor | None) -> Tensor:  # (N B, T, F) -> (N B, T, F)
        layer, factor = self.layer, self.factors[step]
        u = masked(layer.norm(x), mask)
        y = layer.mixer.mixed(u, mask if layer.mask_inside else None)
        weight, bias = self.mix * factor[:, None], layer.proj.bias * factor + self.shifts[step]
        return masked(shifted_linear(y, weight, bias, add=x), mask)


# Official layout --------------------------------------------------------------------------------------

STAGE = r"ms_tcn\.stage1"
LAYER = STAGE + r"\.layers\.(\d+)"
KEYS = {
    STAGE + r"\.conv_1x1\.(.*)": r"proj_in.\1",
    STAGE + r"\.conv_out\.(.*)": r"proj_out.\1",
    STAGE + r"\.time_mlp\.1\.(.*)": r"time.fc1.\1",
    STAGE + r"\.time_mlp\.3\.(.*)": r"time.fc2.\1",
    LAYER + r"\.mamba\.(.*)": r"layers.\1.mixer.\2",
    LAYER + r"\.drop_path\.scale": r"layers.\1.scale.gamma",
    LAYER + r"\.norm\.(.*)": r"layers.\1.norm.\2",
    LAYER + r"\.conv_1x1\.(.*)": r"layers.\1.proj.\2",
    LAYER + r"\.time_mlp\.1\.(.*)": r"layers.\1.modulation.proj.\2",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The averaged weights of a container; 1x1 convolutions become linear maps, the layer scale a vector."""
    out = averaged_weights(state)
    for key, tensor in out.items():
        if key.startswith("ms_tcn.") and key.endswith((".conv_1x1.weight", ".conv_out.weight")):
            out[key] = tensor.squeeze(-1)
        elif key.startswith("ms_tcn.") and key.endswith(".drop_path.scale"):
            out[key] = tensor.flatten()
    return out


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    width, channels = state["ms_tcn.stage1.conv_1x1.weight"].shape
    classes = state["ms_tcn.stage1.conv_out.weight"].shape[0]
    inner, d_state = state["ms_tcn.stage1.layers.0.mamba.A_log"].shape
    return read_schedule(state) | {
        "num_classes": classes,
        "feature_dim": channels - 2 * classes,
        "num_layers": len({k.split(".")[3] for k in state if k.startswith("ms_tcn.stage1.layers.")}),
        "width": width,
        "expand": inner // width,
        "d_state": d_state,
        "d_conv": state["ms_tcn.stage1.layers.0.mamba.conv1d.weight"].shape[2],
    }


OFFICIAL = (
    OfficialLayout(
        name="MANTA training code, plain bidirectional Mamba",
        model="manta",
        detect=r"(ema_model\.model\.)?ms_tcn\.stage1\.layers\.0\.mamba\.A_log",
        licence="as stated by the MANTA release; no weights of it were public when this was written",
        keys=KEYS,
        read_config=_read_config,
        ignored=IGNORED,
        prepare=_prepare,
    ),
)


# Named sizes ------------------------------------------------------------------------------------------


@register_model(
    tags=["anticipation", "diffusion"],
    paper="https://arxiv.org/abs/2501.08837",
    params=1_388_272,
    system="manta",
)
def manta(**overrides: Any) -> MANTA:
    """MANTA as published for Breakfast: 15 bidirectional Mamba layers, 64 wide, 1000 diffusion steps."""
    return MANTA(replace(MANTAConfig(), **checked_overrides(MANTAConfig, overrides, "manta")))
