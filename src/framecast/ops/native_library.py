"""The compiled kernels: finding them, when they may run, and checking them on this machine.

`hatch_build.py` compiles `ops/native` at install time where a C++ compiler is. Without the library, and with
`FRAMECAST_NATIVE=0` in the environment, every operator takes its reference implementation;
`FRAMECAST_NATIVE=avx2` (or `portable`, `avx512`) asks for the kernels of one instruction set.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from framecast.ops import memory

PATH = Path(__file__).parent / "native" / "framecast_native.so"

empty = memory.empty  # for what the kernels write

_MATRIX = (c_void_p, c_int64)  # first number, distance between rows
_BATCH = (c_void_p, c_int64, c_int64)  # first number, distances between matrices and between rows
_SIGNATURES = {
    "framecast_instruction_set": (c_char_p, ()),
    "framecast_choose": (c_int, (c_char_p,)),
    "framecast_span_attention": (c_int, (*_MATRIX * 4, *(c_int64,) * 3, c_void_p, *(c_int64,) * 3)),
    "framecast_shifted_linear": (
        c_int,
        (*_MATRIX, c_void_p, c_void_p, *_MATRIX * 2, *(c_int64,) * 5, c_void_p, *(c_int64,) * 2),
    ),
    "framecast_gated_layer": (c_int, (*(c_void_p,) * 8, *(c_int64,) * 5)),
    "framecast_causal_conv1d": (c_int, (*_BATCH, *(c_void_p,) * 3, *(c_int64,) * 8)),
    "framecast_causal_conv1d_backward": (c_int, (*_BATCH, *(c_void_p,) * 6, *(c_int64,) * 8)),
    "framecast_selective_scan": (c_int, (c_void_p, c_int64)),
    "framecast_selective_scan_backward": (c_int, (c_void_p, c_int64)),
    "framecast_token_scores": (c_int, (c_void_p, *(c_int64,) * 2)),
    "framecast_sampled_tokens": (c_int, (c_void_p, *(c_int64,) * 2)),
    "framecast_exponentials": (c_int, (c_void_p, c_void_p, *(c_int64,) * 3)),
}


@cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and why there is none."""
    wanted = os.environ.get("FRAMECAST_NATIVE", "1")
    if wanted == "0":
        return None, "switched off by FRAMECAST_NATIVE=0"
    if not PATH.exists():
        return None, "not built, since no working C++ compiler was found when framecast was installed"
    try:
        library = ctypes.CDLL(str(PATH))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as problem:
        return None, f"not loaded ({problem}); install framecast again to rebuild it"
    if wanted != "1" and not library.framecast_choose(wanted.encode()):
        return None, f"FRAMECAST_NATIVE={wanted} names no instruction set of this library and processor"
    return library, ""


def available() -> str:
    """The instruction set that the kernels use here ("avx512", "avx2", "portable"), or why there are none."""
    library, reason = load()
    return f"none: {reason}" if library is None else library.framecast_instruction_set().decode()


def eager_inference() -> bool:
    """No gradients are recorded and nobody watches torch's operators.

    Those who watch are compilers, exporters, tracers, autocast, and dispatch modes such as FLOP counters.
    """
    return not (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch.is_autocast_enabled("cpu")
        or torch._C._len_torch_dispatch_stack() > 0
    )


def usable(*tensors: Tensor | None) -> bool:
    """Whether a kernel may take the place of torch's operators on these tensors: float32 on the CPU."""
    if not eager_inference() or load()[0] is None:
        return False
    for x in tensors:
        if x is None:
            continue
        if type(x) not in (Tensor, nn.Parameter) or x.dtype != torch.float32 or x.device.type != "cpu":
            return False
    return True


def call(name: str, *arguments: object) -> None:
    """Run a kernel on as many threads as torch uses; RuntimeError without the library."""
    library, reason = load()
    if library is None:
        raise RuntimeError(f"native kernels were asked for, but there are none: {reason}")
    status = getattr(library, f"framecast_{name}")(*arguments, torch.get_num_threads())
    if status == 1:
        raise ValueError("a span reaches outside the rows")
    if status:
        raise MemoryError(f"no memory left for {name}")


def rows(x: Tensor) -> Tensor:
    """(..., C) as (rows, C) whose rows are unbroken; a view where the layout allows it."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(1) == 1 else x.contiguous()


def check() -> list[tuple[str, float]]:
    """(kernel, largest error relative to the largest number of its reference), computed on this machine."""
    from framecast.ops.causal_conv1d import bidirectional_conv1d
    from framecast.ops.gated_layer import gated_layer
    from framecast.ops.selective_scan import bidirectional_scan
    from framecast.ops.shifted_linear import shifted_linear
    from framecast.ops.span_attention import span_attention

    generator = torch.Generator().manual_seed(0)
    q, k, v, x = (torch.randn(2, 300, 24, generator=generator) for _ in range(4))
    weight, bias = torch.randn(24, 24, 3, generator=generator), torch.randn(24, generator=generator)
    taps = torch.randn(2, 24, 4, generator=generator)
    wide, gates = torch.randn(2, 300, 32, generator=generator), torch.randn(64, 32, 3, generator=generator)
    mix, vectors = torch.randn(32, 32, generator=generator), torch.randn(5, 32, generator=generator)
    spans = torch.tensor([[0, 64, 0, 96, 1], [64, 146, 32, 156, 3], [65, 100, 200, 1, 2]])
    kernels: dict[str, Callable[..., Tensor]] = {
        "span_attention": lambda **impl: span_attention(q, k, v, spans, num_heads=2, **impl),
        "shifted_linear": lambda **impl: shifted_linear(
            x, weight, bias, shifts=(-5, 0, 5), activation="gelu", add=v, **impl
        ),
        "gated_layer": lambda **impl: gated_layer(
            wide, gates, vectors[:2].flatten(), mix, *vectors[2:], dilation=4, **impl
        ),
        "causal_conv1d": lambda **impl: bidirectional_conv1d(x, taps, activation="silu", **impl),
    }
    errors = []
    for name, kernel in kernels.items():
        with torch.no_grad():
            reference, native = kernel(impl="reference"), kernel(impl="native")
        errors.append((name, _difference(native, reference)))
    scanned = {impl: _scanned(bidirectional_scan, impl) for impl in ("reference", "native")}
    pairs = list(zip(scanned["native"], scanned["reference"], strict=True))
    errors.append(("selective_scan", _difference(*pairs[0])))
    errors.append(("selective_scan gradients", max(_difference(*pair) for pair in pairs[1:])))
    return errors


def _difference(native: Tensor, reference: Tensor) -> float:
    return float((native - reference).abs().max() / reference.abs().max())


def _scanned(scan: Callable[..., Tensor], impl: str) -> list[Tensor]:
    """The answer of a scan over a few chunks of steps, and its gradients."""
    generator = torch.Generator().manual_seed(0)
    wide, long = (2, 1, 100, 24), (2, 1, 100, 1, 16)
    shapes = (wide, wide, (2, 24, 16), long, long, (2, 24), wide[1:])  # u, delta, A, B, C, D, z
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    tensors[2] = -tensors[2].exp()
    with torch.enable_grad():
        y = scan(*(x.requires_grad_() for x in tensors), delta_softplus=True, impl=impl)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), tensors)]
