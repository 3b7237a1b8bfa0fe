"""Sequences of different lengths, row after row in one matrix, and attention between them.

Linear maps, norms and MLPs read such a matrix as it is; nothing is computed for padding. Lengths are known to
the host, so that a stage that shortens sequences costs one transfer from the device.
Shapes: U sequences, R rows of all of them, D width, H heads.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from framecast.ops import native_library
from framecast.ops.span_attention import span_attention

try:
    from torch.nn.attention import varlen
except ImportError:  # older torch
    varlen = None

Kernel = Literal["auto", "native", "variable", "each", "padded"]
# With one split of the keys an answer does not depend on the other sequences; older torch has no such choice.
VARIABLE = varlen is not None and "num_splits" in inspect.signature(varlen.varlen_attn).parameters


class Ragged:
    """Where each of U sequences lies among the rows."""

    def __init__(self, counts: list[int], device: torch.device) -> None:
        self.counts, self.device = counts, device
        self.longest = max(counts, default=0)
        self.rows = sum(counts)
        self.uniform = self.rows == self.longest * len(counts)

    @cached_property
    def firsts(self) -> list[int]:
        return list(accumulate(self.counts, initial=0))[:-1]

    @cached_property
    def first_rows(self) -> Tensor:  # (U,)
        if self.uniform:
            return torch.arange(0, self.rows, max(self.longest, 1), device=self.device)
        return torch.tensor(self.firsts, device=self.device)

    @cached_property
    def lengths(self) -> Tensor:  # (U,)
        return torch.tensor(self.counts, device=self.device)

    @cached_property
    def taken(self) -> Tensor:
        """(U, longest) bool: the slots that hold a row."""
        return torch.arange(self.longest, device=self.device) < self.lengths[:, None]

    @cached_property
    def owners(self) -> Tensor:
        """(R,) the sequence of each row."""
        units = torch.arange(len(self.counts), device=self.device)
        return units.repeat_interleave(self.lengths, output_size=self.rows)

    def pad(self, x: Tensor, fill: float) -> Tensor:
        """Rows (R, …) to slots (U, longest, …)."""
        if self.uniform:
            return x.unflatten(0, (len(self.counts), self.longest))
        slots = x.new_full((len(self.counts), self.longest, *x.shape[1:]), fill)
        where = self.taken.reshape(*self.taken.shape, *[1] * (x.ndim - 1)).expand_as(slots)
        return slots.masked_scatter(where, x)

    def spread(self, x: Tensor) -> Tensor:
        """One vector of each sequence (U, …) to all of its rows (R, …)."""
        if self.uniform:
            return x[:, None].expand(-1, self.longest, *x.shape[1:]).flatten(0, 1)
        return x[self.owners]

    def pick(self, slots: Tensor, kept: Tensor, front: int) -> tuple[Tensor, Ragged]:
        """Rows (R',) of the first so many slots and of the kept ones in their order, and how they lie then.

        slots, kept: (U, M) a slot behind the front each, and whether it is kept. The one wait for the device.
        """
        always = torch.arange(front, device=self.device)
        if len(self.counts) == 1 and not kept.is_cuda:
            rows = torch.cat([always, slots[kept] + front])
            return rows, Ragged([rows.shape[0]], self.device)
        slots = torch.cat([always.expand(len(self.counts), -1), slots + front], dim=1)
        kept = F.pad(kept, (front, 0), value=True)
        smaller = Ragged(kept.sum(-1).tolist(), self.device)
        rows = slots + self.first_rows[:, None]
        if not kept.is_cuda:
            return rows[kept], smaller
        return rows.flatten()[torch.nonzero_static(kept.flatten(), size=smaller.rows)[:, 0]], smaller

    def front(self, width: int) -> tuple[Tensor, Ragged]:
        """Rows (U * width,) of the first so many of each sequence."""
        rows = self.first_rows[:, None] + torch.arange(width, device=self.device)
        return rows.flatten(), Ragged([width] * len(self.counts), self.device)


def ragged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    asking: Ragged,
    answering: Ragged,
    num_heads: int,
    *,
    dropout: float = 0.0,
    kernel: Kernel = "auto",
) -> Tensor:
    """Every sequence's queries over its own keys: q (R', D), k and v (R, D), heads side by side -> (R', D).

    kernel: "native" is ours for CPUs without gradients, "variable" flash attention on GPUs in half precision,
    "each" torch's fused attention sequence by sequence, "padded" the same in one call with a mask.
    """
    if kernel == "auto":
        kernel = _best_kernel(q, k, v, dropout)
    if kernel == "native":
        return _native(q, k, v, asking, answering, num_heads)
    if kernel == "variable":
        return _variable(q, k, v, asking, answering, num_heads)
    if asking.uniform and answering.uniform:
        return asking_rows(_fused(*_heads(q, k, v, asking, answering, num_heads), None, dropout))
    if kernel == "padded":
        slots = _heads(q, k, v, asking, answering, num_heads)
        return asking_rows(_fused(*slots, answering.taken[:, None, None], dropout))[asking.taken.flatten()]
    parts = zip(*(x.split(r.counts) for x, r in ((q, asking), (k, answering), (v, answering))), strict=True)
    return torch.cat([_alone(*part, num_heads, dropout) for part in parts])


def _best_kernel(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Kernel:
    if q.device.type == "cpu":
        return "native" if not dropout and native_library.usable(q, k, v) else "each"
    half = q.is_cuda and q.dtype in (torch.float16, torch.bfloat16)
    return "variable" if VARIABLE and half and not dropout else "padded"


def asking_rows(x: Tensor) -> Tensor:  # (U, H, slots, d) -> (U * slots, D)
    return rearrange(x, "u h n d -> (u n) (h d)")


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def _heads(
    q: Tensor, k: Tensor, v: Tensor, asking: Ragged, answering: Ragged, num_heads: int
) -> tuple[Tensor, ...]:
    pairs = ((q, asking), (k, answering), (v, answering))
    return tuple(rearrange(r.pad(x, 0.0), "u n (h d) -> u h n d", h=num_heads) for x, r in pairs)


def _alone(q: Tensor, k: Tensor, v: Tensor, num_heads: int, dropout: float) -> Tensor:
    q, k, v = (rearrange(x, "n (h d) -> 1 h n d", h=num_heads) for x in (q, k, v))
    return asking_rows(_fused(q, k, v, None, dropout))


def _native(q: Tensor, k: Tensor, v: Tensor, asking: Ragged, answering: Ragged, num_heads: int) -> Tensor:
    rows, width = max(q.shape[0], k.shape[0]), q.shape[1]
    if q.shape[0] < rows:  # the kernel counts rows of queries and keys alike
        longer = native_library.empty(rows, width)
        longer[: q.shape[0]] = q
        q = longer
    elif k.shape[0] < rows:
        k, v = (F.pad(x, (0, 0, 0, rows - x.shape[0])) for x in (k, v))
    columns = (asking.firsts, asking.counts, answering.firsts, answering.counts)
    spans = torch.tensor([(*span, 1) for span in zip(*columns, strict=True)], dtype=torch.int64)
    out = native_library.empty(rows, width)
    span_attention(q, k, v, spans, num_heads=num_heads, out=out, impl="native")
    return out[: asking.rows]


def _variable(q: Tensor, k: Tensor, v: Tensor, asking: Ragged, answering: Ragged, num_heads: int) -> Tensor:
    q, k, v = (rearrange(x, "n (h d) -> n h d", h=num_heads) for x in (q, k, v))
    edges = [F.pad(r.lengths.cumsum(0), (1, 0)).int() for r in (asking, answering)]
    assert varlen is not None
    x: Any = varlen.varlen_attn(q, k, v, *edges, asking.longest, answering.longest, num_splits=1)
    return rearrange(x, "n h d -> n (h d)")
