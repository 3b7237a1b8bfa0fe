"""The selective scan of Mamba, channels-last, forwards, backwards or both ways at once.

    t = softplus(delta + delta_bias)
    h_l = exp(t_l A) h_{l-1} + t_l u_l B_l
    y_l = (C_l h_l + D u_l) silu(z_l)

Gu, Dao 2023, https://arxiv.org/abs/2312.00752. Shapes: B batch, L steps, D channels, N states, G groups of
D / G channels that share B and C. States and arithmetic are float32 also for half-precision inputs and under
autocast, float64 for float64; the answer has u's dtype.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from framecast.ops import selective_scan_reference as reference
from framecast.ops.selective_scan_op import Implementation, run


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    *,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    reverse: bool = False,
    return_state: bool = False,
    impl: Implementation = "auto",
) -> Any:
    """y (B, L, D), or (y, last state) with return_state.

    u, delta, z: (B, L, D); A: (D, N); B, C: (B, L, G, N) for each step, or (D, N) fixed; D, delta_bias: (D,);
    initial_state and the last state: (B, D, N).
    reverse: from the last step to the first; the last state is then the one after step 0.
    impl: "reference" a loop over steps, "chunked" plain PyTorch, "native" compiled for the CPU, "triton" for
    GPUs, "auto" the fastest of them here.
    """
    _check((), u, delta, A, B, C, D, z, delta_bias, initial_state)
    if impl == "reference":
        y, state = reference.scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse)
    else:
        D, delta_bias, initial_state = (
            None if x is None else x[None] for x in (D, delta_bias, initial_state)
        )
        directions = (x[None] for x in (u, delta, A, B, C))
        y, state = run(*directions, D, z, delta_bias, initial_state, delta_softplus, reverse, impl)
        state = state[0]
    return (y, state) if return_state else y


def bidirectional_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    *,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    impl: Implementation = "auto",
) -> Tensor:
    """Both directions of a bidirectional mixer, added and gated once: (y_forwards + y_backwards) silu(z).

    As in `selective_scan`, with direction 0 walking forwards and 1 from the end: u, delta: (2, B, L, D);
    A: (2, D, N); B, C: (2, B, L, G, N) or (2, D, N); D, delta_bias: (2, D); z and the answer: (B, L, D).
    """
    _check((2,), u, delta, A, B, C, D, z, delta_bias, None)
    if impl == "reference":
        y = torch.zeros((), dtype=reference.compute_dtype(u), device=u.device)
        for i in range(2):
            D_i, bias_i = (None if x is None else x[i] for x in (D, delta_bias))
            u_i = u[i].to(y.dtype)  # keeps the sum in the dtype of the arithmetic
            arguments = (delta[i], A[i], B[i], C[i], D_i, None, bias_i, delta_softplus)
            y = y + reference.scan(u_i, *arguments, reverse=i == 1)[0]
        return (y if z is None else y * F.silu(z.to(y.dtype))).to(u.dtype)
    return run(u, delta, A, B, C, D, z, delta_bias, None, delta_softplus, False, impl)[0]


def selective_scan_step(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    *,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of a stream: y (B, D) and the new state.

    state: (B, D, N), zeros before the first step; u, delta, z: (B, D); B, C: (B, G, N) or (D, N); the others
    as in `selective_scan`, whose steps these are.
    """
    dtype = reference.compute_dtype(u)
    delta, A, B, C, state = (x.to(dtype) for x in (delta, A, B, C, state))
    D, z, delta_bias = (None if x is None else x.to(dtype) for x in (D, z, delta_bias))
    t = reference.time_steps(delta, delta_bias, delta_softplus)
    y, state = reference.step(state, u.to(dtype), t, A, B, C, D)
    return (y if z is None else y * F.silu(z)).to(u.dtype), state


def _check(
    directions: tuple[int, ...],
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
) -> None:
    """Refuses shapes that do not fit together, naming the first such argument."""
    ahead = len(directions)
    if u.dim() != 3 + ahead or u.shape[:ahead] != directions:
        wanted = ", ".join((*map(str, directions), "batch", "steps", "channels"))
        raise ValueError(f"u has shape {tuple(u.shape)}; expected ({wanted})")
    if A.dim() != 2 + ahead:
        raise ValueError(f"A has shape {tuple(A.shape)}; expected (channels, states) of each direction")
    batch, steps, channels = u.shape[ahead:]
    states = A.shape[-1]
    shapes: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "delta": (delta, (*directions, batch, steps, channels)),
        "A": (A, (*directions, channels, states)),
        "D": (D, (*directions, channels)),
        "z": (z, (batch, steps, channels)),
        "delta_bias": (delta_bias, (*directions, channels)),
        "initial_state": (initial_state, (*directions, batch, channels, states)),
    }
    groups = {x.shape[-2] for x in (B, C) if x.dim() == 4 + ahead}
    if len(groups) > 1 or any(g < 1 or channels % g for g in groups):
        raise ValueError(f"B and C have {sorted(groups)} groups; {channels} channels need equal groups")
    for name, x in (("B", B), ("C", C)):
        fixed, grouped = (channels, states), (batch, steps, *groups, states)
        shapes[name] = (x, (*directions, *(fixed if x.dim() == 2 + ahead else grouped)))
    for name, (x, shape) in shapes.items():
        if x is not None and x.shape != shape:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; with this u and A it must be {shape}")
