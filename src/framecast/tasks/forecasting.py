"""Futures from any anticipation model, and their scores on whole data sets.

Three kinds of model answer the same question. Diffusion models sample the labels of all steps, past and
future; deterministic ones give class scores of all steps; label forecasters (the networks of 2018, and every
baseline) read the frames seen so far and write the ones that follow.
Legend: D0 observed channels, K classes, T steps, S samples, N annotated frames, M predicted frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from framecast.data.anticipation import AnticipationData, at_frames, beginning
from framecast.metrics.anticipation import AnticipationMetrics
from framecast.metrics.anticipation_protocols import AnticipationProtocol, get_anticipation_protocol
from framecast.models.label_diffusion import LabelDenoiser, sample
from framecast.models.label_draws import RAREST, coupled_draws, redrawn_walks, tempered
from framecast.nn.diffusion import Solver
from framecast.tasks.ranks import merge_over_ranks, own_items


@runtime_checkable
class LabelForecaster(Protocol):
    """From labels of the frames seen so far to labels of those that follow."""

    def forecast(
        self,
        observed: np.ndarray,
        num_future: int,
        total_length: int,
        samples: int = 1,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray: ...


@dataclass(frozen=True)
class Sampling:
    """How futures are drawn; the defaults are those of GTDA and MANTA."""

    samples: int = 25
    steps: int = 50  # evaluations of a diffusion model
    solver: Solver = "ddim"
    eta: float = 0.0
    seed: int = 0
    # walks: of a diffusion model, as published; redrawn and coupled: see models/label_draws.py
    draw: Literal["walks", "redrawn", "coupled"] = "walks"
    temperature: float = 1.0  # of redrawn and coupled; towards 0 all take the most probable classes


@dataclass(frozen=True)
class StepFutures:
    """Labels (S, T) of all steps, and class probabilities (K, T) where the model itself gives them."""

    labels: np.ndarray
    probabilities: np.ndarray | None = None


@torch.inference_mode()
def forecast_steps(
    model: nn.Module, observed: np.ndarray, num_steps: int, sampling: Sampling, seed: int = 0
) -> StepFutures:
    """All steps of a video, past and future, from what is observed (D0, past) of them.

    seed: of the noise; the first samples do not depend on how many are drawn.
    """
    device = next(model.parameters()).device
    padded = torch.zeros(1, observed.shape[0], num_steps)
    padded[0, :, : observed.shape[1]] = torch.from_numpy(observed)
    padded = padded.to(device)
    generator = torch.Generator().manual_seed(seed)
    if isinstance(model, LabelDenoiser) and hasattr(model, "diffusion"):
        count, steps = sampling.samples, sampling.steps
        if sampling.draw == "redrawn":
            drawn = redrawn_walks(model, padded, count, steps, sampling.temperature, generator)
            return StepFutures(drawn.cpu().numpy())
        options: dict[str, Any] = {"solver": sampling.solver, "eta": sampling.eta, "generator": generator}
        found = sample(model, padded, samples=count, steps=steps, **options)[:, 0]
        if sampling.draw == "walks":
            return StepFutures(found.argmax(1).cpu().numpy())
        scores = found.mean(0).clamp(min=RAREST).log().cpu()
    else:
        past = torch.arange(num_steps, device=device)[None] < observed.shape[1]
        scores = model(padded, None, past)[-1, 0].float().log_softmax(0).cpu()
        if sampling.draw != "coupled":
            return StepFutures(scores.argmax(0)[None].numpy(), scores.exp().numpy())
    labels = coupled_draws(scores, sampling.samples, sampling.temperature, seed)
    return StepFutures(labels.numpy(), tempered(scores, sampling.temperature).numpy())


def forecast_video(
    model: Any, data: AnticipationData, index: int, share: float, horizon: float, sampling: Sampling
) -> tuple[np.ndarray, np.ndarray | None]:
    """Futures of one video at the rate of its annotation: labels (S, M), probabilities (K, M) or None.

    share, horizon: of the annotated frames; M = int((share + horizon) n) - int(share n).
    """
    frames = len(data.annotation(index))
    first, last = int(share * frames), int((share + horizon) * frames)
    seeds = np.random.SeedSequence([sampling.seed, index, round(1000 * share)])
    if isinstance(model, LabelForecaster):
        seen = data.annotation(index)[:first]
        rng = np.random.default_rng(seeds)
        return model.forecast(seen, last - first, frames, sampling.samples, rng), None
    part = beginning(data, index, share, horizon)
    seed = int(seeds.generate_state(1)[0])
    found = forecast_steps(model, part.observed[:, : part.past], len(part.labels), sampling, seed)
    labels = at_frames(found.labels, part.frames, first, last)
    probabilities = found.probabilities
    return labels, None if probabilities is None else at_frames(probabilities, part.frames, first, last)


@torch.no_grad()
def collect_futures(
    model: Any,
    data: AnticipationData,
    protocol: str | AnticipationProtocol,
    sampling: Sampling,
    *,
    track: Callable[[Iterator[Any]], Iterator[Any]] = iter,
) -> AnticipationMetrics:
    """Futures and labels of every video for every observed share of the protocol; ranks share the work."""
    wanted = get_anticipation_protocol(protocol) if isinstance(protocol, str) else protocol

    def empty() -> AnticipationMetrics:
        return AnticipationMetrics(data.classes, frames_per_second=data.frames_per_second)

    metrics, jobs = empty(), [(i, share) for i in range(len(data)) for share in wanted.observed]
    for job in track(iter(own_items(len(jobs)))):
        index, share = jobs[job]
        labels, chances = forecast_video(model, data, index, share, max(wanted.horizons), sampling)
        if labels.shape[1]:
            metrics.update(
                labels,
                data.annotation(index),
                share,
                video=data.videos[index],
                probabilities=chances,
            )
    return merge_over_ranks(metrics, empty)
