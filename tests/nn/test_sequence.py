"""Pointwise maps, convolutions and the walks over stages and videos: inference gives what training does."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from framecast.nn.sequence import Pointwise, best_alone, project_channels, stacked, video_by_video
from framecast.nn.temporal_conv import DilatedConv


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_pointwise_is_residual_plus_linear() -> None:
    layer, x, residual = Pointwise(6, 10, dropout=0.5).eval(), torch.randn(2, 30, 6), torch.randn(2, 30, 10)
    expected = x @ layer.weight.T + layer.bias + residual
    assert_close(layer(x, residual), expected)
    with torch.no_grad():
        assert_close(layer(x, residual), expected)
        assert_close(layer(x), expected - residual)
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_dropout_spares_the_residual_and_acts_while_training() -> None:
    layer, x = Pointwise(6, 10, dropout=0.5), torch.randn(1, 2000, 6)
    with torch.no_grad():  # as in Monte Carlo dropout
        y = layer(x, torch.full((1, 2000, 10), 3.0))
    assert (y == 3).float().mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
@pytest.mark.parametrize("frames", [1, 3, 4, 5, 40])
def test_dilated_convolution_is_the_same_at_inference(frames: int, activation: str | None) -> None:
    conv, x = DilatedConv(6, 4, width_out=10, activation=activation), torch.randn(2, frames, 6)
    training = conv(x)
    with torch.no_grad():
        assert_close(conv(x), training.detach())


def test_channels_are_projected_the_same_at_inference() -> None:
    linear, x = nn.Linear(20, 6), torch.randn(3, 20, 11)
    training = project_channels(x, linear)
    assert_close(training, linear(x.transpose(1, 2)))
    with torch.no_grad():
        assert_close(project_channels(x, linear), training)
        assert_close(project_channels(x[:, :, 2:7], linear), training[:, 2:7])


def test_operations_can_be_counted() -> None:
    def count() -> int:
        with FlopCounterMode(display=False) as flops:
            Pointwise(6, 10)(torch.randn(1, 30, 6))
            DilatedConv(6, 2)(torch.randn(1, 30, 6))
        return flops.get_total_flops()

    with torch.no_grad():
        assert count() == 2 * 30 * 6 * 10 + 2 * 30 * 3 * 6 * 6


def test_stacking_one_by_one() -> None:
    parts = [torch.randn(2, 3, requires_grad=True) for _ in range(4)]
    assert_close(stacked(iter(parts), 4), torch.stack(parts))
    assert stacked(iter(parts), 4).requires_grad
    with torch.no_grad():
        assert torch.equal(stacked(iter(parts), 4), torch.stack(parts))


def test_only_padding_at_the_end_is_cut_away() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert not best_alone(mask)  # gradients are recorded
    with torch.no_grad():
        assert best_alone(mask)
        assert not best_alone(torch.tensor([[True, False, True]]))
        assert not best_alone(torch.tensor([[False, False, False]]))
        assert not best_alone(mask.to("meta"))


def test_video_by_video_pads_with_zeros() -> None:
    features = torch.randn(2, 4, 3)
    out = video_by_video(
        lambda x: x[None] + 1, features, torch.tensor([[True, True, False], [True, True, True]])
    )
    assert torch.equal(out[0, 0, :, :2], features[0, :, :2] + 1)
    assert torch.equal(out[0, 1], features[1] + 1)
    assert not out[0, 0, :, 2:].any()
