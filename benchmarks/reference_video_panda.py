"""Video-Panda's vision part, its equations written straight down under the release's names.

Convolutions over channels-first volumes, keys and values of every patch, frame after frame, every token
projected.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """q = LN(x) W, k and v = LN'(y) W'; scores over the square root of the full width."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width, bias=False))
        self.kv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width, bias=False))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # (B, 1, D), (B, N, D) -> (B, 1, D)
        batch, _, width = y.shape
        heads = self.num_heads, width // self.num_heads
        q = self.q(x).view(batch, -1, *heads).transpose(1, 2)
        k, v = self.kv(y).view(batch, -1, 2, *heads).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-1, -2) * width**-0.5).softmax(-1)
        return x + self.proj((attention @ v).transpose(1, 2).flatten(2))


class Mixing(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = int(width / 1.5)
        self.pos_embed = nn.Sequential(
            nn.BatchNorm3d(width),
            nn.Conv3d(width, hidden, 1),
            nn.Conv3d(hidden, hidden, (3, 1, 1), padding=(1, 0, 0), groups=hidden),
            nn.Conv3d(hidden, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, D, T, h, w)
        return self.pos_embed(x)


class Summary(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, num_heads)
        self.ln_1, self.ln_2, self.ln_3 = (nn.LayerNorm(width) for _ in range(3))
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # (1, B, D), (N, B, D) -> (1, B, D)
        y = self.ln_3(y)
        x = x + self.attn(self.ln_1(x), y, y, need_weights=False)[0]
        hidden = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))


class Tower(nn.Module):
    def __init__(self, width: int, num_heads: int, patch_size: int) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        self.class_embedding, self.split_embedding = (nn.Parameter(torch.randn(width)) for _ in range(2))
        self.temporal_cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.balance = nn.Parameter(torch.randn(width))
        self.lmhra1 = Mixing(width)
        self.dpe = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.dec = Summary(width, num_heads)
        self.proj = nn.Sequential(nn.LayerNorm(width), nn.Dropout(0.5), nn.Linear(width, width))
        self.local_attention, self.global_attention = (Attention(width, num_heads) for _ in range(2))

    def forward(self, frames: Tensor) -> list[Tensor]:  # (B, T, 3, H, W) of chunks -> tokens of each frame
        batch, steps = frames.shape[:2]
        patches = self.patch_embedding(frames.flatten(0, 1))
        patches = patches.unflatten(0, (batch, steps)).transpose(1, 2)  # (B, D, T, h, w)
        x = patches + self.lmhra1(patches)
        x = x + self.dpe(x)
        query = self.temporal_cls_token.expand(1, batch, -1)
        clip = self.dec(query, x.flatten(2).permute(2, 0, 1))[0]
        x = (x + patches).transpose(1, 2)
        return [self.frame(x[b, t], clip[b]) for b in range(batch) for t in range(steps)]

    def frame(self, x: Tensor, clip: Tensor) -> Tensor:  # (D, h, w), (D,) -> (1 + h'(w' + 1), D)
        width, height, columns = x.shape
        windows = x.unfold(1, 2, 2).unfold(2, 2, 2).permute(1, 2, 3, 4, 0).reshape(-1, 4, width)
        tokens = self.local_attention(windows.mean(1, keepdim=True), windows)
        own = self.global_attention(self.class_embedding[None, None], tokens.view(1, -1, width))[0, 0]
        weight = self.balance.sigmoid()
        context = self.proj((1 - weight) * clip + weight * own)
        rows = tokens.view(height // 2, columns // 2, width)
        rows = torch.cat([rows, self.split_embedding.expand(len(rows), 1, -1)], dim=1)
        return torch.cat([context[None], rows.flatten(0, 1)])


class ReferenceVideoPanda(nn.Module):
    """Frames (T, 3, H, W) of one clip to a list of (n, L) tokens."""

    def __init__(
        self, width: int = 1024, llm_width: int = 4096, num_heads: int = 8, patch_size: int = 14
    ) -> None:
        super().__init__()
        self.video_tower = Tower(width, num_heads, patch_size)
        self.video_projector = nn.Sequential(
            nn.Linear(width, llm_width), nn.GELU(), nn.Linear(llm_width, llm_width)
        )

    def forward(self, frames: Tensor) -> list[Tensor]:
        chunks = frames.unflatten(0, (-1, 4))
        return [self.video_projector(tokens) for tokens in self.video_tower(chunks)]
