"""Depthwise causal convolution: kernels, reference and operators against torch's convolution in double."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from framecast.ops import native_library
from framecast.ops.causal_conv1d import bidirectional_conv1d, causal_conv1d, causal_conv1d_step

# batch, steps, channels, taps: single numbers, sequences shorter than the filter, parts of vectors
SHAPES = [
    (1, 1, 1, 1),
    (2, 1, 5, 4),
    (2, 3, 16, 4),
    (3, 37, 24, 4),
    (1, 100, 33, 3),
    (2, 131, 70, 8),
    (5, 64, 32, 2),
]


def by_torch(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    """What torch's own convolution says in double precision."""
    x, bias = x.double(), None if bias is None else bias.double()
    taps = weight.shape[1]
    y = F.conv1d(F.pad(x.mT, (taps - 1, 0)), weight.double()[:, None], bias, groups=len(weight)).mT
    return F.silu(y) if activation else y


def in_both_directions(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    biases = [None, None] if bias is None else bias.unbind()
    ahead = by_torch(x.flip(1), weight[1], biases[1], activation).flip(1)
    return torch.stack([by_torch(x, weight[0], biases[0], activation), ahead])


def random_arguments(shape: tuple[int, ...], *, with_bias: bool = True) -> list[Tensor]:
    batch, steps, channels, taps = shape
    given = [torch.randn(batch, steps, channels), torch.randn(2, channels, taps), torch.randn(2, channels)]
    return [t.requires_grad_() for t in given[: 2 + with_bias]]


def near(ours: Tensor, exact: Tensor, relative: float) -> None:
    assert_close(ours, exact.float(), rtol=0, atol=relative * (1e-6 + float(exact.detach().abs().max())))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_kernels_equal_torch_with_gradients(
    kernels: str, shape: tuple[int, ...], activation: Any, with_bias: bool
) -> None:
    given = random_arguments(shape, with_bias=with_bias)
    x, weight, bias = given if with_bias else (*given, None)
    y = bidirectional_conv1d(x, weight, bias, activation=activation, impl="native")
    exact = in_both_directions(x, weight, bias, activation)
    near(y, exact, 2e-7)
    with torch.no_grad():  # the way without autograd
        assert torch.equal(bidirectional_conv1d(x, weight, bias, activation=activation), y)
    grad = torch.randn_like(y)
    expected = torch.autograd.grad(exact, given, grad.double())
    for ours, theirs in zip(torch.autograd.grad(y, given, grad), expected, strict=True):
        near(ours, theirs, 1e-6)


@pytest.mark.parametrize("impl", ["reference", "native", "auto"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_direction_is_a_half_of_both(kernels: str, impl: Any, shape: tuple[int, ...]) -> None:
    x, weight, bias = random_arguments(shape)
    both = in_both_directions(x, weight, bias, "silu")
    for d, reverse in enumerate((False, True)):
        y = causal_conv1d(x, weight[d], bias[d], activation="silu", reverse=reverse, impl=impl)
        near(y, both[d], 3e-7)


def test_silu_over_its_whole_range(kernels: str) -> None:
    x = torch.linspace(-87, 87, 200_001)[None, :, None]
    with torch.no_grad():
        y = causal_conv1d(x, torch.ones(1, 1), activation="silu", impl="native")
    exact = F.silu(x.double())
    assert ((y - exact).abs() <= 2e-7 * exact.abs()).all()
    far = torch.tensor([-1e30, -1e3, 1e3, 1e30])[None, :, None]
    with torch.no_grad():
        y = causal_conv1d(far, torch.ones(1, 1), activation="silu", impl="native")
        near(y, far.double().clamp(min=0), 1e-30)
        assert causal_conv1d(far * torch.nan, torch.ones(1, 1), activation="silu").isnan().all()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_step_sees_its_taps_and_nothing_else(reverse: bool) -> None:
    x, weight, _ = random_arguments((1, 40, 8, 4))
    y = causal_conv1d(x, weight[0], activation="silu", reverse=reverse)
    (slopes,) = torch.autograd.grad(y[:, 20].sum(), x)
    seen = slopes.abs().sum((0, 2)).nonzero().flatten().tolist()
    assert seen == ([20, 21, 22, 23] if reverse else [17, 18, 19, 20])


@pytest.mark.parametrize("impl", ["reference", "auto"])
@pytest.mark.parametrize("reverse", [False, True])
def test_pieces_give_the_answer_of_the_whole(impl: Any, reverse: bool) -> None:
    x, weight, bias = random_arguments((2, 23, 6, 4))
    options: dict[str, Any] = {"activation": "silu", "reverse": reverse, "impl": impl}
    whole, last = causal_conv1d(x, weight[0], bias[0], return_state=True, **options)
    pieces = list(x.split([1, 2, 9, 3, 8], dim=1))
    state, parts = torch.zeros(2, 3, 6), []
    for piece in reversed(pieces) if reverse else pieces:
        y, state = causal_conv1d(piece, weight[0], bias[0], initial=state, return_state=True, **options)
        parts.append(y)
    assert_close(torch.cat(parts[::-1] if reverse else parts, dim=1), whole)
    assert torch.equal(state, last)
    assert torch.equal(last, x[:, :3].flip(1) if reverse else x[:, -3:])


def test_a_stream_of_steps_equals_the_convolution() -> None:
    x, weight, bias = random_arguments((2, 11, 6, 4))
    whole, last = causal_conv1d(x, weight[0], bias[0], activation="silu", return_state=True)
    state, steps = torch.zeros(2, 3, 6), []
    for now in x.unbind(1):
        y, state = causal_conv1d_step(state, now, weight[0], bias[0], activation="silu")
        steps.append(y)
    assert_close(torch.stack(steps, dim=1), whole)
    assert torch.equal(state, last)


@pytest.mark.parametrize("impl", ["reference", "auto"])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_in_double_precision(impl: Any, activation: Any, reverse: bool) -> None:
    given = [
        torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 6, 3), (3, 4), (3,), (2, 3, 3))
    ]

    def run(x: Tensor, weight: Tensor, bias: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        options: dict[str, Any] = {"activation": activation, "reverse": reverse, "impl": impl}
        return causal_conv1d(x, weight, bias, initial=initial, return_state=True, **options)

    assert torch.autograd.gradcheck(run, given)


@pytest.mark.parametrize("impl", ["reference", "auto"])
def test_half_precision_and_autocast_count_in_float32(impl: Any) -> None:
    x, weight, bias = (t.detach() for t in random_arguments((2, 50, 24, 4)))
    half = [t.bfloat16().requires_grad_() for t in (x, weight, bias)]
    exact = in_both_directions(*half, "silu")
    y = bidirectional_conv1d(*half, activation="silu", impl=impl)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, exact.bfloat16()) or (y - exact).abs().max() < 0.01 * exact.abs().max()
    grads = torch.autograd.grad(y, half, torch.ones_like(y))
    assert [g.dtype for g in grads] == [torch.bfloat16] * 3
    with torch.autocast("cpu", torch.bfloat16):
        mixed = bidirectional_conv1d(half[0], weight, bias, activation="silu", impl=impl)
    near(mixed.float(), in_both_directions(half[0], weight, bias, "silu"), 0.005)


def test_rows_may_lie_anywhere(kernels: str) -> None:
    wide, weight = torch.randn(3, 70, 40), torch.randn(20, 4)
    x = wide[..., 20:]
    across = x.transpose(1, 2).contiguous().transpose(1, 2)
    same = wide[:1, :, 20:].expand(3, -1, -1)
    with torch.no_grad():
        for odd in (x, across, same, x[:, ::2]):
            y = causal_conv1d(odd, weight, impl="native")
            assert torch.equal(causal_conv1d(odd.contiguous(), weight, impl="native"), y)


def test_threads_give_the_same_bits(kernels: str, two_threads: None) -> None:
    given = random_arguments((3, 1100, 64, 4))

    def run() -> list[Tensor]:
        y = bidirectional_conv1d(*given, activation="silu", impl="native")
        return [y, *torch.autograd.grad(y.square().sum(), given)]

    shared = run()
    torch.set_num_threads(1)
    assert all(map(torch.equal, run(), shared))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(2, 6, 4)), nn.Parameter(torch.randn(2, 6))

    def forward(self, x: Tensor) -> Tensor:
        return bidirectional_conv1d(x, self.weight, self.bias, activation="silu").sum(0)


def test_the_operators_keep_torchs_rules() -> None:
    for with_bias in (True, False):
        given = random_arguments((2, 9, 6, 4), with_bias=with_bias)
        bias = given[2] if with_bias else None
        torch.library.opcheck(torch.ops.framecast.causal_conv1d, (*given[:2], bias, False, True))


def test_export_and_compile() -> None:
    layer, x = Layer(), torch.randn(2, 9, 6)
    exported = torch.export.export(layer, (x,), dynamic_shapes=({1: torch.export.Dim("steps", min=2)},))
    longer = torch.randn(2, 17, 6)
    assert_close(exported.module()(longer), layer(longer))
    compiled: Callable[..., Tensor] = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x.requires_grad_()
    assert_close(compiled(x), layer(x))
    expected = torch.autograd.grad(layer(x).sum(), (x, layer.weight))
    assert_close(torch.autograd.grad(compiled(x).sum(), (x, layer.weight)), expected)


def test_multiplications_are_counted() -> None:
    x, weight, bias = random_arguments((2, 9, 6, 4))
    with FlopCounterMode(display=False) as counter:
        y = bidirectional_conv1d(x, weight, bias)
    assert counter.get_total_flops() == 2 * y.numel() * 4
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 4 * y.numel() * 4


def test_without_kernels_the_reference_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    given = random_arguments((2, 9, 6, 4))
    expected = bidirectional_conv1d(*given, impl="reference")
    monkeypatch.setattr(native_library, "load", lambda: (None, "not built"))
    y = bidirectional_conv1d(*given)
    assert torch.equal(y, expected)
    assert_close(torch.autograd.grad(y.sum(), given), torch.autograd.grad(expected.sum(), given))
    with pytest.raises(RuntimeError, match="not built"):
        bidirectional_conv1d(*given, impl="native")


def test_what_does_not_fit_is_said() -> None:
    x, weight = torch.randn(1, 5, 6), torch.randn(6, 4)
    with pytest.raises(ValueError, match="as many channels"):
        causal_conv1d(x, weight[:5])
    with pytest.raises(ValueError, match=r"bias has shape \(1, 4\)"):
        causal_conv1d(x, weight, torch.randn(4))
    with pytest.raises(ValueError, match=r"initial has shape .* the 3 inputs"):
        causal_conv1d(x, weight, initial=torch.zeros(1, 4, 6))
    with pytest.raises(ValueError, match="two directions"):
        bidirectional_conv1d(x, weight[None])
    with pytest.raises(ValueError, match="'relu' is unknown"):
        causal_conv1d(x, weight, activation="relu")  # ty: ignore[invalid-argument-type]
    with pytest.raises(RuntimeError, match="9 taps"):
        causal_conv1d(x, torch.randn(6, 9), impl="native")
