"""The selective scan's compiled kernels: how Python hands them tensors. float32 on the CPU.

Shapes as in `selective_scan_op`: S directions in front, z without them.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p
from math import prod

import numpy as np
import torch
from torch import Tensor

from framecast.ops import native_library

SLAB = 96  # channels that share one set of sums over channels; native/kernels.h has the same


class _Rows(ctypes.Structure):
    _fields_ = [("at", c_void_p), *((name, c_int64) for name in ("direction", "video", "row"))]


class _Scan(ctypes.Structure):
    """struct Scan of native/kernels.h, field by field."""

    _fields_ = [
        *((name, _Rows) for name in ("u", "delta", "z", "B", "C")),
        *((name, c_int64) for name in ("B_group", "C_group")),
        *((name, c_void_p) for name in ("A", "D", "delta_bias", "initial", "out", "last", "kept")),
        *((name, c_int64) for name in ("directions", "videos", "steps", "channels", "groups", "states")),
        *((name, c_int64) for name in ("softplus", "reverse", "fixed_B", "fixed_C")),
        ("grad_out", _Rows),
        *((name, c_void_p) for name in ("grad_last", "grad_u", "grad_delta", "grad_z")),
        *((name, c_void_p) for name in ("grad_A", "grad_D", "grad_bias", "grad_B", "grad_C", "grad_initial")),
    ]


class _Call:
    """A struct Scan and the tensors that it points to."""

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        delta_softplus: bool,
        reverse: bool,
    ) -> None:
        directions, batch, steps, channels = u.shape
        states = A.shape[-1]
        groups = next((x.shape[3] for x in (B, C) if x.dim() == 5), 1)
        self.owners: list[Tensor] = []
        u, delta, B, C = (self.side_by_side(x) for x in (u, delta, B, C))
        self.scan = _Scan(
            u=self.rows(u),
            delta=self.rows(delta),
            z=_Rows() if z is None else self.rows(self.side_by_side(z[None])),
            B=self.rows(B),
            C=self.rows(C),
            B_group=B.stride(3) if B.dim() == 5 else 0,
            C_group=C.stride(3) if C.dim() == 5 else 0,
            A=self.unbroken(A),
            D=self.unbroken(D),
            delta_bias=self.unbroken(delta_bias),
            directions=directions,
            videos=batch,
            steps=steps,
            channels=channels,
            groups=groups,
            states=states,
            softplus=delta_softplus,
            reverse=reverse,
            fixed_B=B.dim() == 3,
            fixed_C=C.dim() == 3,
        )

    def side_by_side(self, x: Tensor) -> Tensor:
        """(S, B, L, ...) whose last axis is unbroken; fixed weights (S, D, N) wholly."""
        if x.dim() == 3 or x.stride(-1) != 1:
            x = x.contiguous()
        self.owners.append(x)
        return x

    def rows(self, x: Tensor) -> _Rows:
        direction, *between = x.stride()
        video, row = between[:2] if len(between) > 2 else (0, 0)
        return _Rows(x.data_ptr(), direction, video, row)

    def unbroken(self, x: Tensor | None) -> int | None:
        if x is None:
            return None
        x = x.contiguous()
        self.owners.append(x)
        return x.data_ptr()

    def run(self, name: str) -> None:
        native_library.call(name, ctypes.byref(self.scan))


def forward(
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
    kept: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the last states (S, B, D, N); `kept` (S, B, chunks, N, D) is filled."""
    call = _Call(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    y = native_library.empty(*u.shape[1:])
    last = native_library.empty(*u.shape[:2], u.shape[3], A.shape[-1])
    call.scan.initial = call.unbroken(initial_state)
    call.scan.out, call.scan.last = y.data_ptr(), last.data_ptr()
    call.scan.kept = None if kept is None else kept.data_ptr()
    call.run("selective_scan")
    return y, last


def backward(
    grad_y: Tensor,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    kept: Tensor,
) -> list[Tensor | None]:
    """Gradients of u, delta, A, B, C, D, z, delta_bias and the initial state."""
    call = _Call(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    scan = call.scan
    directions, batch, steps, channels = u.shape
    states = A.shape[-1]
    per_video = (batch, directions, channels)
    shapes: dict[str, tuple[int, ...]] = {
        "grad_u": u.shape,
        "grad_delta": u.shape,
        "grad_A": (*per_video, states),
        "grad_D": per_video,
        "grad_bias": per_video,
        "grad_initial": (directions, batch, channels, states),
    }
    if z is not None:
        shapes["grad_z"] = z.shape
    slabs = scan.groups * (-(-(channels // scan.groups) // SLAB))
    for name, x in (("grad_B", B), ("grad_C", C)):
        fixed = x.dim() == 3
        shapes[name] = (*per_video, states) if fixed else (directions, batch, slabs, steps, states)
    grads = _side_by_side(shapes)
    for name, x in grads.items():
        setattr(scan, name, x.data_ptr())
    scan.kept = kept.data_ptr()
    scan.grad_out = call.rows(call.side_by_side(grad_y[None]))
    scan.grad_last = call.unbroken(grad_last)
    call.run("selective_scan_backward")

    def of_weight(name: str, fixed: bool) -> Tensor:
        if fixed:
            return grads[name].sum(0)
        sums = grads[name].unflatten(2, (scan.groups, -1)).sum(3)  # over the slabs of a group
        return sums.transpose(2, 3)  # (S, B, L, G, N)

    return [
        grads["grad_u"],
        grads["grad_delta"],
        grads["grad_A"].sum(0),
        of_weight("grad_B", B.dim() == 3),
        of_weight("grad_C", C.dim() == 3),
        None if D is None else grads["grad_D"].sum(0),
        grads.get("grad_z"),
        None if delta_bias is None else grads["grad_bias"].sum(0),
        grads["grad_initial"],
    ]


def _side_by_side(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Uninitialised tensors in one piece of memory.

    glibc gives several large pieces back to the system after each step of training, and clearing their pages
    anew in the next step takes a third of the time of the gradients.
    """
    sizes = [-(-prod(shape) // 16) * 16 for shape in shapes.values()]  # whole cache lines
    numbers = np.empty(sum(sizes), dtype=np.float32)
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    return {
        name: torch.from_numpy(part[: prod(shape)].reshape(shape))
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
