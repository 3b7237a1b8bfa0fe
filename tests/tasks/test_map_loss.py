"""Losses of maps with gaps, against cases computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from framecast.nn.perceptual import PerceptualDistance
from framecast.tasks.map_loss import Difference, map_loss

SMALL_VGG = (4, 0, 4, 0, 4, 0, 4, 0, 4)


def two_cells() -> tuple[torch.Tensor, torch.Tensor]:
    predicted = torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2).requires_grad_()
    return predicted, torch.tensor([3.0, 2.5]).reshape(1, 1, 1, 2)


@pytest.mark.parametrize(
    ("difference", "expected"), [("l1", 1.25), ("l2", (4 + 0.25) / 2), ("huber", (1.5 + 0.125) / 2)]
)
def test_by_hand(difference: Difference, expected: float) -> None:
    predicted, target = two_cells()
    loss, parts = map_loss(predicted, target, torch.ones(1, 1, 2), targets=["LST"], difference=difference)
    assert loss.item() == pytest.approx(expected)
    assert parts["LST"].item() == pytest.approx(expected)


def test_sea_and_gaps_teach_nothing_but_gaps_count() -> None:
    predicted, target = two_cells()
    sea = torch.tensor([1.0, 0.0]).reshape(1, 1, 2)
    assert map_loss(predicted, target, 1 - sea, targets=["BT"])[0].item() == pytest.approx(0.5)
    target[..., 0] = math.nan
    loss, _ = map_loss(predicted, target, torch.ones(1, 1, 2), targets=["BT"])
    assert loss.item() == pytest.approx(0.25)
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad.flatten().tolist() == [0, -0.5]
    assert map_loss(predicted, target, torch.zeros(1, 1, 2), targets=["BT"])[0].item() == 0


def test_targets_have_weights() -> None:
    predicted, target = torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1)
    weight = torch.ones(1, 1, 1)
    loss, _ = map_loss(predicted, target, weight, targets=["BT", "NDVI"], target_weights={"BT": 3.0})
    assert loss.item() == pytest.approx(4)


def test_perceptual_distance() -> None:
    torch.manual_seed(0)
    network = PerceptualDistance(SMALL_VGG)
    a, b = torch.randn(2, 32, 32, requires_grad=True), torch.randn(2, 32, 32)
    assert network(b, b) == 0
    assert [x.shape[-1] for x in network.looked_at(b)] == [32, 16, 8, 4, 2]
    distance = network(a, b)
    distance.backward()
    assert distance > 0
    assert a.grad is not None
    assert a.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    plain, _ = map_loss(a[:, None], b[:, None], torch.ones(2, 32, 32), targets=["BT"])
    both, _ = map_loss(
        a[:, None],
        b[:, None],
        torch.ones(2, 32, 32),
        targets=["BT"],
        perceptual=network,
        perceptual_weight=0.5,
    )
    assert_close(both, plain + 0.5 * distance)


def test_misfits() -> None:
    network = PerceptualDistance(SMALL_VGG)
    with pytest.raises(ValueError, match=r"the weights have nothing for features.0.weight"):
        network.load_vgg19({})
    with pytest.raises(ValueError, match=r"must both be \(B, 1, H, W\)"):
        map_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1), targets=["BT"])
