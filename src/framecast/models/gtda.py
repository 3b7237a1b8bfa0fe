"""GTDA: gated temporal diffusion for stochastic long-term dense anticipation
(Zatsarynna, Bahrami, Abu Farha, Francesca, Gall, ECCV 2024, https://arxiv.org/abs/2407.11954).

Classes of past and future frames are denoised together; what was observed is zero beyond the past, and gates
on the dilated convolutions let observed and unobserved frames be treated differently. A stage is a stack of
such layers; each later stage refines the class probabilities of the one before, the whole input beside them.

As in the release: masks of later stages come one stage late (`shifted_stage_masks`); dropout is never active
while the stochastic model trains, since wrapping it in the moving average puts it into evaluation mode
(`dropout_active`); channels of the noisy labels are dropped, not of the features.
Differs from the release: value and gate are one convolution; the observation is projected once, not copied
beside the labels of every stage, step and sample.
Shapes: B batch, T frames, C classes, D0 observed channels, F width, S stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
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
from framecast.nn.sequence import Pointwise, masked
from framecast.official import OfficialLayout
from framecast.ops.gated_layer import gated_layer
from framecast.ops.shifted_linear import shifted_linear
from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class StageConfig:
    """What both models have in common."""

    num_classes: int = 48
    feature_dim: int = 2048  # of what is observed; num_classes where labels are
    beyond: Beyond = "zeros"  # what is told of the steps beyond the past; "held" = what was last, and clocks
    num_stages: int = 5
    num_layers: int = 9  # per stage; layer i is dilated by 2 ** i
    width: int = 64
    kernel_size: int = 3
    gated: bool = True  # False = the plain residual layer that the paper compares with
    use_features: bool = True  # later stages see the whole input, not only probabilities
    channel_dropout: float = 0.4  # 0.3 in the stochastic model of Assembly101
    dropout: float = 0.4
    shifted_stage_masks: bool = True  # False = each stage has the mask of its own place

    def __post_init__(self) -> None:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that it has a middle; got {self.kernel_size}")


@dataclass(frozen=True)
class GTDAConfig(StageConfig):
    noisy: Shown = "plain"  # how x_t is shown; "evidence" = what each frame says of its class by itself
    dropout_active: bool = False  # while training
    diffusion_steps: int = 1000
    schedule: Schedule = "cosine"
    objective: Objective = "x0"
    self_condition: bool = True


@dataclass(frozen=True)
class GTDADeterministicConfig(StageConfig):
    obs_stages: int = 0  # so many stages see the past only


# Parts ------------------------------------------------------------------------------------------------


class GatedLayer(nn.Module):
    """x + the gated, dilated convolution, mixed, scaled and shifted by the time."""

    def __init__(self, c: StageConfig, dilation: int, *, timed: bool) -> None:
        super().__init__()
        self.gated = c.gated
        padding = dilation * (c.kernel_size // 2)
        outputs = 2 * c.width if c.gated else c.width  # value, then gate
        self.conv = nn.Conv1d(c.width, outputs, c.kernel_size, padding=padding, dilation=dilation)
        self.proj = Pointwise(c.width, c.width)
        self.modulation = Modulation(c.width) if timed else None
        self.channel_drop = nn.Dropout1d(c.channel_dropout)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, embedded: Tensor | None, mask: Tensor | None) -> Tensor:
        """x (B, T, F), embedded time (B, 4 F), mask (B, T) -> (B, T, F)."""
        a = self.drop(self.branch(x))
        if self.modulation is not None and embedded is not None:
            factor, shift = self.modulation(embedded)
            a = a * factor[:, None] + shift[:, None]
        return masked(x + a, mask)

    def branch(self, x: Tensor) -> Tensor:  # (B, T, F) -> (B, T, F)
        y = self.conv(x.mT)
        if self.gated:
            value, gate = y.chunk(2, dim=1)
            return F.relu(self.proj(self.channel_drop(value * gate.sigmoid()).mT))
        return self.proj(self.channel_drop(F.relu(y)).mT)

    def modulated(self, x: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
        """The layer at one time for all of a batch, without dropout; factor and shift (F,)."""
        if not self.gated:
            return torch.addcmul(x + shift, self.branch(x), factor)
        assert self.conv.bias is not None
        maps = self.conv.weight, self.conv.bias, self.proj.weight, self.proj.bias
        return gated_layer(x, *maps, factor, shift, dilation=self.conv.dilation[0])


class Stage(nn.Module):
    """Layers with growing dilation between an input and an output projection."""

    def __init__(
        self, c: StageConfig, *, scores: int, observed: int, noisy: int, estimate: int, timed: bool
    ) -> None:
        """Channels of the input: scores of the stage before, x_t, observation, x̂_0."""
        super().__init__()
        self.proj_in = InputProjection(c.width, before=scores + noisy, observed=observed, after=estimate)
        self.time = TimeEmbedding(c.width) if timed else None
        self.layers = nn.ModuleList(GatedLayer(c, 2**i, timed=timed) for i in range(c.num_layers))
        self.proj_out = Pointwise(c.width, c.num_classes)

    def forward(
        self, labels: list[Tensor], observed: Tensor, time: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Labels (B, T, ·) each, observed (B, D0, T), time (B,) -> scores (B, T, C), features (B, T, F)."""
        x = self.proj_in.context(observed)
        if labels:
            x = x + self.proj_in.of_labels(torch.cat(labels, dim=-1))
        x = masked(x, mask)
        embedded = None if self.time is None or time is None else self.time(time)
        for layer in self.layers:
            x = layer(x, embedded, mask)
        return masked(self.proj_out(x), mask), x

    def modulations(self, times: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Factors and shifts (times, F) of each layer."""
        assert self.time is not None
        embedded = self.time(times)
        layers: list[Any] = [*self.layers]
        return [layer.modulation(embedded) for layer in layers]


class Stages(nn.Module):
    """The chain of stages."""

    def __init__(self, c: StageConfig, *, noisy: int = 0, estimate: int = 0, timed: bool = False) -> None:
        super().__init__()
        self.shifted, self.use_features = c.shifted_stage_masks, c.use_features
        self.channel_drop = nn.Dropout1d(c.channel_dropout)
        told = observed_channels(c.feature_dim, c.beyond)
        inputs = {"observed": told, "noisy": noisy, "estimate": estimate}
        self.stage1 = Stage(c, scores=0, timed=timed, **inputs)
        again = inputs if c.use_features else dict.fromkeys(inputs, 0)
        self.stages = nn.ModuleList(
            Stage(c, scores=c.num_classes, timed=timed, **again) for _ in range(c.num_stages - 1)
        )

    def refined(
        self,
        labels: list[Tensor],
        observed: Tensor,
        time: Tensor | None,
        stage_masks: Sequence[Tensor | None],
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Scores (B, T, C) and features (B, T, F) of each stage; labels: x_t as shown, x̂_0 (B, T, ·)."""
        late = int(self.shifted)
        scores, features = self.stage1(labels, observed, time, stage_masks[0])
        yield scores, features
        for place, stage in enumerate(self.stages, start=1):
            valid = stage_masks[place - late]
            beside = labels if self.use_features else []
            scores, features = stage([masked(scores.softmax(-1), valid), *beside], observed, time, valid)
            yield scores, features


# The models -------------------------------------------------------------------------------------------


class GTDA(Stages, LabelDenoiser):
    """x_t, time and observation to the scores of all stages (S, B, C, T), the last of which is x̂_0."""

    config: GTDAConfig
    padding_is_inert = True

    def __init__(self, config: GTDAConfig) -> None:
        classes = config.num_classes
        super().__init__(config, noisy=shown_channels(classes, config.noisy), estimate=classes, timed=True)
        self.config = c = config
        self.diffusion = Diffusion(c.schedule, c.diffusion_steps, c.objective, c.self_condition)
        if c.noisy == "evidence":
            share_embedding(self.stage1.proj_in, self.stage1.proj_out)
            later: list[Any] = [*self.stages] if c.use_features else []
            for stage in later:
                share_embedding(stage.proj_in, stage.proj_out, scores=True)

    def train(self, mode: bool = True) -> GTDA:
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
        *,
        stage_masks: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """noisy, self_cond: (B, C, T), None = zeros; time: (B,); observed: (B, D0, T), zero beyond the past;
        mask: (B, T), None = all valid; stage_masks: (B, T) for each stage where they differ."""
        self_cond = torch.zeros_like(noisy) if self_cond is None else self_cond
        shown = shown_labels(self.channel_drop(noisy).mT, time, mask, self.diffusion, self.config.noisy)
        labels = [shown, self_cond.mT]
        observed = beyond_past(observed, mask, self.config.beyond)
        masks = stage_masks or [mask] * self.config.num_stages
        return torch.stack([s.mT for s, _ in self.refined(labels, observed, time, masks)])

    def prepared(self, observed: Tensor, mask: Tensor | None, times: Sequence[int]) -> Prepared:
        observed = beyond_past(observed, mask, self.config.beyond)
        return PreparedGTDA(self, observed, mask, torch.tensor(times, device=observed.device))


class PreparedGTDA:
    """GTDA for given observation and times: contexts, tables of factors and shifts, and weights are made."""

    def __init__(self, model: GTDA, observed: Tensor, mask: Tensor | None, times: Tensor) -> None:
        self.stages: list[Any] = [model.stage1, *model.stages]
        self.mask, self.videos, self.width = mask, len(observed), model.config.width
        projections = [stage.proj_in for stage in self.stages]
        self.context = torch.cat([p.context(observed) for p in projections], dim=-1)  # (B, T, S F)
        self.repeated = self.context
        classes = model.config.num_classes
        weights = [p.label_weight for p in projections]
        unread = torch.zeros_like(weights[0])  # by stages that see probabilities alone
        shown = unread.shape[1]
        ends = [w[:, -shown:] if p.after else unread for w, p in zip(weights, projections, strict=True)]
        self.label_weight = torch.cat(ends)  # of x_t and x̂_0 for all stages at once, (S F, ·)
        self.score_weights = [w[:, :classes] for w in weights]
        self.modulations = [stage.modulations(times) for stage in self.stages]
        self.times, self.diffusion, self.noisy = times, model.diffusion, model.config.noisy

    def __call__(self, step: int, noisy: Tensor, self_cond: Tensor | None) -> Tensor:
        samples = len(noisy) // self.videos
        mask = None if self.mask is None else self.mask.repeat(samples, 1)
        if len(self.repeated) != len(noisy):
            self.repeated = self.context.repeat(samples, 1, 1)
        shown = shown_labels(noisy, self.times[step : step + 1], mask, self.diffusion, self.noisy)
        labels = torch.cat([shown, torch.zeros_like(noisy) if self_cond is None else self_cond], dim=-1)
        inputs = shifted_linear(labels, self.label_weight, None, add=self.repeated).split(self.width, dim=-1)
        scores = None
        for stage, x, weight, modulations in zip(
            self.stages, inputs, self.score_weights, self.modulations, strict=True
        ):
            if scores is not None:
                x = shifted_linear(masked(scores.softmax(-1), mask), weight, None, add=x)
            x = masked(x, mask)
            for layer, (factors, shifts) in zip(stage.layers, modulations, strict=True):
                x = masked(layer.modulated(x, factors[step], shifts[step]), mask)
            scores = masked(stage.proj_out(x), mask)
        assert scores is not None
        return scores


class GTDADeterministic(Stages):
    """What was observed to the scores of all stages (S, B, C, T): one future, no diffusion."""

    config: GTDADeterministicConfig

    def __init__(self, config: GTDADeterministicConfig) -> None:
        super().__init__(config)
        self.config = config

    def forward(self, observed: Tensor, mask: Tensor | None = None, past: Tensor | None = None) -> Tensor:
        """observed: (B, D0, T), zero beyond the past; mask, past: (B, T), past only for obs_stages."""
        return torch.stack([scores.mT for scores, _ in self.walked(observed, mask, past)])

    def walked(
        self, observed: Tensor, mask: Tensor | None = None, past: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Scores (B, T, C) and features (B, T, F), stage by stage."""
        seen = beyond_past(self.channel_drop(observed), mask, self.config.beyond)
        return self.refined([], seen, None, self.stage_masks(mask, past))

    def stage_masks(self, mask: Tensor | None, past: Tensor | None) -> list[Tensor | None]:
        """Of each stage by its place, as the loss counts its frames."""
        seeing_past = self.config.obs_stages
        if seeing_past and past is None:
            raise ValueError(f"{seeing_past} stages of this model see the past only; pass past=(B, T)")
        return [past if stage < seeing_past else mask for stage in range(self.config.num_stages)]


# Official layout --------------------------------------------------------------------------------------

STAGE = r"ms_tcn\.(stage1|stages\.\d+)"
KEYS = {
    STAGE + r"\.conv_1x1\.(.*)": r"\1.proj_in.\2",
    STAGE + r"\.conv_out\.(.*)": r"\1.proj_out.\2",
    STAGE + r"\.time_mlp\.1\.(.*)": r"\1.time.fc1.\2",
    STAGE + r"\.time_mlp\.3\.(.*)": r"\1.time.fc2.\2",
    STAGE + r"\.layers\.(\d+)\.conv_dilated\.(.*)": r"\1.layers.\2.conv.\3",
    STAGE + r"\.layers\.(\d+)\.conv_1x1\.(.*)": r"\1.layers.\2.proj.\3",
    STAGE + r"\.layers\.(\d+)\.time_mlp\.1\.(.*)": r"\1.layers.\2.modulation.proj.\3",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The averaged weights of a container; 1x1 convolutions become linear maps; value and gate become one."""
    out = averaged_weights(state)
    for key in [k for k in out if k.startswith("ms_tcn.") and ".gate_conv_dilated." in k]:
        value = key.replace(".gate_conv_dilated.", ".conv_dilated.")
        out[value] = torch.cat([out[value], out.pop(key)])
    mixing = (".conv_1x1.weight", ".conv_out.weight")
    return {k: t.squeeze(-1) if k.endswith(mixing) and t.ndim == 3 else t for k, t in out.items()}


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    width, channels = state["ms_tcn.stage1.conv_1x1.weight"].shape
    classes = state["ms_tcn.stage1.conv_out.weight"].shape[0]
    convolution = state["ms_tcn.stage1.layers.0.conv_dilated.weight"]
    timed = "ms_tcn.stage1.time_mlp.1.weight" in state
    later = state.get("ms_tcn.stages.0.conv_1x1.weight")
    return read_schedule(state) | {
        "num_classes": classes,
        "feature_dim": channels - 2 * classes if timed else channels,
        "num_stages": 1 + len({k.split(".")[2] for k in state if k.startswith("ms_tcn.stages.")}),
        "num_layers": len({k.split(".")[3] for k in state if k.startswith("ms_tcn.stage1.layers.")}),
        "width": width,
        "kernel_size": convolution.shape[2],
        "gated": convolution.shape[0] == 2 * width,
        "use_features": later is None or later.shape[1] > classes,
    }


LICENCE = "as stated by the GTDA release; no weights of it were public when this was written"
OFFICIAL = (
    OfficialLayout(
        name="GTDA release, stochastic",
        model="gtda",
        detect=r"(ema_model\.model\.)?ms_tcn\.stage1\.time_mlp\.1\.weight",
        licence=LICENCE,
        keys=KEYS,
        read_config=_read_config,
        ignored=IGNORED,
        prepare=_prepare,
    ),
    OfficialLayout(
        name="GTDA release, deterministic",
        model="gtda_deterministic",
        detect=r"ms_tcn\.stage1\.layers\.0\.conv_dilated\.weight",
        licence=LICENCE,
        keys=KEYS,
        read_config=_read_config,
        prepare=_prepare,
    ),
)


# Named sizes ------------------------------------------------------------------------------------------


@register_model(
    tags=["anticipation", "diffusion"],
    paper="https://arxiv.org/abs/2407.11954",
    params=3_905_648,
    system="gtda",
)
def gtda(**overrides: Any) -> GTDA:
    """GTDA as published for Breakfast: 5 stages of 9 gated layers, 64 wide, 1000 diffusion steps."""
    return GTDA(replace(GTDAConfig(), **checked_overrides(GTDAConfig, overrides, "gtda")))


@register_model(
    tags=["anticipation", "frames"], paper="https://arxiv.org/abs/2407.11954", params=1_982_448, system=""
)
def gtda_deterministic(**overrides: Any) -> GTDADeterministic:
    """GTDA's deterministic counterpart: the same stages without diffusion, one future."""
    own = checked_overrides(GTDADeterministicConfig, overrides, "gtda_deterministic")
    return GTDADeterministic(replace(GTDADeterministicConfig(), **own))
