"""Attention over long sequences in two cheap patterns: local windows, and every G-th frame.

Both take projected queries, keys and values (B, T, H * d) and give (B, T, H * d). Where a mask is given,
sequences are padded and masked exactly as the equations say. Where every frame is valid the same pairs are
attended with neither padding nor masks: at inference as spans (`ops.span_attention`), else by torch.
Shapes: B batch, T frames, H heads, d width of a head, W window, G stride, n windows or frames of a class.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from framecast.ops import native_library
from framecast.ops.activation import Activation, activate
from framecast.ops.span_attention import span_attention


def windowed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    num_heads: int,
    window: int,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    activation: Activation | None = None,
) -> Tensor:
    """Frames of window j, [jW, (j+1)W), see the keys of [jW - W/2, jW + 3W/2).

    mask: (B, T), True = valid, None = all valid. Frames that see no valid key give zeros.
    activation: of the answer. An odd window raises ValueError.
    """
    if window % 2:
        raise ValueError(f"window must be even, since half of it reaches to either side; got {window}")
    if mask is None and not dropout and native_library.usable(q, k, v):
        return _in_spans(q, k, v, _window_spans(*q.shape[:2], window), num_heads, activation)
    if mask is None:
        context = _windowed(q, k, v, num_heads, window, dropout)
    else:
        context = _windowed_masked(q, k, v, num_heads, window, mask, dropout)
    return activate(context, activation)


def _in_spans(
    q: Tensor, k: Tensor, v: Tensor, spans: Tensor, num_heads: int, activation: Activation | None
) -> Tensor:
    """Spans that hold every frame's query once, so that nothing of the answer needs to be set before."""
    out = native_library.empty(*q.shape)
    return span_attention(q, k, v, spans, num_heads=num_heads, activation=activation, out=out)


@lru_cache(maxsize=16)
def _window_spans(videos: int, frames: int, window: int) -> Tensor:
    """(n, 5) rows of `span_attention`."""
    spans = []
    for start in range(0, videos * frames, frames):
        for t in range(0, frames, window):
            first, stop = max(t - window // 2, 0), min(t + 3 * window // 2, frames)
            spans.append((start + t, min(window, frames - t), start + first, stop - first, 1))
    return torch.tensor(spans, dtype=torch.int64).view(-1, 5)


def _windowed(q: Tensor, k: Tensor, v: Tensor, num_heads: int, window: int, dropout: float) -> Tensor:
    frames, half = q.shape[1], window // 2
    last = -(-frames // window)  # windows in all
    # Windows 1 .. inner_stop - 1 have all their keys inside the video: one call on strided views.
    inner_stop = max(1, min(last, (frames - half) // window))
    parts = [_border_window(q, k, v, 0, num_heads, window, dropout)]
    if inner_stop > 1:
        parts.append(_inner_windows(q, k, v, inner_stop, num_heads, window, dropout))
    parts += [_border_window(q, k, v, j, num_heads, window, dropout) for j in range(inner_stop, last)]
    return torch.cat(parts, dim=1)


def _border_window(
    q: Tensor, k: Tensor, v: Tensor, j: int, num_heads: int, window: int, dropout: float
) -> Tensor:
    """A window at either end of the video sees only the keys that exist."""
    queries = slice(j * window, (j + 1) * window)
    keys = slice(max(j * window - window // 2, 0), j * window + 3 * window // 2)
    q, k, v = (
        rearrange(x, "b t (h d) -> b h t d", h=num_heads) for x in (q[:, queries], k[:, keys], v[:, keys])
    )
    return rearrange(F.scaled_dot_product_attention(q, k, v, dropout_p=dropout), "b h t d -> b t (h d)")


def _inner_windows(
    q: Tensor, k: Tensor, v: Tensor, stop: int, num_heads: int, window: int, dropout: float
) -> Tensor:
    """Windows 1 .. stop - 1; windows stand where heads usually do, so that a lone video is never copied."""
    half = window // 2
    q = rearrange(q[:, window : stop * window], "b (n w) (h d) -> (b h) n w d", w=window, h=num_heads)

    def overlapping(x: Tensor) -> Tensor:
        x = rearrange(x[:, half : stop * window + half], "b t (h d) -> (b h) t d", h=num_heads)
        return rearrange(x.unfold(1, 2 * window, window), "b n d w -> b n w d")

    out = F.scaled_dot_product_attention(q, overlapping(k), overlapping(v), dropout_p=dropout)
    return rearrange(out, "(b h) n w d -> b (n w) (h d)", h=num_heads)


def _windowed_masked(
    q: Tensor, k: Tensor, v: Tensor, num_heads: int, window: int, mask: Tensor, dropout: float
) -> Tensor:
    frames, half = q.shape[1], window // 2
    right = -frames % window
    q = rearrange(F.pad(q, (0, 0, 0, right)), "b (n w) (h d) -> b n h w d", w=window, h=num_heads)

    def overlapping(x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, half, right + half)).unfold(1, 2 * window, window)
        return rearrange(x, "b n (h d) w -> b n h w d", h=num_heads)

    seen = F.pad(mask, (half, right + half)).unfold(1, 2 * window, window)  # (B, n, 2W)
    out = _attend_seen(q, overlapping(k), overlapping(v), seen, dropout)
    return rearrange(out, "b n h w d -> b (n w) (h d)")[:, :frames]


def strided_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    num_heads: int,
    stride: int,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    activation: Activation | None = None,
) -> Tensor:
    """Frame t sees every frame t' with t' = t (mod G): sparse, but over the whole video.

    mask: (B, T), True = valid, None = all valid. Frames that see no valid key give zeros.
    """
    if mask is None and not dropout and native_library.usable(q, k, v):
        return _in_spans(q, k, v, _class_spans(*q.shape[:2], stride), num_heads, activation)
    return activate(_strided(q, k, v, num_heads, stride, mask, dropout), activation)


@lru_cache(maxsize=16)
def _class_spans(videos: int, frames: int, stride: int) -> Tensor:
    """(n, 5) rows of `span_attention`."""
    spans = []
    for start in range(0, videos * frames, frames):
        for r in range(min(stride, frames)):
            members = len(range(r, frames, stride))
            spans.append((start + r, members, start + r, members, stride))
    return torch.tensor(spans, dtype=torch.int64).view(-1, 5)


def _strided(
    q: Tensor, k: Tensor, v: Tensor, num_heads: int, stride: int, mask: Tensor | None, dropout: float
) -> Tensor:
    frames = q.shape[1]
    right = -frames % stride

    def classes(x: Tensor) -> Tensor:
        # Contiguous on purpose: rows that lie G * d numbers apart all fall into the same few cache lines.
        x = F.pad(x, (0, 0, 0, right))
        return rearrange(x, "b (n g) (h d) -> b g h n d", g=stride, h=num_heads).contiguous()

    q, k, v = classes(q), classes(k), classes(v)
    if mask is not None:
        seen = rearrange(F.pad(mask, (0, right)), "b (n g) -> b g n", g=stride)
        out = _attend_seen(q, k, v, seen, dropout)
    elif right == 0:
        out = _attend(q, k, v, dropout)
    else:
        # The last `right` residue classes are one frame shorter: two calls instead of a mask.
        full, shorter = stride - right, q.shape[3] - 1
        out = [_attend(q[:, :full], k[:, :full], v[:, :full], dropout)]
        rest = (x[:, full:, :, :shorter] for x in (q, k, v))
        out.append(F.pad(_attend(*rest, dropout), (0, 0, 0, 1)))
        out = torch.cat(out, dim=1)
    return rearrange(out, "b g h n d -> b (n g) (h d)")[:, :frames]


def _attend(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Attention over the last two axes; any number of axes before them."""
    if q.shape[-2] == 0:
        return q
    merged = (x.flatten(0, -4) for x in (q, k, v))
    return F.scaled_dot_product_attention(*merged, dropout_p=dropout).unflatten(0, q.shape[:-3])


def _attend_seen(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, dropout: float) -> Tensor:
    """Attention of (B, n, H, L, d) onto keys that are `seen` (B, n, L'); zero where none is."""
    some = seen.any(-1)
    keys = seen | ~some[..., None]  # softmax over no key at all would be NaN
    allowed = keys[:, :, None, None, :].expand(*q.shape[:-1], keys.shape[-1])
    merged = (x.flatten(0, 1) for x in (q, k, v, allowed))
    q_, k_, v_, allowed_ = merged
    out = F.scaled_dot_product_attention(q_, k_, v_, attn_mask=allowed_, dropout_p=dropout)
    return out.unflatten(0, q.shape[:2]) * some[:, :, None, None, None]
