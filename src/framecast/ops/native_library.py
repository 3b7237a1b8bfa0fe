"""The compiled kernels: finding them, when they may run, and checking them on this machine.

`hatch_build.py` compiles `ops/native` at install time where a C++ compiler is. Without the library, and with
`FRAMECAST_NATIVE=0` in the environment, every operator takes its reference implementation.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import c_char_p, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

PATH = Path(__file__).parent / "native" / "framecast_native.so"

_SIGNATURES: dict[str, tuple[type | None, Sequence[type]]] = {
    "framecast_instruction_set": (c_char_p, ()),
    "framecast_span_attention": (
        c_int,
        (*(c_void_p, c_int64) * 4, *(c_int64,) * 3, c_void_p, *(c_int64,) * 3),
    ),
    "framecast_shifted_linear": (
        c_int,
        (c_void_p, c_int64, *(c_void_p,) * 3, c_int64, c_void_p, *(c_int64,) * 6, c_void_p, *(c_int64,) * 2),
    ),
}
_PROBLEMS = {
    1: ValueError("a span reaches outside the rows"),
    2: MemoryError("no memory for a kernel's scratch"),
}


@cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and why there is none."""
    if os.environ.get("FRAMECAST_NATIVE", "1") == "0":
        return None, "switched off by FRAMECAST_NATIVE=0"
    if not PATH.exists():
        return None, "not built: no C++ compiler was found when framecast was installed"
    try:
        library = ctypes.CDLL(str(PATH))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, list(arguments)
    except (OSError, AttributeError) as problem:
        return None, f"not loaded: {problem}; install framecast again to rebuild it"
    return library, ""


def available() -> str:
    """The instruction set that the kernels run with, such as "avx512", or "none" and the reason."""
    library, reason = load()
    return f"none ({reason})" if library is None else library.framecast_instruction_set().decode()


def usable(*tensors: Tensor | None) -> bool:
    """Whether a kernel may take the place of torch's operators here: plain float32 on the CPU, and nobody watching.

    Gradients, compilers, tracers, autocast and dispatch modes (which count FLOPs, say) need torch's own operators.
    """
    return (
        not torch.is_grad_enabled()
        and load()[0] is not None
        and all(
            t is None
            or (type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 and t.device.type == "cpu")
            for t in tensors
        )
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._len_torch_dispatch_stack() == 0
    )


def call(name: str, *arguments: int | float) -> None:
    """Run a kernel on as many threads as torch uses; raises what the kernel reports."""
    library, reason = load()
    if library is None:
        raise RuntimeError(f"native kernels are asked for, but there are none: {reason}")
    status = getattr(library, f"framecast_{name}")(*arguments, torch.get_num_threads())
    if status:
        raise _PROBLEMS[status]


def rows(x: Tensor) -> Tensor:
    """(..., C) as (rows, C) whose rows are unbroken; a view where the layout allows it."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(1) == 1 else x.contiguous()


def check() -> list[tuple[str, float]]:
    """(kernel, largest error relative to the largest number of its reference), computed on this machine."""
    from framecast.ops.shifted_linear import shifted_linear
    from framecast.ops.span_attention import span_attention

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def error(run) -> float:
        with torch.no_grad():
            reference, native = run("reference"), run("native")
        return float((native - reference).abs().max() / reference.abs().max())

    q, k, v = random(1, 500, 32), random(1, 500, 32), random(1, 500, 32)
    spans = torch.tensor([[0, 64, 0, 96, 1], [64, 146, 32, 156, 3], [65, 100, 200, 1, 2]])
    x, weight, bias, add = random(2, 300, 20), random(24, 20, 3), random(24), random(2, 300, 24)
    return [
        ("span_attention", error(lambda impl: span_attention(q, k, v, spans, num_heads=2, impl=impl))),
        (
            "shifted_linear",
            error(
                lambda impl: shifted_linear(
                    x, weight, bias, shifts=(-5, 0, 5), activation="gelu", add=add, impl=impl
                )
            ),
        ),
    ]
