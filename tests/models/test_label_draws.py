"""Futures drawn from what a denoiser says: exact where the denoiser is."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from framecast.models.label_diffusion import LabelDenoiser, Prepared
from framecast.models.label_draws import coupled_draws, redrawn_walks, tempered
from framecast.nn.diffusion import Diffusion, signal_levels

CHANCES = torch.tensor([0.6, 0.3, 0.1])


class TwoSteps(LabelDenoiser):
    """Knows that a video is of one class all through, with the chances above: its answer is the posterior."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_classes=3, feature_dim=3)
        self.diffusion = Diffusion()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def prepared(self, observed: Tensor, mask: Tensor | None, times: Sequence[int]) -> Prepared:
        levels = signal_levels("cosine", 1000)[list(times)]

        def predict(step: int, noisy: Tensor, self_cond: Tensor | None) -> Tensor:
            gain = float(levels[step].sqrt() / (1 - levels[step]))
            scores = CHANCES.log() + gain * noisy.sum(1)
            return scores.softmax(-1)[:, None].expand_as(noisy)

        return predict


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_redrawn_walks_have_the_chances_of_whole_videos(steps: int) -> None:
    found = redrawn_walks(
        TwoSteps(), torch.zeros(1, 3, 12), 600, steps, 1.0, torch.Generator().manual_seed(0)
    )
    assert found.shape == (600, 12)
    assert (found == found[:, :1]).all(), "a video is of one class"
    shares = torch.bincount(found[:, 0], minlength=3) / 600
    assert (shares - CHANCES).abs().max() < 0.06


def test_the_first_walks_do_not_depend_on_their_number_and_cold_ones_agree() -> None:
    seen = torch.zeros(1, 3, 9)
    many = redrawn_walks(TwoSteps(), seen, 9, 4, 1.0, torch.Generator().manual_seed(1))
    few = redrawn_walks(TwoSteps(), seen, 4, 4, 1.0, torch.Generator().manual_seed(1))
    assert len(many.unique(dim=0)) > 1
    again = redrawn_walks(TwoSteps(), seen, 9, 4, 1.0, torch.Generator().manual_seed(1))
    assert torch.equal(many, again)
    assert torch.equal(many[:4], few)
    cold = redrawn_walks(TwoSteps(), seen, 50, 4, 0.0, torch.Generator().manual_seed(1))
    assert (cold == 0).float().mean() > 0.75  # what is left is decided by the noise, not by the draws


def test_coupled_draws_have_the_chances_of_every_step_and_do_not_flicker() -> None:
    chances = torch.tensor([[0.7, 0.2], [0.2, 0.2], [0.1, 0.6]])  # (K, T)
    drawn = coupled_draws(chances.log(), 20000, 1.0, seed=0)
    shares = torch.stack([(drawn == k).float().mean(0) for k in range(3)])
    assert (shares - chances).abs().max() < 0.02
    assert torch.allclose(tempered(chances.log(), 1.0), chances)
    still = coupled_draws(chances[:, [0]].repeat(1, 9).log(), 25, 1.0, seed=1)
    assert (still == still[:, :1]).all()
    cold = coupled_draws(chances.log(), 25, 0.0, seed=0)
    assert (cold == torch.tensor([0, 2])).all()
