"""Linear maps over shifted frames: kernels and reference against torch's convolution in double precision."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from framecast.ops.activation import Activation, activate
from framecast.ops.shifted_linear import shifted_linear


def by_definition(
    x: Tensor, weight: Tensor, bias: Tensor | None, shifts: Sequence[int], activation: Activation | None
) -> Tensor:
    x, weight = x.double(), weight.double()
    y = torch.zeros(x.shape[0], x.shape[1], len(weight), dtype=torch.float64)
    for j, shift in enumerate(shifts):
        seen = torch.arange(x.shape[1]) + shift
        there = (seen >= 0) & (seen < x.shape[1])
        y[:, there] += x[:, seen[there]] @ weight[:, :, j].T
    return activate(y if bias is None else y + bias, activation)


def close(native: Tensor, expected: Tensor) -> None:
    assert_close(native, expected.float(), rtol=0, atol=1e-6 * (1 + float(expected.abs().max())))


@pytest.mark.parametrize("depth", [1, 7, 16, 64])
@pytest.mark.parametrize("width", [1, 5, 16, 31, 32, 48, 64, 70])
def test_kernels_and_reference_equal_the_definition(kernels: str, depth: int, width: int) -> None:
    for frames, shifts in ((1, (0,)), (23, (-2, 0, 2)), (150, (0,)), (150, (-64, 0, 64)), (9, (-16, 0, 16))):
        x, weight = torch.randn(2, frames, depth), torch.randn(width, depth, len(shifts))
        bias = torch.randn(width)
        expected = by_definition(x, weight, bias, shifts, None)
        with torch.no_grad():
            close(shifted_linear(x, weight, bias, shifts=shifts, impl="native"), expected)
            close(shifted_linear(x, weight, bias, shifts=shifts, impl="reference"), expected)


@pytest.mark.parametrize("videos", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_the_reference_leaves_its_arguments_alone(videos: int, frames: int) -> None:
    arguments = torch.randn(videos, frames, 4), torch.randn(6, 4, 3), torch.randn(6)
    before = [x.clone() for x in arguments]
    with torch.no_grad():
        shifted_linear(*arguments, shifts=(-1, 0, 1), impl="reference")
    assert all(map(torch.equal, arguments, before))


@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
@pytest.mark.parametrize("impl", ["reference", "native"])
def test_bias_activation_and_residual(kernels: str, impl: str, activation: Activation | None) -> None:
    x, weight, add = torch.randn(3, 40, 12), torch.randn(20, 12, 2), torch.randn(3, 40, 20)
    for bias in (None, torch.randn(20)):
        expected = by_definition(x, weight, bias, (-7, 3), activation) + add
        with torch.no_grad():
            y = shifted_linear(x, weight, bias, shifts=(-7, 3), activation=activation, add=add, impl=impl)
        close(y, expected)


def test_gelu_over_its_whole_range(kernels: str) -> None:
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.tensor([-1e30, -100.0, 100.0, 1e30])])[
        None, :, None
    ]
    with torch.no_grad():
        y = shifted_linear(x, torch.ones(1, 1), None, activation="gelu", impl="native")
    error = (y - F.gelu(x.double())).abs() / x.abs().clamp(min=1)
    assert error.max() < 3e-7
    with torch.no_grad():
        assert shifted_linear(x[:, :1] * torch.nan, torch.ones(1, 1), None, activation="gelu").isnan().all()


def test_a_single_tap_is_a_linear_layer(kernels: str) -> None:
    layer, x = torch.nn.Linear(24, 10), torch.randn(2, 33, 24)
    with torch.no_grad():
        assert_close(shifted_linear(x, layer.weight, layer.bias, impl="native"), layer(x))


def test_rows_may_lie_anywhere(kernels: str) -> None:
    wide, weight = torch.randn(2, 70, 40), torch.randn(9, 20, 1)
    x, add = wide[..., 20:], wide[..., 3:12]
    with torch.no_grad():
        y = shifted_linear(x, weight, None, add=add, impl="native")
        assert torch.equal(
            shifted_linear(x.contiguous(), weight, None, add=add.contiguous(), impl="native"), y
        )
        across = x.transpose(1, 2).contiguous().transpose(1, 2)
        assert torch.equal(shifted_linear(across, weight, None, add=add, impl="native"), y)
    close(y, by_definition(x, weight, None, (0,), None) + add)


def test_threads_give_the_same_bits(kernels: str, two_threads: None) -> None:
    x, weight, bias = torch.randn(2, 2000, 32), torch.randn(64, 32, 3), torch.randn(64)
    with torch.no_grad():
        shared = shifted_linear(x, weight, bias, shifts=(-9, 0, 9), impl="native")
        torch.set_num_threads(1)
        assert torch.equal(shifted_linear(x, weight, bias, shifts=(-9, 0, 9), impl="native"), shared)


def test_gradients_flow_through_the_reference() -> None:
    x, weight = torch.randn(2, 9, 3, dtype=torch.float64), torch.randn(4, 3, 3, dtype=torch.float64)
    bias, add = torch.randn(4, dtype=torch.float64), torch.randn(2, 9, 4, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (x, weight, bias, add)]
    assert torch.autograd.gradcheck(
        lambda x, w, b, add: shifted_linear(x, w, b, shifts=(-2, 0, 2), activation="gelu", add=add), inputs
    )
