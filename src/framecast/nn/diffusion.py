"""Denoising diffusion: noise schedules, the noised sample, and the walk from noise back to data.

    x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε,   ε ~ N(0, 1)

Ho et al., 2020 (https://arxiv.org/abs/2006.11239); cosine schedule: Nichol, Dhariwal, 2021; DDIM: Song et
al., 2021 (https://arxiv.org/abs/2010.02502), which with η = 1 over all times is Ho's ancestral sampling;
DPM-Solver++ (2M): Lu et al., 2022 (https://arxiv.org/abs/2211.01095); self-conditioning: Chen et al., 2023.
A network predicts x_0 or ε. Times count from 0, the least noisy, to steps - 1.
Shapes: B batch, F width of an embedding; noised tensors may have any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Schedule = Literal["cosine", "linear"]
Objective = Literal["x0", "noise"]
Solver = Literal["ddim", "dpm++2m"]
Spacing = Literal["even", "release", "snr"]
Predict = Callable[[int, Tensor, Tensor | None], Tensor]  # (step, x_t, x̂_0 of the step before) -> output
Draw = Callable[[int], Tensor]  # step -> noise like x_t


# Schedules --------------------------------------------------------------------------------------------


def noise_schedule(kind: Schedule, steps: int) -> Tensor:
    """β of every time, float64 (steps,)."""
    if kind == "linear":
        scale = 1000 / steps
        return torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)
    if kind != "cosine":
        raise ValueError(f"noise schedule {kind!r} is unknown; choose cosine or linear")
    u = torch.linspace(0, steps, steps + 1, dtype=torch.float64) / steps
    signal = torch.cos((u + 0.008) / 1.008 * math.pi / 2).square()
    return (1 - signal[1:] / signal[:-1]).clamp(0, 0.999)


@cache
def signal_levels(kind: Schedule, steps: int) -> Tensor:
    """ᾱ of every time, float64 (steps,)."""
    return (1 - noise_schedule(kind, steps)).cumprod(0)


def schedule_tables(kind: Schedule, steps: int) -> dict[str, Tensor]:
    """What releases keep as buffers beside their weights, by their names; float32 (steps,)."""
    betas = noise_schedule(kind, steps)
    alphas = 1 - betas
    signal = alphas.cumprod(0)
    before = F.pad(signal[:-1], (1, 0), value=1.0)
    variance = betas * (1 - before) / (1 - signal)
    tables = {
        "betas": betas,
        "alphas_cumprod": signal,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": signal.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - signal).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - signal).log(),
        "sqrt_recip_alphas_cumprod": (1 / signal).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / signal - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - signal),
        "posterior_mean_coef2": (1 - before) * alphas.sqrt() / (1 - signal),
    }
    return {name: table.float() for name, table in tables.items()}


def sampling_times(
    total: int, steps: int, spacing: Spacing = "even", *, schedule: Schedule = "cosine"
) -> list[int]:
    """The times that a sampler visits, noisiest first: `steps` of `total`, the last one 0.

    "release": every (total // steps)-th, which are more than `steps` where that does not divide. "snr": from
    the first to the last of "even" in equal steps of the log signal-to-noise ratio, as DPM-Solver++ wants.
    """
    if not 1 <= steps <= total:
        raise ValueError(f"{steps} sampling steps were asked of {total} diffusion steps; take 1 to {total}")
    if spacing == "release":
        return list(range(0, total, total // steps))[::-1]
    even = [i * total // steps for i in range(steps)][::-1]
    if spacing == "even" or steps == 1:
        return even
    ratios = signal_levels(schedule, total).logit()  # from large to small
    wanted = torch.linspace(float(ratios[even[0]]), float(ratios[0]), steps, dtype=torch.float64)
    times = (ratios - wanted[:, None]).abs().argmin(1).tolist()
    times = [min(time, even[0] - i) for i, time in enumerate(times)]
    for i in reversed(range(steps - 1)):  # no time twice
        times[i] = max(times[i], times[i + 1] + 1)
    return times


# The process ------------------------------------------------------------------------------------------


class SamplingStep(NamedTuple):
    time: int
    noisy: Tensor  # x_t
    x0: Tensor  # what the network makes of it
    next: Tensor  # x at the next smaller time; after the last step the sample, which is its x0


@dataclass(frozen=True)
class Diffusion:
    """A schedule, what the network predicts, and whether it is shown its last prediction."""

    schedule: Schedule = "cosine"
    steps: int = 1000
    objective: Objective = "x0"
    self_condition: bool = True

    def noised(self, x0: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """x_t of a batch; time (B,)."""
        signal = self._levels(time, x0)
        return signal.sqrt().to(x0.dtype) * x0 + (1 - signal).sqrt().to(x0.dtype) * noise

    def clean(self, noisy: Tensor, output: Tensor, time: Tensor) -> Tensor:
        """x̂_0 that the network's output means; time (B,)."""
        if self.objective == "x0":
            return output
        signal = self._levels(time, noisy)
        return (1 / signal).sqrt().to(noisy.dtype) * noisy - (1 / signal - 1).sqrt().to(noisy.dtype) * output

    def _levels(self, time: Tensor, like: Tensor) -> Tensor:
        """ᾱ at the time of each item, float64 (B, 1, ...)."""
        levels = signal_levels(self.schedule, self.steps).to(like.device)
        return levels[time].view(-1, *[1] * (like.ndim - 1))

    def trajectory(
        self,
        predict: Predict,
        start: Tensor,
        times: Sequence[int],
        *,
        eta: float = 0.0,
        solver: Solver = "ddim",
        draw: Draw | None = None,
        mask: Tensor | None = None,
    ) -> Iterator[SamplingStep]:
        """From noise to a sample, step by step.

        eta: share of fresh noise in a DDIM step (0 = none), taken from `draw`. mask: as start, or wider; the
        noise that is thought to be in the sample is zero outside.
        """
        if solver not in ("ddim", "dpm++2m"):
            raise ValueError(f"solver {solver!r} is unknown; choose ddim or dpm++2m")
        if eta and solver != "ddim":
            raise ValueError(f"eta is {eta}, but {solver} adds no noise; set eta=0 or solver='ddim'")
        levels = [*signal_levels(self.schedule, self.steps)[list(times)].tolist(), 1.0]
        x, x0, before = start, torch.zeros_like(start), None
        for step, time in enumerate(times):
            shown = x0 if self.self_condition else None
            x0, noise = self._parts(x, predict(step, x, shown), levels[step])
            noise = noise if mask is None else noise * mask
            if solver == "ddim":
                fresh = draw(step) if eta and draw is not None and levels[step + 1] < 1 else None
                following = _ddim(x0, noise, levels[step], levels[step + 1], eta, fresh)
            else:
                following = _dpm(x, x0, before, levels[max(step - 1, 0) : step + 2])
            yield SamplingStep(time, x, x0, following)
            x, before = following, x0

    def _parts(self, x: Tensor, output: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """x̂_0 and ε̂."""
        if self.objective == "x0":
            return output, (x / math.sqrt(level) - output) / math.sqrt(1 / level - 1)
        return x / math.sqrt(level) - math.sqrt(1 / level - 1) * output, output


def _ddim(
    x0: Tensor, noise: Tensor, level: float, following: float, eta: float, fresh: Tensor | None
) -> Tensor:
    """√ᾱ' x̂_0 + √(1 - ᾱ' - σ²) ε̂ + σ z with σ² = η² (1 - ᾱ') / (1 - ᾱ) (1 - ᾱ / ᾱ')."""
    if following == 1.0:
        return x0
    variance = eta**2 * (1 - following) / (1 - level) * (1 - level / following)
    x = math.sqrt(following) * x0 + math.sqrt(1 - following - variance) * noise
    return x if fresh is None else x + math.sqrt(variance) * fresh


def _dpm(x: Tensor, x0: Tensor, before: Tensor | None, levels: Sequence[float]) -> Tensor:
    """Second order in λ = ln √(ᾱ / (1 - ᾱ)) from the step before; the first step and the last are DDIM's."""
    level, following = levels[-2:]
    if following == 1.0:
        return x0
    to_go = _log_ratio(following) - _log_ratio(level)
    if before is not None:
        came = _log_ratio(level) - _log_ratio(levels[0])
        x0 = x0 + (x0 - before) * (to_go / (2 * came))
    shrink = math.sqrt((1 - following) / (1 - level))
    return shrink * x - math.sqrt(following) * math.expm1(-to_go) * x0


def _log_ratio(level: float) -> float:
    return 0.5 * math.log(level / (1 - level))


# What a network knows of the time ---------------------------------------------------------------------


def sinusoid(time: Tensor, width: int) -> Tensor:
    """(B,) -> (B, F): sines, then cosines, of frequencies from 1 down to 1 / 10000."""
    half = width // 2
    frequencies = torch.arange(half, device=time.device) * (-math.log(10_000) / (half - 1))
    angles = time[:, None] * frequencies.exp()
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """Two linear maps of the sinusoid of the time, four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, 4 * width)

    def forward(self, time: Tensor) -> Tensor:  # (B,) -> (B, 4 F)
        return self.fc2(F.gelu(self.fc1(sinusoid(time, self.width))))


class Modulation(nn.Module):
    """Scale and shift of a layer's channels that follow the time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(4 * width, 2 * width)

    def forward(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 4 F) -> factor (B, F), one where the map says zero, and shift (B, F)."""
        scale, shift = self.proj(F.silu(embedded)).chunk(2, dim=-1)
        return scale + 1, shift
