"""A gated layer of a temporal network at inference: dilated convolution, gate, mixing, residual, in one pass.

Shapes: B batch, T frames, F width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from framecast.ops import native_library

PANEL = 32  # the kernel takes widths that are multiples


def gated_layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mix: Tensor,
    mix_bias: Tensor,
    factor: Tensor,
    shift: Tensor,
    *,
    dilation: int,
    impl: Literal["auto", "reference", "native"] = "auto",
) -> Tensor:
    """x + shift + factor · ReLU(mix (value · σ(gate)) + mix_bias); value and gate are a convolution of x.

    x and the answer: (B, T, F); weight: (2 F, F, K) and bias: (2 F,) of the value, then of the gate, with
    taps `dilation` frames apart and zeros outside the video; mix: (F, F); the others: (F,).
    impl: "native" is the compiled kernel of three taps, "reference" its definition, "auto" chooses.
    """
    vectors = bias, mix_bias, factor, shift
    if impl == "auto":
        fits = weight.shape[2] == 3 and x.shape[2] % PANEL == 0
        impl = "native" if fits and native_library.usable(x, weight, mix, *vectors) else "reference"
    if impl == "reference":
        padding = dilation * (weight.shape[2] // 2)
        y = F.conv1d(x.mT, weight, bias, padding=padding, dilation=dilation).mT
        value, gate = y.chunk(2, dim=-1)
        mixed = F.relu(F.linear(value * gate.sigmoid(), mix, mix_bias))
        return torch.addcmul(x + shift, mixed, factor)
    videos, frames, width = x.shape
    if weight.shape != (2 * width, width, 3) or width % PANEL:
        raise ValueError(
            f"the native gated layer has three taps and a width that is a multiple of {PANEL}; this one has "
            f"a weight of {tuple(weight.shape)} for {width} channels"
        )
    out = native_library.empty(*x.shape)
    owned = [t.contiguous() for t in (x, weight, bias, mix, mix_bias, factor, shift)]
    addresses = [t.data_ptr() for t in owned]
    native_library.call("gated_layer", *addresses, out.data_ptr(), videos, frames, width, dilation)
    return out
