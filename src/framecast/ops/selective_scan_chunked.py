"""The selective scan in plain PyTorch, for any device and dtype: chunks of steps whose states stay in cache.

All exponentials of a chunk are one call, each step is one multiply-add in place, and the sums over states are
matrix products. Nothing is divided and no sums of delta are taken, so that no delta overflows. The backward
pass computes each chunk's states again from the state before the chunk, kept by the forward pass.

Shapes: T steps of a chunk, B batch, G groups, N states, P channels of a group; P lies innermost, so that
every inner loop is long.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from framecast.ops.selective_scan_reference import time_steps

CHUNK = 48  # steps from one kept state to the next; the native kernels share it


@dataclass(frozen=True)
class Walk:
    """The arguments of one direction in the dtype of the arithmetic, without the gate."""

    u: Tensor  # (B, L, D)
    delta: Tensor
    A: Tensor  # (D, N)
    B: Tensor  # (B, L, G, N) or (D, N)
    C: Tensor
    D: Tensor | None
    delta_bias: Tensor | None
    delta_softplus: bool
    reverse: bool

    @property
    def groups(self) -> int:
        return max(x.shape[2] if x.dim() == 4 else 1 for x in (self.B, self.C))

    def chunks(self) -> list[slice]:
        """Rows of each chunk, in the order in which they are walked."""
        steps = self.u.shape[1]
        firsts = range(0, steps, CHUNK)
        if self.reverse:
            return [slice(max(steps - first - CHUNK, 0), steps - first) for first in firsts]
        return [slice(first, min(first + CHUNK, steps)) for first in firsts]

    def channels(self, x: Tensor, rows: slice) -> Tensor:
        """Rows of (B, L, D) -> (T, B, G, 1, P) in walking order."""
        return self._in_order(x, rows).unflatten(-1, (self.groups, 1, x.shape[-1] // self.groups))

    def states(self, x: Tensor, rows: slice) -> Tensor:
        """Rows of (B, L, G, N) -> (T, B, G, N, 1) in walking order; fixed (D, N) -> (G, N, P)."""
        return self.fixed(x) if x.dim() == 2 else self._in_order(x, rows).unsqueeze(-1)

    def fixed(self, x: Tensor) -> Tensor:
        """(D, N) -> (G, N, P)."""
        return x.reshape(self.groups, -1, x.shape[-1]).transpose(1, 2).contiguous()

    def not_fixed(self, x: Tensor) -> Tensor:
        """(..., G, N, P) -> (..., D, N), the other way."""
        return x.transpose(-1, -2).flatten(-3, -2)

    def put(self, x: Tensor, to: Tensor, rows: slice) -> None:
        """(T, B, ...) in walking order into rows of (B, L, ...)."""
        to[:, rows] = (x.flip(0) if self.reverse else x).transpose(0, 1).reshape(to[:, rows].shape)

    def kept(self, states: Tensor) -> Tensor:
        """The memory (B, chunks, N, D) of kept states seen as (chunks, B, G, N, P)."""
        return states.unflatten(-1, (self.groups, -1)).permute(1, 0, 3, 2, 4)

    def _in_order(self, x: Tensor, rows: slice) -> Tensor:
        x = x[:, rows].transpose(0, 1)
        return x.flip(0) if self.reverse else x


class Memory:
    """Decays and states (T, B, G, N, P) of a chunk: one allocation that all chunks use."""

    def __init__(self, walk: Walk) -> None:
        steps, batch = min(CHUNK, walk.u.shape[1]), walk.u.shape[0]
        self.A = walk.fixed(walk.A)
        self.nothing = walk.u.new_zeros(batch, *self.A.shape)  # the state before the first step
        self.decay = walk.u.new_empty(steps, batch, *self.A.shape)
        self.states = walk.u.new_empty(steps + 1, batch, *self.A.shape)  # begins with the one before


class Chunk:
    """The states of one chunk, and what both passes need besides: t, t u, exp(t A)."""

    def __init__(self, walk: Walk, rows: slice, memory: Memory, state: Tensor) -> None:
        steps = rows.stop - rows.start
        self.u, self.delta = walk.channels(walk.u, rows), walk.channels(walk.delta, rows)
        if walk.delta_bias is not None:
            self.delta = self.delta + walk.delta_bias.view(walk.groups, 1, -1)
        self.t = time_steps(self.delta, None, walk.delta_softplus)
        self.tu = self.t * self.u
        self.B, self.C = walk.states(walk.B, rows), walk.states(walk.C, rows)
        self.decay = torch.mul(self.t, memory.A, out=memory.decay[:steps]).exp_()
        self.before, self.states = memory.states[:steps], memory.states[1 : steps + 1]
        memory.states[0] = state
        torch.mul(self.tu, self.B, out=self.states)
        previous = memory.states[0]
        for decay, h in zip(self.decay.unbind(), self.states.unbind(), strict=True):
            previous = h.addcmul_(decay, previous)


def _summed(weights: Tensor, states: Tensor) -> Tensor:
    """Sum over N of weights (T, B, G, N, 1) or (G, N, P) times states (T, B, G, N, P), N kept as 1."""
    if weights.dim() == 3:
        return (weights * states).sum(-2, keepdim=True)
    return weights.transpose(-1, -2) @ states


def _gradient_of_weights(weights: Tensor, grad: Tensor, states: Tensor) -> Tensor:
    """The other side of `_summed`, for grad (T, B, G, 1, P)."""
    if weights.dim() == 3:
        return (grad * states).sum((0, 1))
    return states @ grad.transpose(-1, -2)


def forward(walk: Walk, initial_state: Tensor | None, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the last state (B, D, N); `kept` (B, chunks, N, D) gets the state before each chunk."""
    memory = Memory(walk)
    state = memory.nothing
    if initial_state is not None:
        state = initial_state.unflatten(1, (walk.groups, -1)).transpose(-1, -2)
    y = torch.empty_like(walk.u, memory_format=torch.contiguous_format)
    for i, rows in enumerate(walk.chunks()):
        if kept is not None:
            walk.kept(kept)[i] = state
        chunk = Chunk(walk, rows, memory, state)
        walk.put(_summed(chunk.C, chunk.states), y, rows)
        state = chunk.states[-1]
    if walk.D is not None:
        y.addcmul_(walk.u, walk.D)
    return y, walk.not_fixed(state).contiguous()


@dataclass
class Gradients:
    """Of a walk's arguments; `y` is the answer itself, which the gate's gradient needs."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor
    y: Tensor


def backward(walk: Walk, kept: Tensor, grad_y: Tensor, grad_last: Tensor | None) -> Gradients:
    """From the gradients of y (B, L, D) and of the last state (B, D, N), walking the other way."""
    memory = Memory(walk)
    reach = torch.empty_like(memory.decay)  # gradient of each state
    u, delta, y = (torch.empty_like(walk.u, memory_format=torch.contiguous_format) for _ in range(3))
    B, C = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (walk.B, walk.C))
    A = torch.zeros_like(memory.A)
    carry = memory.nothing
    if grad_last is not None:
        carry = grad_last.unflatten(1, (walk.groups, -1)).transpose(-1, -2)
    for i, rows in reversed(list(enumerate(walk.chunks()))):
        chunk = Chunk(walk, rows, memory, walk.kept(kept)[i])
        grad = walk.channels(grad_y, rows)
        walk.put(_summed(chunk.C, chunk.states), y, rows)
        grad_state = torch.mul(grad, chunk.C, out=reach[: rows.stop - rows.start])
        steps, decays = grad_state.unbind(), chunk.decay.unbind()
        steps[-1].add_(carry)
        for step in reversed(range(len(steps) - 1)):
            steps[step].addcmul_(decays[step + 1], steps[step + 1])
        carry = decays[0] * steps[0]

        for gradient, to in (
            (_gradient_of_weights(chunk.B, chunk.tu, grad_state), B),
            (_gradient_of_weights(chunk.C, grad, chunk.states), C),
        ):
            if to.dim() == 2:
                to += walk.not_fixed(gradient)
            else:
                walk.put(gradient, to, rows)
        grad_tu = _summed(chunk.B, grad_state)
        grad_exponent = grad_state.mul_(chunk.decay).mul_(chunk.before)
        A += torch.mul(grad_exponent, chunk.t, out=chunk.decay).sum((0, 1))
        grad_t = grad_exponent.mul_(memory.A).sum(-2, keepdim=True).addcmul_(chunk.u, grad_tu)
        if walk.delta_softplus:
            grad_t *= torch.sigmoid(chunk.delta)
        walk.put(grad_tu * chunk.t, u, rows)
        walk.put(grad_t, delta, rows)
    if walk.D is not None:
        u.addcmul_(grad_y, walk.D)
        y.addcmul_(walk.u, walk.D)
    return Gradients(
        u=u,
        delta=delta,
        A=walk.not_fixed(A),
        B=B,
        C=C,
        D=None if walk.D is None else (grad_y * walk.u).sum((0, 1)),
        delta_bias=None if walk.delta_bias is None else delta.sum((0, 1)),
        initial_state=walk.not_fixed(carry),
        y=y,
    )
