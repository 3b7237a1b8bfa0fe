"""One layer of VideoMamba written straight from the equations, the way the release's own PyTorch path runs.

Channel first; each direction is computed by itself on a flipped copy; exp(Δ A) and Δ B u are laid out for all
steps at once, and a Python loop walks over them. Tensor names are those of the release.
Shapes: B batch, L tokens, D width, E inner width, N states, R rank of Δ.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def reference_layer(weights: Weights, h: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """The next pair (h, r), each (B, L, D)."""
    r = r + h
    normed = r * torch.rsqrt(r.square().mean(-1, keepdim=True) + 1e-5) * weights["norm.weight"]
    return reference_mixer(weights, normed), r


def reference_mixer(weights: Weights, u: Tensor) -> Tensor:  # (B, L, D) -> (B, L, D)
    mixer = {key.removeprefix("mixer."): tensor for key, tensor in weights.items()}
    xz = torch.matmul(mixer["in_proj.weight"], u.transpose(1, 2))  # (B, 2 E, L)
    y = reference_direction(mixer, xz, "")
    y = y + reference_direction(mixer, xz.flip(2), "_b").flip(2)
    return F.linear(y.transpose(1, 2), mixer["out_proj.weight"])


def reference_direction(mixer: Weights, xz: Tensor, ending: str) -> Tensor:  # (B, 2 E, L) -> (B, E, L)
    x, z = xz.chunk(2, dim=1)
    kernel, bias = mixer[f"conv1d{ending}.weight"], mixer[f"conv1d{ending}.bias"]
    x = F.silu(F.conv1d(F.pad(x, (kernel.shape[2] - 1, 0)), kernel, bias, groups=len(kernel)))
    A = -torch.exp(mixer[f"A{ending}_log"])
    states, rank = A.shape[1], mixer[f"dt_proj{ending}.weight"].shape[1]
    selected = F.linear(x.transpose(1, 2), mixer[f"x_proj{ending}.weight"])
    low_rank, B, C = selected.split([rank, states, states], dim=2)
    B, C = B.transpose(1, 2).contiguous(), C.transpose(1, 2).contiguous()  # (B, N, L)
    delta = torch.matmul(mixer[f"dt_proj{ending}.weight"], low_rank.transpose(1, 2))
    delta = F.softplus(delta + mixer[f"dt_proj{ending}.bias"][:, None])
    decay = torch.exp(torch.einsum("bel,en->beln", delta, A))
    pushed = torch.einsum("bel,bnl,bel->beln", delta, B, x)
    h, answers = x.new_zeros(len(x), *A.shape), []
    for step in range(x.shape[2]):
        h = decay[:, :, step] * h + pushed[:, :, step]
        answers.append(torch.einsum("ben,bn->be", h, C[:, :, step]))
    y = torch.stack(answers, dim=2) + mixer[f"D{ending}"][:, None] * x
    return y * F.silu(z)
