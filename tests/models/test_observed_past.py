"""What a network is told of the steps beyond the past: only what the past says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from framecast.models.label_diffusion import sample
from framecast.models.observed_past import CLOCKS, beyond_past, observed_channels
from framecast.registry import create_model


def test_the_last_step_goes_on_and_clocks_tell_how_long() -> None:
    observed = torch.zeros(1, 2, 6)
    observed[0, 0, 0] = observed[0, 1, 1] = observed[0, 1, 2] = 1  # classes 0, 1, 1; then nothing
    told = beyond_past(observed, None, "held")
    assert told.shape == (1, observed_channels(2, "held"), 6) == (1, 4 + CLOCKS, 6)
    assert told[0, 0].tolist() == [1, 0, 0, 0, 0, 0]
    assert told[0, 1].tolist() == [0, 1, 1, 1, 1, 1]
    assert_close(told[0, 2:4], torch.tensor([[1 / 3], [2 / 3]]).expand(2, 6))  # what was seen, on the mean
    future, since_end, place, share, lasted = told[0, 4:]
    assert future.tolist() == [0, 0, 0, 1, 1, 1]
    assert_close(since_end, torch.tensor([0, 0, 0, 1.0, 2, 3]).log1p() / 4)
    assert_close(place, torch.arange(6) / 6)
    assert_close(share, torch.full((6,), 0.5))
    assert_close(lasted, torch.full((6,), math.log1p(2) / 4))  # two steps of class 1


def test_zeros_stay_zeros_and_nothing_seen_is_no_error() -> None:
    observed = torch.rand(2, 3, 4)
    assert beyond_past(observed, None, "zeros") is observed
    assert observed_channels(3, "zeros") == 3
    assert beyond_past(torch.zeros(1, 3, 4), None, "held").isfinite().all()


def test_places_are_shares_of_the_valid_steps() -> None:
    observed = torch.zeros(2, 2, 8)
    observed[:, 0, :2] = 1
    mask = torch.arange(8) < torch.tensor([[8], [4]])
    told = beyond_past(observed, mask, "held")
    short = beyond_past(observed[1:, :, :4], None, "held")
    assert_close(told[1:, :, :4], short)


@pytest.mark.parametrize("name", ["manta", "gtda"])
def test_sampling_and_training_read_the_same(name: str) -> None:
    sizes: dict[str, Any] = {"num_stages": 2} if name == "gtda" else {}
    torch.manual_seed(0)
    model = create_model(
        name, num_classes=3, feature_dim=3, width=8, num_layers=2, diffusion_steps=10, beyond="held", **sizes
    ).eval()
    observed = torch.zeros(1, 3, 9)
    observed[0, 1, :4] = 1
    noise = torch.randn(1, 1, 3, 9)
    found = sample(model, observed, samples=1, steps=[9], noise=noise)[0]
    assert_close(found, model(noise[0], torch.tensor([9]), observed)[-1], rtol=1e-4, atol=1e-5)
