"""Scoring and sampling of tokens on a CPU in two calls, since many steps on small tensors take long.

`nn/token_sampling.py` is the definition.
Shapes: R rows of U sequences, P rows in front of each that are no patches, M slots of patches, D width.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from framecast.ops import native_library


class _Scores(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("key", "value", "query")),
        *((name, c_int64) for name in ("key_row", "value_row", "heads", "width", "prefix", "slots")),
        *((name, c_void_p) for name in ("first", "count", "scores")),
    )


class _Choice(ctypes.Structure):
    _fields_ = (
        ("scores", c_void_p),
        *((name, c_int64) for name in ("slots", "prefix", "points", "paper")),
        *((name, c_void_p) for name in ("first", "from_zero", "rows", "kept")),
    )


def token_scores(
    q: Tensor, k: Tensor, v: Tensor, firsts: list[int], counts: list[int], prefix: int, num_heads: int
) -> Tensor:
    """Shares (U, M) of the patches, -1 where there is none.

    q: (U, D) of the class tokens, scaled; k and v: (R, D), heads side by side. firsts and counts: first row
    and number of rows of each sequence, whose first row is its class token.
    """
    q, (k, v) = q.contiguous(), map(native_library.rows, (k, v))
    slots, numbers = max(counts) - prefix, c_int64 * len(counts)
    scores = torch.empty(len(counts), slots)
    first, count = numbers(*firsts), numbers(*counts)
    width = q.shape[1] // num_heads
    pointers = (x.data_ptr() for x in (k, v, q))
    sizes = (k.stride(0), v.stride(0), num_heads, width, prefix, slots)
    places = (ctypes.addressof(first), ctypes.addressof(count), scores.data_ptr())
    native_library.call("token_scores", ctypes.byref(_Scores(*pointers, *sizes, *places)), len(counts))
    return scores


def sampled_tokens(
    scores: Tensor,
    firsts: list[int],
    prefix: int,
    num_points: int,
    *,
    paper: bool = False,
    from_zero: list[bool] | None = None,
) -> tuple[Tensor, list[int]]:
    """Rows that stay, sequence after sequence the first P and the sampled ones, and how many of each."""
    units, slots = scores.shape
    numbers = c_int64 * units
    rows, kept, first = torch.empty(units * (prefix + slots), dtype=torch.int64), numbers(), numbers(*firsts)
    flags = None if from_zero is None else numbers(*from_zero)
    scores = scores.contiguous()
    choice = _Choice(
        scores.data_ptr(),
        *(slots, prefix, num_points, paper),
        ctypes.addressof(first),
        None if flags is None else ctypes.addressof(flags),
        rows.data_ptr(),
        ctypes.addressof(kept),
    )
    native_library.call("sampled_tokens", ctypes.byref(choice), units)
    counts = list(kept)
    return rows[: sum(counts)], counts
