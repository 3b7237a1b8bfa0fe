"""LTContext and MS-TCN written straight from the equations, the way the release computes them.

Channel first; overlapping windows are cut out before the projections, so that keys and values are projected
twice; scores and masks are explicit, whether anything is padded or not. Tensor names are those of the
release, so its weights load into this model and, through the key table, into framecast's.
Shapes: B batch, D width, T frames, W window, G stride, L queries, M keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentionCore(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        half = width // 2
        self.num_heads = num_heads
        self.proj_q = nn.Conv1d(width, half, 1)
        self.proj_k = nn.Conv1d(width, half, 1)
        self.proj_v = nn.Conv1d(width, half, 1)
        self.proj = nn.Sequential(nn.GELU(), nn.Conv1d(half, width, 1), nn.Dropout(0.1))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor) -> Tensor:
        """(N, D, L), (N, D, M), (N, D, M), (N, M) -> (N, D, L)."""
        heads = self.num_heads
        q = self.proj_q(query).unflatten(1, (heads, -1))
        k = self.proj_k(key).unflatten(1, (heads, -1))
        v = self.proj_v(value).unflatten(1, (heads, -1))
        scores = torch.einsum("nhdl,nhdm->nhlm", q, k) / q.shape[2] ** 0.5
        mask = key_mask[:, None, None, :].expand_as(scores)
        scores = scores.masked_fill(~mask, float("-inf"))
        empty = mask.sum(-1, keepdim=True) == 0
        weights = scores.masked_fill(empty, 1.0).softmax(-1)
        out = torch.einsum("nhlm,nhdm->nhdl", weights, v).masked_fill(empty.transpose(-1, -2), 0.0)
        return self.proj(out.flatten(1, 2))


class WindowedAttention(nn.Module):
    def __init__(self, width: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.attn = AttentionCore(width, num_heads)
        self.window = window

    def overlapping(self, x: Tensor) -> Tensor:  # (B, D, T') -> (B * n, D, 2W), copied
        half = self.window // 2
        x = F.pad(x, (half, half)).unfold(2, 2 * self.window, self.window)
        return x.permute(0, 2, 1, 3).flatten(0, 1).contiguous()

    def forward(self, x: Tensor, value: Tensor | None, mask: Tensor) -> Tensor:
        batch, frames = len(x), x.shape[-1]
        right = -frames % self.window
        value = x if value is None else value
        x, value = F.pad(x, (0, right)), F.pad(value, (0, right))
        padded_mask = F.pad(mask, (0, right))
        query = x.unflatten(2, (-1, self.window)).permute(0, 2, 1, 3).flatten(0, 1).contiguous()
        keys_seen = self.overlapping(padded_mask.float())[:, 0] > 0
        out = self.attn(query, self.overlapping(x), self.overlapping(value), keys_seen)
        out = out.unflatten(0, (batch, -1)).permute(0, 2, 1, 3).flatten(2)
        return out[..., :frames] * mask


class LongTermAttention(nn.Module):
    def __init__(self, width: int, num_heads: int, stride: int) -> None:
        super().__init__()
        self.attn = AttentionCore(width, num_heads)
        self.stride = stride

    def classes(self, x: Tensor) -> Tensor:  # (B, D, n * G) -> (B * G, D, n), copied
        return x.unflatten(2, (-1, self.stride)).permute(0, 3, 1, 2).flatten(0, 1).contiguous()

    def forward(self, x: Tensor, value: Tensor | None, mask: Tensor) -> Tensor:
        batch, frames = len(x), x.shape[-1]
        right = -frames % self.stride
        value = x if value is None else value
        query, values = self.classes(F.pad(x, (0, right))), self.classes(F.pad(value, (0, right)))
        seen = self.classes(F.pad(mask, (0, right)).float())[:, 0] > 0
        out = self.attn(query, query, values, seen)
        out = out.unflatten(0, (batch, -1)).permute(0, 2, 3, 1).flatten(2)
        return out[..., :frames] * mask


class DilatedConv(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilated_conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return F.gelu(self.dilated_conv(x)) * mask


class Block(nn.Module):
    def __init__(self, width: int, num_heads: int, window: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.dilated_conv = DilatedConv(width, dilation)
        self.windowed_attn = WindowedAttention(width, num_heads, window)
        self.ltc_attn = LongTermAttention(width, num_heads, stride)
        self.out_linear = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor, previous: Tensor | None, mask: Tensor) -> Tensor:
        u = self.dilated_conv(x, mask)
        u = self.windowed_attn(u, previous, mask) + u
        u = self.ltc_attn(u, previous, mask) + u
        return (self.dropout(self.out_linear(u)) + x) * mask


class Stage(nn.Module):
    def __init__(
        self, channels: int, width: int, classes: int, layers: int, heads: int, window: int, stride: int
    ) -> None:
        super().__init__()
        self.input_proj = nn.Conv1d(channels, width, 1)
        self.layers = nn.ModuleList(Block(width, heads, window, stride, 2**i) for i in range(layers))
        self.out_proj = nn.Conv1d(width, classes, 1)

    def forward(self, x: Tensor, previous: Tensor | None, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.input_proj(x)
        for layer in self.layers:
            x = layer(x, previous, mask)
        return self.out_proj(x) * mask, x


class ReferenceLTContext(nn.Module):
    def __init__(
        self,
        num_classes: int = 48,
        feature_dim: int = 2048,
        num_stages: int = 3,
        num_layers: int = 9,
        width: int = 64,
        num_heads: int = 1,
        window: int = 64,
        stride: int = 64,
    ) -> None:
        super().__init__()
        shape = (num_classes, num_layers, num_heads, window, stride)
        self.stage1 = Stage(feature_dim, width, *shape)
        self.dim_reduction = nn.Conv1d(width, width // 2, 1)
        self.stages = nn.ModuleList(Stage(num_classes, width // 2, *shape) for _ in range(num_stages - 1))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:  # (B, C, T), (B, 1, T) -> (S, B, K, T)
        logits, last = self.stage1(features, None, mask)
        outputs = [logits]
        last = self.dim_reduction(last)
        for stage in self.stages:
            logits, last = stage(outputs[-1].softmax(1) * mask, last * mask, mask)
            outputs.append(logits)
        return torch.stack(outputs)


class ReferenceMSTCN(nn.Module):
    """MS-TCN as usually written: channel-first convolutions, a mask product after every layer."""

    def __init__(
        self, num_classes: int = 48, feature_dim: int = 2048, num_stages: int = 4, num_layers: int = 10
    ) -> None:
        super().__init__()
        width = 64
        self.stages = nn.ModuleList()
        for s in range(num_stages):
            first = nn.Conv1d(feature_dim if s == 0 else num_classes, width, 1)
            convs = [nn.Conv1d(width, width, 3, padding=2**i, dilation=2**i) for i in range(num_layers)]
            points = [nn.Conv1d(width, width, 1) for _ in range(num_layers)]
            last = nn.Conv1d(width, num_classes, 1)
            self.stages.append(nn.ModuleList([first, nn.ModuleList(convs), nn.ModuleList(points), last]))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for first, convs, points, last in self.stages:  # ty: ignore[not-iterable]
            x = first(features if not outputs else outputs[-1].softmax(1) * mask)
            for conv, point in zip(convs, points, strict=True):
                x = (x + point(F.relu(conv(x)))) * mask
            outputs.append(last(x) * mask)
        return torch.stack(outputs)
