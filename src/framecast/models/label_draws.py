"""Futures drawn from what a network says of the classes of every step: ours, beside the walks of the papers.

A denoiser answers with the mean of all videos that a noisy one may have been. A walk of few steps that puts
this mean in place of the video ends near the mean: its samples hardly differ. Two ways round it:

- "redrawn": every step of the walk puts in classes drawn from the answer, is noised again, and so asks what
  goes with them. As exact as the network for any number of steps, if the steps of a video were independent
  given x_t; that they are not is what the following steps of the walk mend.
- "coupled": classes are drawn from the first answer alone; each step has the right chances, but which
  classes go together is left to one preference of each future.

Both draw all steps of a future with the same preferences, so that it does not flicker.
Shapes: S samples, K classes, T steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from framecast.models.label_diffusion import LabelDenoiser, walkers_at_once
from framecast.nn.diffusion import signal_levels

RAREST = 1e-4  # a class is never less probable than this, where a denoiser answers 0 or below
LEAST = 0.05  # what a denoiser gives a class below this is taken for its own error, and not drawn
NEVER = 1e-9


@torch.no_grad()
def redrawn_walks(
    denoiser: LabelDenoiser,
    observed: Tensor,
    samples: int,
    steps: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(S, T) classes of all steps of one video, observed (1, D0, T); the last answer is taken as it is.

    steps: evaluations of the network, from the noisiest time in equal distances. temperature: of the draws.
    A sample has a random stream of its own: the first ones do not depend on how many are drawn.
    """
    diffusion, frames = denoiser.diffusion, observed.shape[2]
    times = [diffusion.steps - 1 - i * diffusion.steps // steps for i in range(steps)]
    levels = signal_levels(diffusion.schedule, diffusion.steps)[times].tolist()
    predict = denoiser.prepared(observed, None, times)
    classes = denoiser.config.num_classes
    seeds = torch.randint(2**62, (samples,), generator=generator).tolist()
    streams = [torch.Generator().manual_seed(seed) for seed in seeds]
    together = walkers_at_once(observed, samples)

    def noise(part: list[torch.Generator]) -> Tensor:  # (N, T, K)
        return torch.stack([torch.randn(frames, classes, generator=g) for g in part]).to(observed)

    def preferences(part: list[torch.Generator]) -> Tensor:  # (N, 1, K)
        uniform = [torch.rand(1, classes, generator=g, dtype=torch.float64) for g in part]
        return gumbel(torch.stack(uniform)).to(observed)

    found = []
    for first in range(0, samples, together):
        part = streams[first : first + together]
        x, x0 = noise(part), None
        for step in range(steps):
            x0 = predict(step, x, x0)
            if step + 1 < steps:
                least = x0.amax(-1, keepdim=True).clamp(max=LEAST)
                scores = torch.where(x0 < least, NEVER, x0).log() + temperature * preferences(part)
                drawn = F.one_hot(scores.argmax(-1), classes).to(x0)
                level = levels[step + 1]
                x = level**0.5 * drawn + (1 - level) ** 0.5 * noise(part)
        assert x0 is not None
        found.append(x0.argmax(-1))
    return torch.cat(found)


def coupled_draws(log_chances: Tensor, samples: int, temperature: float, seed: int) -> Tensor:
    """(S, T) classes from the chances of every step: log of them (K, T), up to a constant for each step.

    A future has its own preference for every class, one Gumbel number for the whole video, and takes at each
    step the class with the largest log chance plus temperature times preference. Over many futures every step
    has the chances that `tempered` gives.
    """
    shape = (samples, len(log_chances), 1)
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (log_chances + temperature * gumbel(uniform)).argmax(1)


def tempered(log_chances: Tensor, temperature: float) -> Tensor:
    """(K, T) chances to the power 1 / temperature, normalised."""
    return (log_chances / max(temperature, 1e-6)).softmax(0)


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel numbers from uniform ones: the largest of log p + these falls on each class with chance p."""
    return -(-uniform.clamp(min=1e-300).log()).log()
