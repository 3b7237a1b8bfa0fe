"""Attention inside spans of rows: windows, residue classes, or whatever few pairs are worth attending.

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
    """activation(softmax(q k^T / sqrt(d)) v) of each span's queries over its keys.

    q, k, v and the answer: (B, T, H * d).

    spans: int64 (n, 5) on the CPU, a row each: first query, number of queries, first key, number of keys, and the
    step from one to the next. Frames count through the batch: frame t of video b is b * T + t.
    out: filled in place where given; frames that are nobody's query keep what it holds. Without it they are zero.
    impl: "native" is the compiled kernel without gradients, "reference" its definition, "auto" chooses.
    A span that reaches outside the batch raises ValueError.
    """
    if impl == "auto":
        impl = "native" if native_library.usable(q, k, v, out) else "reference"
    answer = torch.zeros_like(q, memory_format=torch.contiguous_format) if out is None else out
    if impl == "reference":
        return _reference(q, k, v, spans, num_heads, activation, answer)
    q_rows, k_rows, v_rows, spans = *map(native_library.rows, (q, k, v)), spans.contiguous()
    out_rows = answer.view(-1, answer.shape[-1])
    native_library.call(
        "span_attention",
        *(number for x in (q_rows, k_rows, v_rows, out_rows) for number in (x.data_ptr(), x.stride(0))),
        len(q_rows),
        num_heads,
        q.shape[-1] // num_heads,
        spans.data_ptr(),
        len(spans),
        CODES[activation],
    )
    return answer


def _reference(
    q: Tensor, k: Tensor, v: Tensor, spans: Tensor, num_heads: int, activation: Activation | None, out: Tensor
) -> Tensor:
    q, k, v = (rearrange(x, "b t (h d) -> h (b t) d", h=num_heads) for x in (q, k, v))
    rows = out.view(-1, out.shape[-1])
    for first_query, queries, first_key, keys, step in spans.tolist():
        asking = slice(first_query, first_query + queries * step, step)
        seen = slice(first_key, first_key + keys * step, step)
        if min(first_query, first_key) < 0 or max(asking.stop, seen.stop) - step >= len(rows):
            raise ValueError("a span reaches outside the rows")
        context = F.scaled_dot_product_attention(q[:, asking], k[:, seen], v[:, seen])
        rows[asking] = activate(rearrange(context, "h n d -> n (h d)"), activation)
    return out
