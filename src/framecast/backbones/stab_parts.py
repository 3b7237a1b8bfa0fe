"""Parts of STAB that look over time, and the projector; channels come last.

Shapes: B chunks of clips, T frames of a chunk, h and w patches, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.nn.summary_attention import Impl, summary_attention


class LocalMixing(nn.Module):
    """Every place mixes its own three frames: norm, down, over time, up, no activation (the paper's LSTE).

    The last map starts at zero, so that training starts from the patches as they are.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = int(width / 1.5)
        self.norm = nn.BatchNorm1d(width)
        self.down = nn.Linear(width, hidden)
        self.time = nn.Conv1d(hidden, hidden, 3, padding=1, groups=hidden)
        self.up = nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, *, impl: Impl = "auto") -> Tensor:  # (B, T, h, w, D) -> the same
        if self.training or impl == "reference":
            normed = self.norm(x.flatten(0, -2)).view_as(x)
            return self.up(over_time(self.down(normed), self.time))
        return self.up(over_time(F.linear(x, *self.folded()), self.time))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the norm by running statistics and the map behind it, as one map."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - gain * norm.running_mean
        return self.down.weight * gain, self.down.bias + self.down.weight @ shift


def over_time(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """A depthwise convolution of three taps along T, zero-padded: (B, T, h, w, D) -> the same."""
    before, here, after = conv.weight[:, 0].unbind(-1)
    assert conv.bias is not None
    padded = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
    out = torch.addcmul(conv.bias, x, here)
    return out.addcmul_(padded[:, :-2], before).addcmul_(padded[:, 2:], after)


class PositionMixing(nn.Module):
    """Every patch hears its neighbours in space and time, which tells it where it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width, width, 3, padding=1, groups=width)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, h, w, D) -> the same
        return self.conv(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


class ClipSummary(nn.Module):
    """A learned query sums up all patches of a chunk (the paper's GSTRA); it starts as zero."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of temporal_heads {num_heads}")
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        self.token = nn.Parameter(torch.zeros(width))
        self.norm_query = nn.LayerNorm(width)
        self.norm_patches = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(4 * width, width)
        nn.init.xavier_uniform_(self.query_key_value.weight)
        nn.init.zeros_(self.query_key_value.bias)
        for last in (self.proj, self.fc2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, patches: Tensor, taken: Tensor | None = None, *, impl: Impl = "auto") -> Tensor:
        """(B, N, D), and (B, N) bool patches that count or None for all -> (B, D)."""
        query, key, value = self.query_key_value.weight.chunk(3)
        query_bias, _, value_bias = self.query_key_value.bias.chunk(3)  # a key's cancels in the softmax
        heard = summary_attention(
            F.linear(self.norm_query(self.token[None]), query, query_bias),
            self.norm_patches(patches),
            key,
            value,
            num_heads=self.num_heads,
            scale=self.scale,
            taken=taken,
            impl=impl,
        )
        summary = self.token + self.proj(heard + value_bias)
        hidden = self.fc1(self.norm_mlp(summary))
        return summary + self.fc2(self.drop(hidden * torch.sigmoid(1.702 * hidden)))  # QuickGELU


class Projector(nn.Module):
    """Tokens to the width of the language model."""

    def __init__(self, width: int, llm_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, llm_width)
        self.fc2 = nn.Linear(llm_width, llm_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))
