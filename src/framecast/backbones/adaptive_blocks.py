"""Transformer blocks in which tokens are sampled: in two ways that give the same numbers.

Packed: tokens that are left out are gone. Keys and values are computed for all tokens, then the class token's
attention decides, then queries, projection and MLP are computed for the kept ones alone; a softmax row needs
no other rows. (Where there are few rows, queries are computed for all, which is faster.)
Masked: every token keeps its slot and nobody looks at dead ones; shapes never change, which exporters and
compilers need, and it reads like the definition.

Blocks are ours or timm's.
Shapes: U sequences, R rows of all of them, P prefix tokens, M patches, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framecast.backbones.adaptive_model import SamplingConfig, num_points
from framecast.nn.ragged import Ragged, ragged_attention
from framecast.nn.token_sampling import Choice, choose_tokens, significance
from framecast.ops import native_library
from framecast.ops.token_sampling_native import sampled_tokens, token_scores

Shift = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # of keys and values, before anybody sees them


FEW_ROWS = 128  # up to so many, another pass over the weights costs more than the queries that it saves


@dataclass
class Tokens:
    """The tokens that are left, sequence after sequence: prefix tokens, then patches."""

    x: Tensor  # (R, D)
    ids: Tensor  # (R,) patch of the sequence, -1 for prefix tokens
    layout: Ragged
    prefix: int  # tokens in front of each sequence that always stay, the class token first

    def keep(self, rows: Tensor, layout: Ragged) -> Tokens:
        x, ids = self.x.index_select(0, rows), self.ids.index_select(0, rows)
        return Tokens(x, ids, layout, self.prefix)


def pack(x: Tensor, prefix: int) -> Tokens:
    """(U, P + M, D) with all patches alive."""
    units, length = x.shape[:2]
    ids = torch.arange(-prefix, length - prefix, device=x.device).clamp_(min=-1)
    return Tokens(x.flatten(0, 1), ids.repeat(units), Ragged([length] * units, x.device), prefix)


@dataclass(frozen=True)
class Stage:
    """The rule of one block that samples."""

    config: SamplingConfig
    budget: float | int
    num_patches: int  # of the input
    frames_together: int = 1  # sequences that keep the same places
    generator: torch.Generator | None = None

    def choose(self, scores: Tensor, ids: Tensor, num_alive: Tensor, *, full: bool = False) -> Choice:
        """scores (U, M), -1 where dead; ids (U, M); num_alive (U,) patches; full: none are dead."""
        from_zero = None
        if self.config.semantics != "per-sample":
            whole = self.num_patches if self.config.semantics == "mask" else num_alive.amax()
            from_zero = num_alive < whole
        together = self.frames_together
        if together > 1:
            scores = scores.unflatten(0, (-1, together)).nan_to_num(0.0).mean(1)
            ids, from_zero = ids[::together], None if from_zero is None else from_zero[::together]
        order, kept = choose_tokens(
            scores,
            ids,
            num_points(self.budget, self.num_patches),
            full=full,
            grid=self.config.grid,
            from_zero=from_zero,
            select=self.config.select,
            generator=self.generator,
        )
        if together > 1:
            order, kept = (t.repeat_interleave(together, dim=0) for t in (order, kept))
        return Choice(order, kept)

    @property
    def plain(self) -> bool:
        """Whether every sequence is sampled by itself, which the native kernel can do."""
        return self.config.select == "sampled" and self.frames_together == 1

    def sample_natively(self, scores: Tensor, layout: Ragged, prefix: int) -> tuple[Tensor, Ragged]:
        from_zero = None
        if self.config.semantics != "per-sample":
            whole = prefix + self.num_patches if self.config.semantics == "mask" else layout.longest
            from_zero = [count < whole for count in layout.counts]
        points, paper = num_points(self.budget, self.num_patches), self.config.grid == "paper"
        rows, counts = sampled_tokens(scores, layout.firsts, prefix, points, paper=paper, from_zero=from_zero)
        return rows, Ragged(counts, scores.device)


# Parts of a block, ours or timm's ---------------------------------------------------------------------


class SplitLinear(nn.Module):
    """The map to q, k and v as one for q and one for k and v, for those whose weight cannot be cut."""

    def __init__(self, joint: nn.Linear) -> None:
        super().__init__()
        width = joint.in_features
        self.q = nn.Linear(width, width, bias=joint.bias is not None)
        self.kv = nn.Linear(width, 2 * width, bias=joint.bias is not None)
        for part, rows in ((self.q, slice(width)), (self.kv, slice(width, None))):
            part.weight = nn.Parameter(joint.weight.detach()[rows].clone())
            if joint.bias is not None:
                part.bias = nn.Parameter(joint.bias.detach()[rows].clone())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.q(x), self.kv(x)], dim=-1)


def queries(attention: Any, h: Tensor) -> Tensor:  # (…, D) -> (…, D)
    joint = attention.qkv
    q = joint.q(h) if isinstance(joint, SplitLinear) else _part(joint, h, slice(joint.in_features))
    return _normed(attention, "q_norm", q)


def keys_and_values(attention: Any, h: Tensor) -> tuple[Tensor, Tensor]:  # (…, D) -> (…, D) twice
    joint = attention.qkv
    split = isinstance(joint, SplitLinear)
    kv = joint.kv(h) if split else _part(joint, h, slice(joint.in_features, None))
    k, v = kv.chunk(2, dim=-1)
    return _normed(attention, "k_norm", k), v


def queries_keys_and_values(attention: Any, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = attention.qkv(h).chunk(3, dim=-1)
    return _normed(attention, "q_norm", q), _normed(attention, "k_norm", k), v


def _part(joint: nn.Linear, h: Tensor, rows: slice) -> Tensor:
    return F.linear(h, joint.weight[rows], None if joint.bias is None else joint.bias[rows])


def can_be_cut(joint: Any) -> bool:
    """Not where it is quantised, has an adapter or is watched: then it is used as it is."""
    return type(joint) is nn.Linear and not joint._forward_hooks


def _normed(attention: Any, name: str, x: Tensor) -> Tensor:
    norm = getattr(attention, name, None)  # timm's, over each head
    if norm is None or isinstance(norm, nn.Identity):
        return x
    return norm(x.unflatten(-1, (attention.num_heads, -1))).flatten(-2)


def project(attention: Any, x: Tensor) -> Tensor:
    """The way out of an attention, from heads side by side."""
    x = attention.norm(x) if isinstance(getattr(attention, "norm", None), nn.Module) else x
    x = attention.proj(x)
    return attention.proj_drop(x) if hasattr(attention, "proj_drop") else x


def dropout_of(attention: Any) -> float:
    rate = attention.dropout if hasattr(attention, "dropout") else attention.attn_drop.p
    return rate if attention.training else 0.0


def drop_path(block: Any, which: int, x: Tensor, layout: Ragged | None) -> Tensor:
    """A branch of a block through its stochastic depth."""
    path = block.drop_path if hasattr(block, "drop_path") else getattr(block, f"drop_path{which}")
    return drop_rows(path, x, layout)


def drop_rows(path: Any, x: Tensor, layout: Ragged | None) -> Tensor:
    """Leaves whole sequences out while training; x (R, D), without a layout (U, slots, D)."""
    if not path.training:
        return x
    rate = path.rate if hasattr(path, "rate") else getattr(path, "drop_prob", 0.0)  # timm's name
    if layout is None or not rate:
        return path(x)  # by the first axis
    keep = torch.rand(len(layout.counts), 1, device=x.device) >= rate
    return x * layout.spread(keep) / (1.0 - rate)


def token_macs(layer: nn.Module) -> int:
    """Multiply-adds of the linear maps in a layer for one token, also of quantised ones."""
    maps = [m for m in layer.modules() if hasattr(m, "in_features") and hasattr(m, "out_features")]
    return sum(int(m.in_features) * int(m.out_features) for m in maps)  # ty: ignore[invalid-argument-type]


def block_macs(block: Any, tokens: int, kept: int) -> int:
    """Of a block that receives so many tokens of a sequence and keeps so many."""
    width = block.attn.proj.in_features
    return 2 * tokens * width**2 + 2 * kept * (width**2 + tokens * width) + kept * token_macs(block.mlp)


# Packed -----------------------------------------------------------------------------------------------

Kept = tuple[Tensor, Ragged]  # rows (R',) that stay, and how they lie then


def run_block(
    block: Any, tokens: Tokens, stage: Stage | None, *, prefix_only: bool = False, shift: Shift | None = None
) -> Tokens:
    """One block; with a stage its patches are sampled, with prefix_only none of them stays."""
    h = block.norm1(tokens.x)
    answers, kept = attend(block.attn, h, tokens, stage, prefix_only=prefix_only, shift=shift)
    left = tokens if kept is None else tokens.keep(*kept)
    x = left.x + drop_path(block, 1, block.ls1(answers), left.layout)
    return replace(left, x=x + drop_path(block, 2, block.ls2(block.mlp(block.norm2(x))), left.layout))


def attend(
    attention: Any,
    h: Tensor,
    tokens: Tokens,
    stage: Stage | None,
    *,
    prefix_only: bool = False,
    in_order: bool = False,
    shift: Shift | None = None,
) -> tuple[Tensor, Kept | None]:
    """Answers (R', D) to the tokens that stay, and which these are (None: all); h (R, D) is the normed input.

    in_order: they stay in the order in which they are, not by score.
    """
    q = None
    split = isinstance(attention.qkv, SplitLinear)
    if split or (can_be_cut(attention.qkv) and h.shape[0] > FEW_ROWS):
        k, v = keys_and_values(attention, h)
    else:
        q, k, v = queries_keys_and_values(attention, h)
    if shift is not None:
        k, v = shift(k, v)
    kept: Kept | None = None
    if prefix_only:
        kept = tokens.layout.front(tokens.prefix)
    elif stage is not None:
        with torch.no_grad():  # what is chosen is a constant to the gradients
            kept = sampled_rows(attention, h, q, k, v, tokens, stage)
    if in_order and kept is not None:
        kept = kept[0].sort().values, kept[1]
    rows, asking = (None, tokens.layout) if kept is None else kept
    if q is None:
        q = queries(attention, h if rows is None else h.index_select(0, rows))
    elif rows is not None:
        q = q.index_select(0, rows)
    dropout = dropout_of(attention)
    x = ragged_attention(q, k, v, asking, tokens.layout, attention.num_heads, dropout=dropout)
    return project(attention, x), kept


def sampled_rows(
    attention: Any, h: Tensor, q: Tensor | None, k: Tensor, v: Tensor, tokens: Tokens, stage: Stage
) -> Kept:
    """Rows that a stage keeps: prefix tokens, then patches by ascending score; q None = not computed yet."""
    layout, prefix, num_heads = tokens.layout, tokens.prefix, attention.num_heads
    source = h if q is None else q
    first = source[:: layout.longest] if layout.uniform else source.index_select(0, layout.first_rows)
    first = queries(attention, first) if q is None else first
    q = first.float() * (k.shape[-1] // num_heads) ** -0.5  # (U, D) of the class tokens
    if stage.plain and native_library.usable(q, k, v):
        scores = token_scores(q, k, v, layout.firsts, layout.counts, prefix, num_heads)
        return stage.sample_natively(scores, layout, prefix)
    if layout.uniform:
        products = layout.pad(k, 0.0) * q[:, None]
        logits = products.unflatten(-1, (num_heads, -1)).sum(-1)
    else:
        logits = (k * q[layout.owners]).unflatten(-1, (num_heads, -1)).sum(-1)
        logits = layout.pad(logits, float("-inf"))
    shares = logits.softmax(1)  # (U, slots, H)
    norms = layout.pad(torch.linalg.vector_norm(v.float(), dim=-1), 0.0)
    alive = None if layout.uniform else layout.taken[:, prefix:]
    scores = significance(shares[:, prefix:], norms[:, prefix:], alive)
    ids = layout.pad(tokens.ids, -1)[:, prefix:]
    order, kept = stage.choose(scores, ids, layout.lengths - prefix, full=layout.uniform)
    return layout.pick(order, kept, prefix)


# Masked -----------------------------------------------------------------------------------------------


def run_block_masked(
    block: Any, x: Tensor, alive: Tensor, stage: Stage | None, prefix: int, *, shift: Shift | None = None
) -> tuple[Tensor, Tensor]:
    """The same for x (U, P + M, D) and alive (U, M): slots of tokens that are left out stay, unseen."""
    answers, left = attend_masked(block.attn, block.norm1(x), alive, stage, prefix, shift=shift)
    x = x + drop_path(block, 1, block.ls1(answers), None)
    return x + drop_path(block, 2, block.ls2(block.mlp(block.norm2(x))), None), left


def attend_masked(
    attention: Any, h: Tensor, alive: Tensor, stage: Stage | None, prefix: int, *, shift: Shift | None = None
) -> tuple[Tensor, Tensor]:
    """Answers (U, P + M, D) to all slots, and which patches are alive after the stage."""
    heads = {"h": attention.num_heads}
    q, k, v = queries_keys_and_values(attention, h)
    if shift is not None:
        k, v = shift(k, v)
    q, k, split_v = (rearrange(t, "u n (h d) -> u h n d", **heads) for t in (q, k, v))
    seen = F.pad(alive, (prefix, 0), value=True)[:, None, None]
    left = alive
    if stage is not None:
        with torch.no_grad():
            logits = q[:, :, :1].float() @ k.float().mT * q.shape[-1] ** -0.5  # (U, H, 1, P + M)
            shares = logits.masked_fill(~seen, float("-inf")).softmax(-1)[:, :, 0, prefix:].mT
            norms = torch.linalg.vector_norm(v.float(), dim=-1)[:, prefix:]
            ids = torch.arange(alive.shape[1], device=h.device).expand(alive.shape)
            order, kept = stage.choose(significance(shares, norms, alive), ids, alive.sum(-1))
            left = torch.zeros_like(alive).scatter(1, order, kept)
    dropout = dropout_of(attention)
    answers = F.scaled_dot_product_attention(q, k, split_v, attn_mask=seen, dropout_p=dropout)
    return project(attention, rearrange(answers, "u h n d -> u n (h d)")), left
