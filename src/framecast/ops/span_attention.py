"""Attention inside spans of frames: windows, residue classes, or whatever few pairs are worth attending.

Shapes: B batch, T frames, H heads, d width of a head, n spans.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from framecast.ops import native_library
from framecast.ops.activation import CODES, Activation, activate


def span_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spans: Tensor,
    *,
    num_heads: int,
    activation: Activation | None = None,
    out: Tensor | None = None,
    impl: Literal["auto", "reference", "native"] = "auto",
) -> Tensor:
    """activation(softmax(q kᵀ / √d) v), each span's queries over its keys.

    q, k, v and the answer: (B, T, H * d).
    spans: int64 (n, 5) on the CPU; first query, number of queries, first key, number of keys (at least one),
    and the step from one to the next. Frame t of video b has the number b * T + t.
    out: contiguous, filled in place; frames that are nobody's query keep what it holds, without it 0.
    impl: "native" is the compiled kernel without gradients, "reference" its definition, "auto" chooses.
    A span that reaches outside the batch raises ValueError.
    """
    if impl == "auto":
        impl = "native" if native_library.usable(q, k, v, out) else "reference"
    if out is None:
        out = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
    attend = _native if impl == "native" else _reference
    attend(*map(native_library.rows, (q, k, v)), spans, num_heads, activation, out.view(-1, out.shape[-1]))
    return out


def _reference(
    q: Tensor, k: Tensor, v: Tensor, spans: Tensor, num_heads: int, activation: Activation | None, out: Tensor
) -> None:
    q, k, v = (rearrange(x, "t (h d) -> h t d", h=num_heads) for x in (q, k, v))
    for first_query, queries, first_key, keys, step in spans.tolist():
        asking = slice(first_query, first_query + queries * step, step)
        seen = slice(first_key, first_key + keys * step, step)
        if keys < 1 or min(first_query, first_key) < 0 or max(asking.stop, seen.stop) - step >= len(out):
            raise ValueError("a span reaches outside the rows")
        context = F.scaled_dot_product_attention(q[:, asking], k[:, seen], v[:, seen])
        out[asking] = activate(rearrange(context, "h n d -> n (h d)"), activation)


def _native(
    q: Tensor, k: Tensor, v: Tensor, spans: Tensor, num_heads: int, activation: Activation | None, out: Tensor
) -> None:
    spans = spans.contiguous()
    native_library.call(
        "span_attention",
        *(number for x in (q, k, v, out) for number in (x.data_ptr(), x.stride(0))),
        out.shape[0],
        num_heads,
        out.shape[1] // num_heads,
        spans.data_ptr(),
        spans.shape[0],
        CODES[activation],
    )
