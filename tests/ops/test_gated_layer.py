"""The native gated layer gives what its definition does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from framecast.ops import native_library
from framecast.ops.gated_layer import gated_layer

needs_kernels = pytest.mark.skipif(native_library.load()[0] is None, reason="no native kernels here")


def inputs(videos: int, frames: int, width: int, taps: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    square, vector = (width, width), (width,)
    shapes = [(2 * width, width, taps), (2 * width,), square, vector, vector, vector]
    rest = [0.3 * torch.randn(shape, generator=generator) for shape in shapes]
    return [torch.randn(videos, frames, width, generator=generator), *rest]


@pytest.mark.parametrize("dilation", [1, 2, 3, 8, 31, 64])
@pytest.mark.parametrize(("videos", "frames", "width"), [(1, 1, 32), (2, 2, 64), (3, 50, 32), (1, 133, 96)])
def test_the_kernel_is_its_definition(
    videos: int, frames: int, width: int, dilation: int, kernels: str
) -> None:
    given = inputs(videos, frames, width)
    exact = gated_layer(*(x.double() for x in given), dilation=dilation, impl="reference")
    with torch.no_grad():
        native = gated_layer(*given, dilation=dilation, impl="native")
    assert_close(native.double(), exact, rtol=1e-5, atol=1e-5)


@needs_kernels
def test_inputs_need_not_be_unbroken() -> None:
    x, *rest = inputs(2, 40, 32)
    wide = torch.cat([x, x], dim=-1)[..., 32:]
    with torch.no_grad():
        assert torch.equal(gated_layer(wide, *rest, dilation=2), gated_layer(x, *rest, dilation=2))


def test_other_widths_taps_and_gradients_take_the_definition() -> None:
    for given in (inputs(1, 20, 24), inputs(1, 20, 32, taps=5)):
        with torch.no_grad():
            y = gated_layer(*given, dilation=2)
            assert torch.equal(y, gated_layer(*given, dilation=2, impl="reference"))
    given = [x.requires_grad_() for x in inputs(1, 20, 32)]
    gated_layer(*given, dilation=2).sum().backward()
    assert all(x.grad is not None and x.grad.abs().max() > 0 for x in given)


@needs_kernels
def test_what_the_kernel_cannot_do_is_refused() -> None:
    with torch.no_grad(), pytest.raises(ValueError, match="multiple of 32; this one has a weight of"):
        gated_layer(*inputs(1, 20, 24), dilation=2, impl="native")
