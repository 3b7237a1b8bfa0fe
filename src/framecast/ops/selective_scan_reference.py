"""The selective scan written down step by step: the definition that the fast paths are tested against.

Gu, Dao 2023, https://arxiv.org/abs/2312.00752. Shapes: B batch, L steps, D channels, N states, G groups.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def compute_dtype(u: Tensor) -> torch.dtype:
    """States and arithmetic are float32 also for half-precision inputs; float64 stays what it is."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def step(
    state: Tensor, u: Tensor, t: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None
) -> tuple[Tensor, Tensor]:
    """h = exp(t A) h + t u B; y = C h + D u, for one step whose t already went through bias and softplus.

    state: (B, D, N); u, t: (B, D); B, C: (B, G, N), or (D, N) fixed. Answer: y (B, D), new state.
    """
    B, C = (
        x if x.dim() == 2 else x.repeat_interleave(u.shape[1] // x.shape[1], dim=1) for x in (B, C)
    )  # (B, D, N): the channels of a group share them
    state = torch.exp(t.unsqueeze(-1) * A) * state + (t * u).unsqueeze(-1) * B
    y = (state * C).sum(-1)
    return (y if D is None else y + D * u), state


def time_steps(delta: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    t = delta if delta_bias is None else delta + delta_bias
    return F.softplus(t) if delta_softplus else t


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """y (B, L, D) in u's dtype and the state after the last step walked (B, D, N); see `selective_scan`."""
    dtype = compute_dtype(u)
    answer_dtype = u.dtype
    u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
    D, z, delta_bias, state = (None if x is None else x.to(dtype) for x in (D, z, delta_bias, initial_state))
    steps, channels = u.shape[1:]
    t = time_steps(delta, delta_bias, delta_softplus)
    if state is None:
        state = u.new_zeros(u.shape[0], channels, A.shape[1])
    y: list[Tensor] = [u] * steps
    for i in reversed(range(steps)) if reverse else range(steps):
        B_i, C_i = (x if x.dim() == 2 else x[:, i] for x in (B, C))
        y[i], state = step(state, u[:, i], t[:, i], A, B_i, C_i, D)
    out = torch.stack(y, dim=1)
    return (out if z is None else out * F.silu(z)).to(answer_dtype), state
