"""Mamba's selective state-space mixer (Gu and Dao, 2023, https://arxiv.org/abs/2312.00752), from both ends.

A mixer of tokens whose cost grows linearly with their number. VideoMamba (https://arxiv.org/abs/2403.06977)
lets one walk from the first token and one from the last and adds what they say. Tensor names are those of its
release; `*_b` belongs to the backward walk.
Shapes: B batch, L tokens, D width, E = expand * D inner width, N states, R rank of the step size Δ.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.ops import memory, native_library
from framecast.ops.causal_conv1d import bidirectional_conv1d, causal_conv1d
from framecast.ops.selective_scan import bidirectional_scan, selective_scan

Combine = Literal["sum", "mean"]
DtInit = Literal["videomamba", "mamba"]


class RMSNorm(nn.Module):
    """x / √(mean x² + ε) · w, in float32 also for narrower weights; the answer is as wide as the weight."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:  # (..., D) -> (..., D)
        room = memory.room_for(x, self.weight)
        if room is None:
            weight = self.weight.to(x.dtype)
            return F.rms_norm(x, weight.shape, weight, self.eps).to(self.weight.dtype)
        square = torch.mul(x, x, out=room)  # the same steps as rms_norm, in one place of memory
        scale = square.mean(-1, keepdim=True).add_(self.eps).rsqrt_()
        return torch.mul(x, scale, out=room).mul_(self.weight)


class Walk(NamedTuple):
    """Parameters of one direction."""

    conv1d: nn.Conv1d
    x_proj: nn.Linear
    dt_proj: nn.Linear
    A_log: Tensor
    D: Tensor


class MambaMixer(nn.Module):
    """u → x, z; for each direction: convolution, Δ B C, scan; gate by z; back to the width.

    combine: "sum" of both directions as the release has it, or their "mean": halving the sum keeps the
    activations of a deep stack in bounds, where users of the release saw them grow until they were NaN.
    """

    def __init__(
        self,
        width: int,
        *,
        expand: int = 2,
        d_state: int = 16,
        d_conv: int = 4,
        dt_rank: int | None = None,
        bidirectional: bool = True,
        combine: Combine = "sum",
    ) -> None:
        super().__init__()
        inner, rank = expand * width, dt_rank or math.ceil(width / 16)
        self.dt_rank, self.d_state = rank, d_state
        self.bidirectional = bidirectional
        self.scale = 0.5 if bidirectional and combine == "mean" else 1.0
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, width, bias=False)
        for ending in ("", "_b") if bidirectional else ("",):
            setattr(self, f"A{ending}_log", nn.Parameter(torch.zeros(inner, d_state)))
            setattr(self, f"D{ending}", nn.Parameter(torch.zeros(inner)))
            setattr(self, f"conv1d{ending}", nn.Conv1d(inner, inner, d_conv, groups=inner))
            setattr(self, f"x_proj{ending}", nn.Linear(inner, rank + 2 * d_state, bias=False))
            setattr(self, f"dt_proj{ending}", nn.Linear(rank, inner))
        self.init_weights()

    @property
    def walks(self) -> list[Walk]:
        """The forward walk and, of a bidirectional mixer, the backward one."""
        endings = ("", "_b") if self.bidirectional else ("",)
        names = [("conv1d" + e, "x_proj" + e, "dt_proj" + e, f"A{e}_log", "D" + e) for e in endings]
        return [Walk(*(getattr(self, name) for name in group)) for group in names]

    def init_weights(self, dt_init: DtInit = "mamba") -> None:
        """Mamba's: A = -1..-N, D = 1, and steps Δ spread over 0.001..0.1; other maps stay as they are.

        dt_init "videomamba": weights ~ truncated normal 0.02 and biases 0, as the release overwrites them by
        accident; every Δ then starts at softplus(0) = 0.69.
        """
        for walk in self.walks:
            weight, bias = walk.dt_proj.weight, walk.dt_proj.bias
            with torch.no_grad():
                walk.A_log.copy_(torch.arange(1, self.d_state + 1).log().expand_as(walk.A_log))
                walk.D.fill_(1.0)
                if dt_init == "videomamba":
                    nn.init.trunc_normal_(weight, std=0.02)
                    nn.init.zeros_(bias)
                else:
                    nn.init.uniform_(weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
                    steps = torch.empty_like(bias).uniform_(math.log(1e-3), math.log(0.1)).exp()
                    bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # softplus backwards

    def forward(self, tokens: Tensor, *, first_only: bool = False, mask: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); with first_only the first row of it, (B, 1, D), at a third of the cost.

        mask: (B, L), True = valid; the states of both walks take up nothing from other tokens.
        """
        assert mask is None or not first_only
        y = self._first_row(tokens) if first_only else self.mixed(tokens, mask)
        y = memory.linear(self.out_proj, y)
        return y if self.scale == 1.0 else y * self.scale

    def mixed(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the way back to the width is applied to: (B, L, D) -> (B, L, E)."""
        if mask is not None:
            tokens = tokens * mask[..., None]
        x, z = memory.linear(self.in_proj, tokens).chunk(2, dim=-1)  # (B, L, E) each, side by side in memory
        return self._both_directions(x, z, mask) if self.bidirectional else self._one_direction(x, z, mask)

    def _both_directions(self, x: Tensor, z: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, E) twice -> (B, L, E)."""
        batch, length, inner = x.shape
        conv, x_proj, dt_proj, A_log, D = zip(*self.walks, strict=True)
        kernels = torch.stack([c.weight[:, 0] for c in conv])  # (2, E, W)
        c = bidirectional_conv1d(x, kernels, torch.stack([c.bias for c in conv]), activation="silu")
        c = _masked(c, mask)
        rows = torch.stack([p.weight for p in x_proj])  # (2, R + 2 N, E)
        if native_library.eager_inference():  # matrix products want whole vectors of outputs
            rows = F.pad(rows, (0, 0, 0, -rows.shape[1] % 16))
        selected = memory.product(c.view(2, -1, inner), rows)  # (2, B L, ·)
        states = slice(self.dt_rank, self.dt_rank + 2 * self.d_state)
        low_rank, (B, C) = selected[..., : self.dt_rank], selected[..., states].chunk(2, dim=-1)
        delta = memory.product(low_rank, torch.stack([p.weight for p in dt_proj]))
        return bidirectional_scan(
            c,
            delta.view(2, batch, length, inner),
            -_wide(torch.stack(A_log)).exp(),
            B.unflatten(1, (batch, length)).unsqueeze(3),
            C.unflatten(1, (batch, length)).unsqueeze(3),
            torch.stack(D),
            z,
            delta_bias=torch.stack([p.bias for p in dt_proj]),
            delta_softplus=True,
        )

    def _one_direction(
        self, x: Tensor, z: Tensor | None, mask: Tensor | None = None, *, backwards: bool = False
    ) -> Tensor:
        """The scan of one walk, gated where z is given: (B, L, E) -> (B, L, E)."""
        conv, x_proj, dt_proj, A_log, D = self.walks[backwards]
        c = causal_conv1d(x, conv.weight[:, 0], conv.bias, activation="silu", reverse=backwards)
        c = _masked(c, mask)
        low_rank, B, C = x_proj(c).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = F.linear(low_rank, dt_proj.weight)
        A, bias = -_wide(A_log).exp(), dt_proj.bias
        B, C = B.unsqueeze(2), C.unsqueeze(2)
        return selective_scan(
            c, delta, A, B, C, D, z, delta_bias=bias, delta_softplus=True, reverse=backwards
        )

    def _first_row(self, tokens: Tensor) -> Tensor:
        """Row 0, gated, exact: forwards it has seen itself alone; backwards nobody else's gate matters."""
        to_x, to_z = self.in_proj.weight.chunk(2)
        x = F.linear(tokens if self.bidirectional else tokens[:, :1], to_x)
        y = self._one_direction(x[:, :1], None)
        if self.bidirectional:
            y = y + self._one_direction(x, None, backwards=True)[:, :1]
        return y * F.silu(F.linear(tokens[:, :1], to_z))


def _masked(c: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros at invalid tokens, where the bias of the convolution has put something."""
    return c if mask is None else c * mask[..., None]


def _wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
