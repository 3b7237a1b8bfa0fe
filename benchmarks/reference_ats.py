"""Adaptive token sampling written straight from its equations, the way the release computes it.

Every block computes queries, keys, values and the whole attention matrix with a softmax that knows a policy
of alive tokens; sampling compares every sample point with every step of the curve; kept rows are gathered
from the attention matrix. "drop" cuts the batch to its longest image, "mask" keeps all slots and multiplies
removed ones by zero.
Shapes: B images, N slots with the class token, H heads, d width of a head, K sample points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

EPS = 1e-6
Profile = Callable[[Tensor], Tensor]  # ascending shares (B, N - 1) to others in the same order


def policy_softmax(logits: Tensor, policy: Tensor) -> Tensor:
    """(B, H, N, N) and (B, N): removed slots are seen by themselves alone."""
    slots = logits.shape[-1]
    seen = policy[:, None, None, :] * torch.ones_like(policy)[:, None, :, None]
    eye = torch.eye(slots, device=logits.device)[None, None]
    seen = seen + (1.0 - seen) * eye
    weights = (logits - logits.max(dim=-1, keepdim=True).values).float().exp() * seen
    return (weights + EPS / slots) / (weights.sum(-1, keepdim=True) + EPS)


def sample(attention: Tensor, v: Tensor, points: int, profile: Profile | None) -> tuple[Tensor, Tensor]:
    """Patches (B, K) as they were picked, by ascending score, -1 for duplicates; and their ranks."""
    shares = attention[:, :, 0, 1:].sum(1) * v.transpose(1, 2).flatten(2).norm(dim=-1)[:, 1:]
    shares = shares / shares.sum(-1, keepdim=True)
    ranked, order = shares.sort(dim=-1)
    if profile is not None:
        ranked = profile(ranked)
    curve = ranked.cumsum(-1)
    lowest = curve.min(-1, keepdim=True).values
    curve = (curve - lowest) / (curve.max(-1, keepdim=True).values - lowest)
    first = torch.where(curve > 0, curve, torch.full_like(curve, 1e8)).min(-1, keepdim=True).values
    steps = torch.arange(points, device=curve.device)[None].expand(curve.shape[0], -1)
    heights = first + steps * (1.0 - first) / (points - 1)
    picked = (heights[:, :, None] - curve[:, None, :]).abs().argmin(-1)  # (B, K, N - 1) in between
    again = torch.zeros_like(picked, dtype=torch.bool)
    again[:, 1:] = picked[:, 1:] == picked[:, :-1]
    return torch.where(again, -1, order.gather(1, picked)), picked


class ReferenceAts(nn.Module):
    """A ViT of framecast with the release's blocks; the weights are shared."""

    def __init__(
        self,
        vit: Any,
        blocks: tuple[int, ...],
        mode: Literal["drop", "mask"] = "drop",
        profile: Profile | None = None,
    ) -> None:
        super().__init__()
        self.vit, self.sampling, self.mode, self.profile = vit, set(blocks), mode, profile
        self.counts: list[list[int]] = []

    def forward(self, images: Tensor) -> Tensor:
        x = self.vit.embed(images)
        policy = torch.ones(x.shape[:2], device=x.device)
        points, self.counts = x.shape[1] - 1, []
        for i, block in enumerate(self.vit.blocks):
            branch = self.sampled if i in self.sampling else self.plain
            x, policy = branch(block, x, policy, points)
            x = x + block.mlp(block.norm2(x)) * policy[:, :, None]
        return self.vit.forward_head(self.vit.norm(x))

    def attention(self, attn: Any, h: Tensor, policy: Tensor) -> tuple[Tensor, Tensor]:
        qkv = attn.qkv(h) * policy[:, :, None]
        q, k, v = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return policy_softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, policy), v

    def plain(self, block: Any, x: Tensor, policy: Tensor, points: int) -> tuple[Tensor, Tensor]:
        weights, v = self.attention(block.attn, block.norm1(x), policy)
        answers = block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
        return x + answers * policy[:, :, None], policy

    def sampled(self, block: Any, x: Tensor, policy: Tensor, points: int) -> tuple[Tensor, Tensor]:
        weights, v = self.attention(block.attn, block.norm1(x), policy)
        slots, _ = sample(weights, v, points, self.profile)
        alive = (slots >= 0).float()
        self.counts.append((alive.sum(-1) + 1).int().tolist())
        if self.mode == "mask":
            width = x.shape[1]
            slots = torch.cat([torch.zeros_like(slots[:, :1]), slots + 1], dim=1)[:, :width]
            alive = torch.cat([torch.ones_like(alive[:, :1]), alive], dim=1)[:, :width]
        else:
            width = int(alive.sum(-1).max()) + 1
            place = (alive.cumsum(-1) * alive).long()  # 0 = dropped, onto the class token's place
            packed = torch.zeros_like(slots)
            packed = torch.cat([packed[:, :1], packed], 1).scatter_add(1, place, (slots + 1) * alive.long())
            slots = packed[:, :width]
            alive = (torch.arange(width, device=x.device)[None] < alive.sum(-1, keepdim=True) + 1).float()
        slots = slots.clamp(min=0)
        rows = slots[:, None, :, None].expand(-1, weights.shape[1], -1, weights.shape[3])
        weights = weights.gather(2, rows) * alive[:, None, :, None]
        answers = block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
        kept = x.gather(1, slots[:, :, None].expand(-1, -1, x.shape[2])) * alive[:, :, None]
        return kept + answers * alive[:, :, None], alive
