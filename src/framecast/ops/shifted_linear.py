"""A linear map of each frame and of frames a fixed distance away: pointwise maps and dilated convolutions.

Shapes: B batch, T frames, D width in, E width out, J taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_int64
from typing import Literal

from torch import Tensor

from framecast.ops import native_library
from framecast.ops.activation import CODES, Activation, activate


def shifted_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    shifts: Sequence[int] = (0,),
    activation: Activation | None = None,
    add: Tensor | None = None,
    impl: Literal["auto", "reference", "native"] = "auto",
) -> Tensor:
    """y[t] = activation(Σ_j W_j x[t + shift_j] + b) + add[t]; outside the video x is zero.

    x: (B, T, D); weight: (E, D, J), or (E, D) for a single tap; bias: (E,); add and the answer: (B, T, E).
    impl: "native" is the compiled kernel without gradients, "reference" its definition, "auto" chooses.
    """
    weight = weight.reshape(*weight.shape[:2], len(shifts))
    if impl == "auto":
        impl = "native" if native_library.usable(x, weight, bias, add) else "reference"
    run = _native if impl == "native" else _reference
    return run(x, weight, bias, shifts, activation, add)


def _reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shifts: Sequence[int],
    activation: Activation | None,
    add: Tensor | None,
) -> Tensor:
    """One matrix product per tap, added up in place."""
    videos, frames, _ = x.shape
    y = (x.new_zeros(weight.shape[0]) if bias is None else bias).repeat(videos, frames, 1)
    for tap, shift in zip(weight.permute(2, 1, 0).contiguous(), shifts, strict=True):  # tap: (D, E)
        if abs(shift) < frames:
            reached = y[:, max(-shift, 0) : frames - max(shift, 0)]
            reached.baddbmm_(x[:, max(shift, 0) : frames + min(shift, 0)], tap.expand(videos, -1, -1))
    y = activate(y, activation)
    return y if add is None else y + add


def _native(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shifts: Sequence[int],
    activation: Activation | None,
    add: Tensor | None,
) -> Tensor:
    (videos, frames, depth), width = x.shape, weight.shape[0]
    out = native_library.empty(videos, frames, width)
    x, weight = native_library.rows(x), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    add = None if add is None else native_library.rows(add)
    native_library.call(
        "shifted_linear",
        x.data_ptr(),
        x.stride(0),
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        0 if add is None else add.data_ptr(),
        0 if add is None else add.stride(0),
        out.data_ptr(),
        width,
        videos,
        frames,
        depth,
        width,
        len(shifts),
        (c_int64 * len(shifts))(*shifts),
        CODES[activation],
    )
    return out
