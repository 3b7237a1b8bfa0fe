"""Layers of a residual stack that hand on a pair (h, r): what the last mixer said, and the sum before that.

Every unit is add → norm → mix: r ← r + h, h ← mixer(norm(r)). This is the usual pre-norm residual stream, but
each addition stands beside the norm that follows it, r is kept in float32 while h may be narrower, and one
stack holds Mamba, attention and MLP units alike.

With `first_only` a layer gives only the first token's row of h and r: all that a classifier of the class
token reads from the last layer, and much cheaper.
Shapes: B batch, L = 1 + T N tokens (class token, then T frames of N patches), D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from framecast.nn.attention import SelfAttention
from framecast.nn.mamba import MambaMixer, RMSNorm
from framecast.nn.transformer import DropPath, Gelu, Mlp
from framecast.ops import memory

Norm = Literal["rms", "layer"]
VideoAttention = Literal["joint", "window", "divided"]
Carry = tuple[Tensor, Tensor]  # (h, r)


def make_norm(kind: Norm, width: int, eps: float) -> nn.Module:
    return RMSNorm(width, eps) if kind == "rms" else nn.LayerNorm(width, eps=eps)


def add(h: Tensor, r: Tensor | None) -> Tensor:
    """The residual stream after h has joined it; at least float32."""
    if r is not None:
        return torch.add(r, h, out=memory.room_for(r, h))
    return h.float() if h.dtype in (torch.float16, torch.bfloat16) else h


class MambaLayer(nn.Module):
    """One Mamba unit."""

    def __init__(self, norm: nn.Module, mixer: MambaMixer, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm = norm
        self.mixer = mixer
        self.drop_path = DropPath(drop_path)  # on the h that comes in

    def forward(self, h: Tensor, r: Tensor | None, *, frames: int = 1, first_only: bool = False) -> Carry:
        r = add(h if r is None else self.drop_path(h), r)
        h = self.mixer(self.norm(r), first_only=first_only)
        return h, r[:, :1] if first_only else r


class TransformerLayer(nn.Module):
    """An attention unit and, with mlp_ratio above 0, an MLP unit (pre-norm Transformer block).

    attention "joint": every token looks at every token. "window": frames are cut into windows of `window`;
    the tokens of one and the class token look at each other, and the class token's answers are averaged.
    "divided" (TimeSformer): first every patch looks at its own place in the other frames, in a unit of its
    own, then a window is one frame. Over a single frame all three are the same but for the unit of time.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        norm: Norm = "rms",
        norm_eps: float = 1e-5,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        gelu: Gelu = "erf",
        attention: VideoAttention = "joint",
        window: int = 8,
        drop_path_before: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window = {"joint": 0, "window": window, "divided": 1}[attention]  # frames; 0 = all
        self.drop_path_before = DropPath(drop_path_before)  # on the h that comes in
        self.drop_path = DropPath(drop_path)
        over_time = attention == "divided"
        self.norm_time = make_norm(norm, width, norm_eps) if over_time else None
        self.attn_time = SelfAttention(width, num_heads, qkv_bias=qkv_bias) if over_time else None
        self.norm1 = make_norm(norm, width, norm_eps)
        self.attn = SelfAttention(width, num_heads, qkv_bias=qkv_bias)
        self.norm2 = make_norm(norm, width, norm_eps) if mlp_ratio else None
        self.mlp = Mlp(width, round(width * mlp_ratio), gelu) if mlp_ratio else None

    def branch_ends(self) -> list[nn.Linear]:
        """The last map of each residual branch but that of time."""
        return [self.attn.proj] if self.mlp is None else [self.attn.proj, self.mlp.fc2]

    def forward(self, h: Tensor, r: Tensor | None, *, frames: int = 1, first_only: bool = False) -> Carry:
        r = add(h if r is None else self.drop_path_before(h), r)
        if self.attn_time is not None and self.norm_time is not None:
            h = attend_over_time(self.attn_time, self.norm_time(r), frames)
            r = add(self.drop_path(h), r)
        h = attend_in_windows(self.attn, self.norm1(r), frames, self.window, first_only=first_only)
        r = r[:, :1] if first_only else r
        if self.mlp is not None and self.norm2 is not None:
            r = add(self.drop_path(h), r)
            h = self.mlp(self.norm2(r))
        return h, r


def attend_in_windows(
    attention: SelfAttention, x: Tensor, frames: int, window: int, *, first_only: bool = False
) -> Tensor:
    """Attention inside windows of frames, each with the class token: (B, 1 + T N, D) -> (B, 1 + T N, D).

    The last window may be shorter; the class token's answers are averaged, weighted by frames.
    """
    num_queries = 1 if first_only else None
    if window == 0 or window >= frames:
        return attention(x, num_queries)
    first, patches = x[:, :1], rearrange(x[:, 1:], "b (t n) d -> b t n d", t=frames)
    whole = frames // window * window
    summed, answers = torch.zeros_like(first), []
    for part in patches.split([whole, frames - whole], dim=1)[: 1 + (whole < frames)]:
        width = min(window, part.shape[1])  # frames in each window of this part
        windows = rearrange(part, "b (w t) n d -> (b w) (t n) d", t=width)
        asked = torch.cat([repeat(first, "b 1 d -> (b w) 1 d", w=part.shape[1] // width), windows], dim=1)
        answered = attention(asked, num_queries)
        first_rows = rearrange(answered[:, 0], "(b w) d -> b w d", b=x.shape[0])
        summed = summed + width / frames * first_rows.sum(1, keepdim=True)
        answers.append(rearrange(answered[:, 1:], "(b w) n d -> b (w n) d", b=x.shape[0]))
    return torch.cat([summed, *answers], dim=1)


def attend_over_time(attention: SelfAttention, x: Tensor, frames: int) -> Tensor:
    """Every patch looks at its place in all frames; the class token takes no part and gets 0."""
    places = rearrange(x[:, 1:], "b (t n) d -> (b n) t d", t=frames)
    answered = rearrange(attention(places), "(b n) t d -> b (t n) d", b=x.shape[0])
    return torch.cat([torch.zeros_like(x[:, :1]), answered], dim=1)
