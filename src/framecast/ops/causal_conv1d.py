"""Depthwise causal convolution over time with bias and activation, channels-last.

    y[l] = act(b + Σ_k w[:, k] x[l - (W - 1) + k])

Shapes: B batch, L steps, D channels, W taps. Outside the sequence x is zero, or what `initial` holds.
Sums are taken in float32 also for half-precision inputs and under autocast, in float64 for float64.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from framecast.ops import native_library

Nonlinearity = Literal["silu"]
Implementation = Literal["auto", "reference", "native"]
MOST_TAPS = 8  # that the kernels are made for


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: Nonlinearity | None = None,
    reverse: bool = False,
    initial: Tensor | None = None,
    return_state: bool = False,
    impl: Implementation = "auto",
) -> Any:
    """The convolution of x (B, L, D) with weight (D, W) and bias (D,): y (B, L, D), or (y, state).

    reverse: the mirror image, from the last step to the first: no step sees what lies before it.
    initial and state: (B, W - 1, D), the inputs walked over last, the oldest first. A sequence cut into
    pieces, each started with the state of the one before it, gives the answer of the whole.
    impl: "native" the compiled kernels, "reference" their definition, "auto" the best there is.
    """
    _check(x, weight[None], None if bias is None else bias[None], activation)
    steps, memory = x.shape[1], weight.shape[1] - 1
    seen = x
    if initial is not None:
        if initial.shape != (x.shape[0], memory, x.shape[2]):
            raise ValueError(
                f"initial has shape {tuple(initial.shape)}; expected {(x.shape[0], memory, x.shape[2])}: the "
                f"{memory} inputs that a convolution of {memory + 1} taps remembers"
            )
        initial = initial.to(x.dtype)
        seen = torch.cat([x, initial.flip(1)] if reverse else [initial, x], dim=1)
    bias = None if bias is None else bias[None]
    y = _run(seen, weight[None], bias, reverse, activation == "silu", impl)[0]
    if initial is not None:
        y = y[:, :steps] if reverse else y[:, memory:]
    return (y, _last_inputs(seen, memory, reverse)) if return_state else y


def bidirectional_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: Nonlinearity | None = None,
    impl: Implementation = "auto",
) -> Tensor:
    """Both directions of one input in one pass over it: the first filter looks back, the second ahead.

    x (B, L, D), weight (2, D, W), bias (2, D) -> (2, B, L, D).
    """
    if weight.shape[0] != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; two directions need (2, channels, taps)")
    _check(x, weight, bias, activation)
    return _run(x, weight, bias, False, activation == "silu", impl)


def causal_conv1d_step(
    state: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: Nonlinearity | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of a stream: x (B, D), state (B, W - 1, D) -> y (B, D) and the new state."""
    y, state = causal_conv1d(
        x[:, None], weight, bias, activation=activation, initial=state, return_state=True, impl="reference"
    )
    return y[:, 0], state


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    if x.ndim != 3 or weight.ndim != 3 or x.shape[2] != weight.shape[1] or weight.shape[2] < 1:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and weight {tuple(weight.shape)}; expected (batch, steps, "
            "channels) and (directions, channels, taps) with as many channels"
        )
    if bias is not None and bias.shape != weight.shape[:2]:
        raise ValueError(
            f"bias has shape {tuple(bias.shape)}; expected {tuple(weight.shape[:2])}, one number per filter"
        )
    if activation not in (None, "silu"):
        raise ValueError(f"activation {activation!r} is unknown; pass None or 'silu'")


def _last_inputs(seen: Tensor, memory: int, reverse: bool) -> Tensor:
    """The inputs walked over last, the oldest first; zeros stand for those before a short sequence."""
    walked = (
        seen[:, : min(memory, seen.shape[1])].flip(1)
        if reverse
        else seen[:, max(seen.shape[1] - memory, 0) :]
    )
    return F.pad(walked, (0, 0, memory - walked.shape[1], 0))


def _run(
    x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool, silu: bool, impl: Implementation
) -> Tensor:
    """x (B, L, D), weight (K, D, W), bias (K, D) for K directions; `reverse` is that of the first."""
    if impl == "reference":
        return _reference(x, weight, bias, reverse, silu)
    if impl == "native":
        problem = _not_native(x, weight)
        if problem:
            raise RuntimeError(f"the native causal_conv1d was asked for, but {problem}")
    if native_library.usable(x, weight, bias) and not _not_native(x, weight):
        return _native(x, weight, bias, reverse, silu)
    return torch.ops.framecast.causal_conv1d(x, weight, bias, reverse, silu)


def _not_native(x: Tensor, weight: Tensor) -> str:
    """Why the kernels cannot be used, or nothing."""
    library, reason = native_library.load()
    if library is None:
        return f"there are no native kernels: {reason}"
    if x.device.type != "cpu" or x.dtype == torch.float64:
        return f"x is {x.dtype} on {x.device.type}; they are made for float32 and smaller on the CPU"
    if weight.shape[2] > MOST_TAPS:
        return f"the convolution has {weight.shape[2]} taps; they are made for {MOST_TAPS} at most"
    return ""


# ------------------------------------------------------------------ the definition


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool, silu: bool) -> Tensor:
    y = _before_activation(x, weight, bias, reverse)
    return (F.silu(y) if silu else y).to(x.dtype)


def _before_activation(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    y = torch.stack([_one_direction(x, w, reverse != (d == 1)) for d, w in enumerate(weight.unbind())])
    return y if bias is None else y + bias[:, None, None].to(y.dtype)


def _one_direction(x: Tensor, weight: Tensor, reverse: bool) -> Tensor:
    """Σ_k w[:, k] x[l - (W - 1) + k], one term after the other."""
    weight = weight.to(_exact(x, weight))
    terms = [seen * tap for seen, tap in zip(_seen(x, weight, reverse), weight.unbind(1), strict=True)]
    return functools.reduce(torch.add, terms)


def _seen(x: Tensor, weight: Tensor, reverse: bool) -> list[Tensor]:
    """What each tap sees at every step: W times (B, L, D)."""
    steps, others = x.shape[1], weight.shape[1] - 1
    padded = F.pad(x.to(_exact(x, weight)), (0, 0, 0, others) if reverse else (0, 0, others, 0))
    first = range(others, -1, -1) if reverse else range(others + 1)
    return [padded[:, i : i + steps] for i in first]


def _exact(x: Tensor, weight: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)


def _reference_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, since torch records none inside an operator."""
    before = _before_activation(x, weight, bias, reverse)
    grad = grad.to(before.dtype)
    if silu:
        gate = before.sigmoid()
        grad = grad * gate * (1 + before * (1 - gate))
    grad_x, grad_weight = torch.zeros_like(before[0]), []
    for d, (g, w) in enumerate(zip(grad, weight, strict=True)):
        mirrored = reverse != (d == 1)
        grad_x = grad_x + _one_direction(g, w, not mirrored)
        grad_weight.append(torch.stack([(g * seen).sum((0, 1)) for seen in _seen(x, w, mirrored)], dim=1))
    return grad_x, torch.stack(grad_weight), grad.sum((1, 2))


# ------------------------------------------------------------------ operators that torch knows


@torch.library.custom_op("framecast::causal_conv1d", mutates_args=())
def _operator(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool, silu: bool) -> Tensor:
    if _not_native(x, weight):
        return _reference(x, weight, bias, reverse, silu)
    parts = x.float(), weight.float(), None if bias is None else bias.float()
    return _native(*parts, reverse, silu).to(x.dtype)


@_operator.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool, silu: bool) -> Tensor:
    return x.new_empty(weight.shape[0], *x.shape)


@torch.library.custom_op("framecast::causal_conv1d_backward", mutates_args=())
def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (without numbers where there is no bias), in their dtypes."""
    if _not_native(x, weight):
        grads = _reference_backward(grad, x, weight, bias, reverse, silu)
    else:
        parts = x.float(), weight.float(), None if bias is None else bias.float()
        grads = _native_backward(grad.float(), *parts, reverse, silu)
    grad_x, grad_weight = grads[0].to(x.dtype), grads[1].to(weight.dtype)
    return grad_x, grad_weight, weight.new_empty(0) if bias is None else grads[2].to(bias.dtype)


@_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(0) if bias is None else bias.new_empty(bias.shape),
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.reverse, ctx.silu = inputs
    ctx.save_for_backward(x, weight, bias)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    operator = torch.ops.framecast.causal_conv1d_backward
    grad_x, grad_weight, grad_bias = operator(grad, x, weight, bias, ctx.reverse, ctx.silu)
    return grad_x, grad_weight, None if bias is None else grad_bias, None, None


_operator.register_autograd(_differentiate, setup_context=_remember)


@register_flop_formula(torch.ops.framecast.causal_conv1d)
def _flops(x: Any, weight: Any, *args: Any, **kwargs: Any) -> int:
    """A multiplication and an addition per tap and output; activations are not counted, as elsewhere."""
    directions, channels, taps = weight
    return 2 * directions * x[0] * x[1] * channels * taps


@register_flop_formula(torch.ops.framecast.causal_conv1d_backward)
def _backward_flops(grad: Any, x: Any, weight: Any, *args: Any, **kwargs: Any) -> int:
    return 2 * _flops(x, weight)


# ------------------------------------------------------------------ the kernels


def _native(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool, silu: bool) -> Tensor:
    x, weight, bias, sizes = _prepared(x, weight, bias)
    out = native_library.empty(weight.shape[0], *x.shape)
    native_library.call("causal_conv1d", *_given(x, weight, bias), out.data_ptr(), *sizes, reverse, silu)
    return out


def _native_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, bias, sizes = _prepared(x, weight, bias)
    grad = grad.contiguous()
    grads = native_library.empty(*x.shape), torch.empty_like(weight), weight.new_empty(weight.shape[:2])
    native_library.call(
        "causal_conv1d_backward",
        *_given(x, weight, bias),
        grad.data_ptr(),
        *(g.data_ptr() for g in grads),
        *sizes,
        reverse,
        silu,
    )
    return grads


def _prepared(
    x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, tuple[int, ...]]:
    """Layouts that the kernels read, and items, length, channels, taps, directions."""
    x = x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()
    sizes = (*x.shape, weight.shape[2], weight.shape[0])
    return x, weight.contiguous(), None if bias is None else bias.contiguous(), sizes


def _given(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[int, ...]:
    """Addresses and distances as the kernels ask for them."""
    addresses = weight.data_ptr(), 0 if bias is None else bias.data_ptr()
    return x.data_ptr(), x.stride(0), x.stride(1), *addresses
