"""Diffusion over label sequences: what GTDA and MANTA share (training loss, sampling, official containers).

The sample is the one-hot class of every frame, past and future, as plain numbers 0 and 1. What was observed
is given beside it, zero beyond the past, so the past is estimated anew together with the future. A denoiser
maps (x_t, time, observed, x̂_0 of the step before) to the scores of all its stages; the last is its answer.
Shapes: B batch, N samples, T frames, C classes, D0 observed channels, F width, S stages.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.models.observed_past import observed_channels
from framecast.nn.diffusion import (
    Diffusion,
    Schedule,
    Solver,
    Spacing,
    sampling_times,
    schedule_tables,
    signal_levels,
)
from framecast.nn.sequence import masked
from framecast.nn.transformer import DropPath
from framecast.ops import memory

FRAMES_AT_ONCE = 2700  # of all samples that walk together on the CPU: their tensors stay in its cache
SCHEDULES: tuple[Schedule, ...] = ("cosine", "linear")
Place = tuple[slice, slice]  # samples, videos


class Prepared(Protocol):
    """A denoiser for given times and observation: all that does not depend on a sample's noise is done."""

    def __call__(self, step: int, noisy: Tensor, self_cond: Tensor | None) -> Tensor:
        """x_t and x̂_0 (N B, T, C) -> the last stage's output (N B, T, C), sample-major."""
        ...


class LabelDenoiser(nn.Module):
    """What `sample` and `denoising_loss` ask of a network."""

    config: Any
    diffusion: Diffusion
    padding_is_inert: bool  # padded frames change nothing in valid ones

    def prepared(self, observed: Tensor, mask: Tensor | None, times: Sequence[int]) -> Prepared:
        """For what was observed (B, D0, T), valid frames (B, T), and the times of a sampler's steps."""
        raise NotImplementedError


# Training ---------------------------------------------------------------------------------------------


class DenoisingLoss(NamedTuple):
    per_video: Tensor  # (B,), summed over stages
    outputs: Tensor  # (S, B, C, T)
    noisy: Tensor  # (B, C, T)


def denoising_loss(
    denoiser: LabelDenoiser,
    x0: Tensor,
    observed: Tensor,
    mask: Tensor,
    *,
    time: Tensor | None = None,
    noise: Tensor | None = None,
    self_conditioned: bool | None = None,
    padded_mean: bool = True,
    frame_weight: Tensor | None = None,
    diffusion: Diffusion | None = None,
    generator: torch.Generator | None = None,
) -> DenoisingLoss:
    """Squared error of all stages on a noised batch; the release sums `per_video` over the batch.

    x0: one-hot classes (B, C, T); observed: (B, D0, T), zero beyond the past; mask: (B, T). time (B,), noise
    (B, C, T) and the coin of self-conditioning, one for the whole batch, are drawn where not given.
    padded_mean: the mean over frames counts the padded ones, as in the release; False counts valid ones.
    frame_weight: (B, T) of the error of every frame; None = 1.
    diffusion: the denoiser's own, where it is wrapped for several processes.
    """
    diffusion = diffusion or denoiser.diffusion
    draw: dict[str, Any] = {"generator": generator, "device": x0.device}
    if time is None:
        time = torch.randint(diffusion.steps, (len(x0),), **draw)
    if noise is None:
        noise = torch.randn(x0.shape, dtype=x0.dtype, **draw)
    if self_conditioned is None:
        self_conditioned = bool(torch.rand((), **draw) < 0.5)
    noisy = diffusion.noised(x0, time, noise)
    self_cond = None
    if self_conditioned and diffusion.self_condition:
        with torch.no_grad():
            first = denoiser(noisy, time, observed, None, mask)[-1]
            self_cond = diffusion.clean(noisy, first, time)
    outputs = denoiser(noisy, time, observed, self_cond, mask)
    counts = mask if frame_weight is None else mask * frame_weight
    error = (outputs - (x0 if diffusion.objective == "x0" else noise)).square() * counts[:, None]
    frames = mask.shape[1] if padded_mean else mask.sum(1).clamp(min=1)
    return DenoisingLoss(error.sum((0, 2, 3)) / (frames * x0.shape[1]), outputs, noisy)


def staged_cross_entropy(
    logits: Tensor, labels: Tensor, masks: Sequence[Tensor], *, ignore_index: int = -100
) -> Tensor:
    """Cross entropy of deterministic anticipation: mean over the frames of a stage's mask, sum over stages.

    logits (S, B, C, T), labels (B, T), S masks (B, T). Ignored labels count as frames without loss.
    """
    losses = [F.cross_entropy(stage, labels, ignore_index=ignore_index, reduction="none") for stage in logits]
    means = [(loss * mask).sum() / mask.sum() for loss, mask in zip(losses, masks, strict=True)]
    return torch.stack(means).sum()


# Sampling ---------------------------------------------------------------------------------------------


@torch.no_grad()
def sample(
    denoiser: LabelDenoiser,
    observed: Tensor,
    mask: Tensor | None = None,
    *,
    past: Tensor | None = None,
    samples: int = 25,
    steps: int | Sequence[int] = 50,
    eta: float = 0.0,
    noise: Tensor | None = None,
    step_noise: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
    solver: Solver = "ddim",
    at_once: int | None = None,
) -> Tensor:
    """Samples of the classes of all frames as numbers about 0 and 1, (N, B, C, T); argmax over C labels them.

    observed: (B, D0, T), zero beyond the past (made so where `past` (B, T) is given); mask: (B, T), None =
    all valid. steps: evaluations of the network, or the times to visit, noisiest first. eta: DDIM's share of
    fresh noise, 1 = ancestral sampling. noise: the start (N, B, C, T); step_noise: one more like it for each
    step where eta > 0. Without them noise comes from `generator`, a stream of its own for each sample of each
    video, so that `at_once` changes nothing. at_once: samples that walk together; on the CPU by default as
    many as its cache holds.
    """
    batch, channels, frames = observed.shape
    if channels != denoiser.config.feature_dim:
        wanted = denoiser.config.feature_dim
        raise ValueError(f"observed has {channels} channels; this model was made for feature_dim={wanted}")
    wanted = (samples, batch, denoiser.config.num_classes, frames)
    for name, given in (("noise", noise), *(("step_noise", x) for x in step_noise or ())):
        if given is not None and given.shape != wanted:
            raise ValueError(f"{name} has shape {tuple(given.shape)}; {samples} samples here need {wanted}")
    if past is not None:
        observed = observed * past[:, None]
    if mask is not None and bool(mask.all()):
        mask = None
    times = times_of(denoiser.diffusion, steps, solver) if isinstance(steps, int) else list(steps)
    lengths = [frames] * batch if mask is None else [int(valid.nonzero().max()) + 1 for valid in mask]
    source = _Noise(noise, step_noise, samples, lengths, wanted[2], generator)
    out = observed.new_zeros(wanted)
    with memory.reused():
        for videos, length in _walks(denoiser, mask, lengths):
            seen = observed[videos, :, :length]
            valid = None if mask is None or bool(mask[videos, :length].all()) else mask[videos, :length]
            predict = denoiser.prepared(seen, valid, times)
            together = at_once or walkers_at_once(seen, samples)
            for first in range(0, samples, together):
                place = slice(first, min(first + together, samples)), videos
                repeated = None if valid is None else valid.repeat(place[0].stop - first, 1)[..., None]

                def draw(step: int, place: Place = place, seen: Tensor = seen) -> Tensor:
                    return source.fresh(step, place, seen.shape[2]).to(seen)

                start = source.start(place, length).to(seen)
                walk = denoiser.diffusion.trajectory(
                    predict, start, times, eta=eta, solver=solver, draw=draw, mask=repeated
                )
                (last,) = deque(walk, maxlen=1)
                x = last.x0 if repeated is None else last.x0 * repeated
                out[*place, :, :length] = x.mT.unflatten(0, (-1, len(seen)))
    return out


def times_of(diffusion: Diffusion, steps: int, solver: Solver) -> list[int]:
    """Where a sampler of so many steps evaluates the network: DDIM as in the releases."""
    spacing: Spacing = "even" if solver == "ddim" else "snr"
    return sampling_times(diffusion.steps, steps, spacing, schedule=diffusion.schedule)


def _walks(denoiser: LabelDenoiser, mask: Tensor | None, lengths: list[int]) -> list[tuple[slice, int]]:
    """Which videos walk together, and their frames: on the CPU each by itself where padding is inert."""
    on_cpu = next(denoiser.parameters()).device.type == "cpu"
    if not on_cpu or (mask is not None and not denoiser.padding_is_inert):
        return [(slice(None), max(lengths) if mask is None else mask.shape[1])]
    return [(slice(b, b + 1), length) for b, length in enumerate(lengths)]


def walkers_at_once(observed: Tensor, samples: int) -> int:
    """How many of the samples walk together: on the CPU as many as its cache holds."""
    if observed.device.type != "cpu":
        return samples
    return min(samples, max(1, FRAMES_AT_ONCE // (len(observed) * observed.shape[2])))


class _Noise:
    """Noise of every sample of every video, as given, or each from a random stream of its own."""

    def __init__(
        self,
        start: Tensor | None,
        steps: Sequence[Tensor] | None,
        samples: int,
        lengths: list[int],
        channels: int,
        generator: torch.Generator | None,
    ) -> None:
        self.given_start, self.given_steps = start, steps
        self.lengths, self.channels = lengths, channels
        device = "cpu" if generator is None else generator.device
        seeds = torch.randint(2**62, (samples, len(lengths)), generator=generator, device=device)
        self.streams = [[torch.Generator().manual_seed(seed) for seed in row] for row in seeds.tolist()]

    def start(self, place: Place, length: int) -> Tensor:  # (N B, T, C)
        return self._at(self.given_start, place, length)

    def fresh(self, step: int, place: Place, length: int) -> Tensor:  # (N B, T, C)
        return self._at(None if self.given_steps is None else self.given_steps[step], place, length)

    def _at(self, given: Tensor | None, place: Place, length: int) -> Tensor:
        if given is not None:
            return given[*place, :, :length].flatten(0, 1).mT.contiguous()
        walkers, videos = place
        rows = [
            F.pad(torch.randn(own, self.channels, generator=stream), (0, 0, 0, length - own))
            for streams in self.streams[walkers]
            for stream, own in zip(streams[videos], self.lengths[videos], strict=True)
        ]
        return torch.stack(rows)


# Parts of the networks ----------------------------------------------------------------------------------

Shown = Literal["plain", "evidence"]
WINDOWS = (1, 3, 9, 27)  # frames whose evidence is gathered


def shown_channels(num_classes: int, shown: Shown) -> int:
    """Channels in which a network is shown x_t."""
    return (1 + len(WINDOWS)) * num_classes if shown == "evidence" else num_classes


def shown_labels(
    noisy: Tensor, time: Tensor, mask: Tensor | None, diffusion: Diffusion, shown: Shown
) -> Tensor:
    """x_t (B, T, C) at times (B,) as a network is shown it, valid frames (B, T).

    "plain" leaves it as it is: most of it is noise, and a small network learns to overlook it at all times,
    also where it is plain to read. "evidence" is what x_t says of the classes: the log-likelihood of a frame
    is g x_t with g = √ᾱ / (1 - ᾱ), and where a few frames are of one class its posterior is the softmax of
    their sum. Shown are g / (1 + g) x_t and the posteriors of windows of growing length. Ours.
    """
    if shown == "plain":
        return noisy
    noisy = masked(noisy, mask)
    level = signal_levels(diffusion.schedule, diffusion.steps).to(time.device)[time]
    gain = (level.sqrt() / (1 - level)).to(noisy.dtype)[:, None, None]
    likelihood = (gain * noisy).mT
    posteriors = [
        (F.avg_pool1d(likelihood, w, stride=1, padding=w // 2) * w).softmax(dim=1).mT for w in WINDOWS
    ]
    return torch.cat([gain / (1 + gain) * noisy, *posteriors], dim=-1)


class InputProjection(nn.Linear):
    """W [labels before | observed | labels after] + b, with the observation's share computed by itself.

    That share changes neither from step to step nor from sample to sample, and has most of the channels.
    """

    def __init__(self, width: int, *, before: int, observed: int, after: int) -> None:
        super().__init__(before + observed + after, width)
        self.before, self.observed, self.after = before, observed, after

    def context(self, observed: Tensor) -> Tensor:
        """The observation's share with the bias: (B, D0, T) -> (B, T, F)."""
        if not self.observed:
            return self.bias.expand(len(observed), observed.shape[2], -1)
        weight = self.weight[:, self.before : self.before + self.observed]
        return (weight @ observed + self.bias[:, None]).mT.contiguous()

    @property
    def label_weight(self) -> Tensor:  # (F, labels)
        after = self.before + self.observed
        return torch.cat([self.weight[:, : self.before], self.weight[:, after:]], dim=1)

    def of_labels(self, labels: Tensor) -> Tensor:
        """The labels' share: (B, T, before + after) -> (B, T, F)."""
        return F.linear(labels, self.label_weight)


def share_embedding(proj_in: InputProjection, proj_out: nn.Linear, *, scores: bool = False) -> None:
    """Start with one embedding of the classes for what comes in and what goes out, for x_t as evidence.

    scores: the input begins with class probabilities of a stage before. A network so begins as a vote of what
    was last observed, where labels are, and of the posteriors of x_t: alike for all classes, also for those
    of which there are few frames to learn it from. Ours.
    """
    width, classes = proj_out.in_features, proj_out.out_features
    embedding = nn.init.orthogonal_(torch.empty(width, classes))
    first = classes * (1 + scores)  # after scores and x_t itself
    posteriors = [first + i * classes for i in range(len(WINDOWS))]
    votes = dict.fromkeys(posteriors, 0.5 / len(posteriors)) | ({0: 0.5} if scores else {})
    if proj_in.observed == observed_channels(classes, "held"):
        votes[proj_in.before] = 0.5
    with torch.no_grad():
        for start, share in votes.items():
            proj_in.weight[:, start : start + classes] = share * embedding
        proj_out.weight.copy_(embedding.T)
        proj_out.bias.zero_()


def switch_off_dropout(model: nn.Module) -> None:
    """The releases' training: wrapping the model in its moving average leaves it in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout1d | DropPath):
            module.eval()


# Official containers ------------------------------------------------------------------------------------

EMA = r"(?:online_model|ema_model)\."
IGNORED = {
    r"online_model\..*": "weights as trained; the averaged ones, which the release samples with, are taken",
    EMA + "(" + "|".join(schedule_tables("linear", 2)) + ")": "schedule table, computed anew",
    "initted|step": "counter of the moving average",
}


def averaged_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The denoiser's tensors of the release's EMA container under their own names, the others untouched."""
    return {re.sub(r"^ema_model\.model\.", "", key): tensor for key, tensor in state.items()}


def read_schedule(state: dict[str, Tensor]) -> dict[str, Any]:
    """Config fields of the noise schedule, where a container holds its table."""
    table = state.get("ema_model.alphas_cumprod")
    if table is None:
        return {}
    for schedule in SCHEDULES:
        if torch.allclose(table.double(), signal_levels(schedule, len(table)), rtol=1e-4, atol=1e-7):
            return {"schedule": schedule, "diffusion_steps": len(table)}
    raise ValueError(f"the noise schedule of {len(table)} steps in it is neither {' nor '.join(SCHEDULES)}")
