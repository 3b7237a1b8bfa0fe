"""The selective scan as an operator of torch: which implementation runs, gradients, shapes, and costs.

`torch.compile`, `torch.export`, FLOP counters and autograd see one operator and one for its gradients. Every
tensor but z has the directions in front: S = 1, or S = 2 whose second one walks from the end; the answers of
the directions are added before the gate.
"""

from __future__ import annotations

import math
import os
import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from framecast.ops import native_library, selective_scan_native
from framecast.ops import selective_scan_chunked as chunked
from framecast.ops.selective_scan_reference import compute_dtype

Implementation = Literal["auto", "reference", "chunked", "native", "triton"]


def run(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the last states (S, B, D, N)."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    if native_library.eager_inference():  # what torch adds around an operator takes longer than a short scan
        return _forward(*tensors, delta_softplus, reverse, False, impl)[:2]
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    return operator(*tensors, delta_softplus, reverse, keep, impl)[:2]


def choose(impl: str, u: Tensor) -> str:
    """What "auto" means for this u; RuntimeError where the implementation asked for cannot run."""
    if impl == "native":
        problem = _not_native(u)
        if problem:
            raise RuntimeError(f"the native selective scan was asked for, but {problem}")
    if impl == "triton":
        problem = _not_triton(u)
        if problem:
            raise RuntimeError(f"the Triton selective scan was asked for, but {problem}")
    if impl != "auto":
        return impl
    if u.device.type == "cuda" and not _not_triton(u):
        return "triton"
    if not _not_native(u):
        return "native"
    if u.device.type == "cpu" and u.dtype != torch.float64:
        _say_once()
    return "chunked"


def _not_native(u: Tensor) -> str:
    """Why the compiled kernels cannot run, or nothing."""
    library, reason = native_library.load()
    if library is None:
        return f"there are no native kernels: {reason}"
    if u.device.type != "cpu" or u.dtype == torch.float64:
        return f"u is {u.dtype} on {u.device.type}; they are made for float32 and smaller on the CPU"
    return ""


def _not_triton(u: Tensor) -> str:
    """Why the Triton kernels cannot run, or nothing."""
    if u.dtype == torch.float64:
        return "u is float64 and they compute in float32"
    if u.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"u is on the {u.device.type}; move it to a GPU"
    if find_spec("triton") is None:
        return "triton is not installed"
    return ""


def _triton() -> Any:
    """Loaded only where it runs: triton takes a second and is not everywhere."""
    from framecast.ops import selective_scan_triton

    return selective_scan_triton


@cache
def _say_once() -> None:
    reason = native_library.load()[1]
    if "FRAMECAST_NATIVE=0" not in reason:  # who switched them off knows
        said = f"selective scans take the PyTorch path, about ten times slower: native kernels are {reason}"
        warnings.warn(said, RuntimeWarning, stacklevel=2)


def _directions(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> list[chunked.Walk]:
    return [
        chunked.Walk(
            u=u[s],
            delta=delta[s],
            A=A[s],
            B=B[s],
            C=C[s],
            D=None if D is None else D[s],
            delta_bias=None if delta_bias is None else delta_bias[s],
            delta_softplus=delta_softplus,
            reverse=reverse if s == 0 else True,
        )
        for s in range(len(u))
    ]


def _kept_shape(u: Tensor, A: Tensor, keep: bool, impl: str) -> tuple[int, ...]:
    """States before each chunk that the backward pass begins with; the operator gives them flattened."""
    if not keep:
        return (0,)
    if choose(impl, u) == "triton":
        return _triton().kept_shape(u, A)
    directions, batch, steps, channels = u.shape
    return directions, batch, (steps + chunked.CHUNK - 1) // chunked.CHUNK, A.shape[-1], channels


def _forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype, answer_dtype = compute_dtype(u), u.dtype
    impl = choose(impl, u)
    if impl == "triton":
        y, last, kept = _triton().scan(
            u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, reverse
        )
        return y, last, kept.flatten() if keep else kept.new_empty(0)
    kept = torch.empty(_kept_shape(u, A, keep, impl), dtype=dtype, device=u.device)
    given: Any = tuple(
        x if x is None or x.dtype == dtype else x.to(dtype)
        for x in (u, delta, A, B, C, D, z, delta_bias, initial_state)
    )
    if impl == "native":
        y, last = selective_scan_native.forward(*given, delta_softplus, reverse, kept if keep else None)
        return y.to(answer_dtype), last, kept.flatten()
    u, delta, A, B, C, D, z, delta_bias, initial_state = given
    with torch.autocast(u.device.type, enabled=False):
        walks = _directions(u, delta, A, B, C, D, delta_bias, delta_softplus, reverse)
        answers = [
            chunked.forward(
                walk, None if initial_state is None else initial_state[s], kept[s] if keep else None
            )
            for s, walk in enumerate(walks)
        ]
        y = answers[0][0] if len(answers) == 1 else answers[0][0].add_(answers[1][0])
        if z is not None:
            y = y * F.silu(z)
    return y.to(answer_dtype), torch.stack([last for _, last in answers]), kept.flatten()


def _backward(
    grad_y: Tensor | None,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    kept: Tensor,
    delta_softplus: bool,
    reverse: bool,
    impl: str,
) -> list[Tensor]:
    """Gradients of u, delta, A, B, C, D, z, delta_bias and initial_state; empty ones of what is None."""
    given = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    impl = choose(impl, u)
    kept = kept.view(_kept_shape(u, A, True, impl))
    if grad_y is None:
        grad_y = u.new_zeros(u.shape[1:])
    if impl == "triton":
        found = _triton().scan_backward(
            grad_y, grad_last, u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, kept
        )
    else:
        dtype = compute_dtype(u)
        grad_y, u, delta, A, B, C, kept = (x.to(dtype) for x in (grad_y, u, delta, A, B, C, kept))
        grad_last, D, z, delta_bias, initial_state = (
            None if x is None else x.to(dtype) for x in (grad_last, D, z, delta_bias, initial_state)
        )
        if impl == "native":
            found = selective_scan_native.backward(
                grad_y, grad_last, u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, kept
            )
        else:
            with torch.autocast(u.device.type, enabled=False):
                walks = _directions(u, delta, A, B, C, D, delta_bias, delta_softplus, reverse)
                found = _chunked_backward(walks, grad_y, grad_last, z, kept)
    return [
        torch.empty(0, device=u.device) if x is None or gradient is None else gradient.to(x.dtype)
        for x, gradient in zip(given, found, strict=True)
    ]


def _chunked_backward(
    walks: list[chunked.Walk], grad_y: Tensor, grad_last: Tensor | None, z: Tensor | None, kept: Tensor
) -> list[Any]:
    ungated = grad_y if z is None else grad_y * F.silu(z)
    parts = [
        chunked.backward(walk, kept[s], ungated, None if grad_last is None else grad_last[s])
        for s, walk in enumerate(walks)
    ]
    grad_z = None
    if z is not None:
        sigmoid = torch.sigmoid(z)
        y = parts[0].y if len(parts) == 1 else parts[0].y + parts[1].y
        grad_z = grad_y * y * sigmoid * (1 + z * (1 - sigmoid))

    def stacked(name: str) -> Tensor | None:
        gradients = [getattr(part, name) for part in parts]
        return None if gradients[0] is None else torch.stack(gradients)

    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
    return [grad_z if name == "z" else stacked(name) for name in names]


operator = torch.library.custom_op("framecast::selective_scan", _forward, mutates_args=())
backward_operator = torch.library.custom_op("framecast::selective_scan_backward", _backward, mutates_args=())


@operator.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    keep, impl = rest[-2:]
    dtype = compute_dtype(u)
    last = u.new_empty(*u.shape[:2], u.shape[3], A.shape[-1], dtype=dtype)
    kept = u.new_empty(math.prod(_kept_shape(u, A, keep, impl)), dtype=dtype)
    return u.new_empty(u.shape[1:]), last, kept


@backward_operator.register_fake
def _(grad_y: Tensor | None, grad_last: Tensor | None, *rest: Any) -> list[Tensor]:
    return [rest[0].new_empty(0) if x is None else x.new_empty(x.shape) for x in rest[:9]]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:9], output[2])
    ctx.delta_softplus, ctx.reverse, ctx.keep, ctx.impl = inputs[9:]
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, _: Any) -> tuple[Any, ...]:
    if not ctx.keep:
        raise RuntimeError("a selective scan that kept no states was asked for gradients")
    inputs, kept = ctx.saved_tensors[:9], ctx.saved_tensors[9]
    gradients = backward_operator(grad_y, grad_last, *inputs, kept, ctx.delta_softplus, ctx.reverse, ctx.impl)
    found = (None if x is None else gradient for x, gradient in zip(inputs, gradients, strict=True))
    return (*found, None, None, None, None)


operator.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.framecast.selective_scan)
def _flops(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, *rest: Any, **kwargs: Any) -> int:
    """9 per state, the usual count: t A, an exponential, t u B, two multiply-adds, and rounded up."""
    channels = _product(u)
    return 9 * channels * A[-1] + (2 * channels if D else 0) + (_product(z) if z else 0)


@register_flop_formula(torch.ops.framecast.selective_scan_backward)
def _backward_flops(
    grad_y: Any, grad_last: Any, u: Any, delta: Any, A: Any, *rest: Any, **kwargs: Any
) -> int:
    """The states again, and per state 14 for the way back."""
    return (9 + 14) * _product(u) * A[-1]


def _product(shape: Any) -> int:
    return int(torch.Size(shape).numel())
