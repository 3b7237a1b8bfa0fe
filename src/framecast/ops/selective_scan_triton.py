"""The selective scan on GPUs: what the Triton kernels are given, and what becomes of their answers.

Imports triton, so it is imported only where it is used. States and arithmetic are float32, whatever the dtype
of the inputs. With TRITON_INTERPRET=1 the kernels run on CPU tensors, slowly. Not tuned on a GPU yet: the
numbers below are first guesses.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from framecast.ops import selective_scan_triton_kernels as kernels

TILE = 64  # steps; one state is kept for each tile, N / 64 numbers per step and channel
INNER = 8  # steps whose states lie in registers on the way back
CHANNELS = 32  # of a block
WARPS = 4


def kept_shape(u: Tensor, A: Tensor) -> tuple[int, ...]:
    """Of the states before each tile: (S, B, T, D, N)."""
    directions, batch, steps, channels = u.shape
    return directions, batch, _parts(steps, TILE), channels, A.shape[-1]


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, L, D) in u's dtype, the last states (S, B, D, N) and the states before each tile, both float32.

    u, delta: (S, B, L, D); A: (S, D, N); B, C: (S, B, L, G, N) or (S, D, N); D, delta_bias: (S, D);
    z: (B, L, D); initial_state: (S, B, D, N). reverse: a single direction walks from the end.
    """
    walk = _Walk(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    kept = torch.empty(kept_shape(u, A), dtype=torch.float32, device=u.device)
    totals = kept.new_empty(kept.shape[:-1])
    y = torch.empty(u.shape[1:], dtype=u.dtype, device=u.device)
    walk.launch(
        kernels.ends,
        walk.directions * walk.batch,
        (*walk.given("u", "delta", "A", "B", "bias"), kept, totals),
        walk.strides("u", "delta", "B"),
        ("SOFTPLUS", "BIASED", "FIXED_B", "REVERSE"),
    )
    last = walk.carry(kept, totals, initial_state, backwards=False)
    walk.launch(
        kernels.answers,
        walk.batch,
        (*walk.given("u", "delta", "A", "B", "C", "D", "z", "bias"), kept, walk.partial(), y),
        walk.strides("u", "delta", "B", "C", "z"),
        ("SOFTPLUS", "BIASED", "SKIP", "GATED", "FIXED_B", "FIXED_C", "REVERSE", "DIRECTIONS"),
    )
    return y, last, kept


def scan_backward(
    grad_y: Tensor,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    kept: Tensor,
) -> list[Tensor | None]:
    """Gradients of u, delta, A, B, C, D, z, delta_bias and the initial state; None where there is none.

    Those of u, delta and z have their dtypes, the others are float32. kept: as `scan` gave it.
    """
    walk = _Walk(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    walk.tensors["grad"] = grad_y if grad_y.stride(-1) == 1 else grad_y.contiguous()
    pulls, totals = torch.empty_like(kept), kept.new_empty(kept.shape[:-1])
    walk.launch(
        kernels.pulls,
        walk.directions * walk.batch,
        (*walk.given("delta", "A", "C", "z", "grad", "bias"), pulls, totals),
        walk.strides("delta", "C", "z", "grad"),
        ("SOFTPLUS", "BIASED", "FIXED_C", "GATED", "REVERSE"),
    )
    grad_initial = walk.carry(pulls, totals, grad_last, backwards=True)
    grad_u, grad_delta = (torch.empty(u.shape, dtype=x.dtype, device=u.device) for x in (u, delta))
    grad_z = None if z is None else torch.empty(z.shape, dtype=z.dtype, device=u.device)
    parts_B, parts_C = walk.parts("B", kept), walk.parts("C", kept)
    parts_D, parts_bias = torch.empty_like(totals), torch.empty_like(totals)
    walk.launch(
        kernels.gradients,
        walk.batch,
        (
            *walk.given("u", "delta", "A", "B", "C", "D", "z", "bias", "grad"),
            *(kept, pulls, walk.partial(), walk.inner(), grad_u, grad_delta, parts_B, parts_C),
            *(kept if grad_z is None else grad_z, parts_D, parts_bias),
        ),
        walk.strides("u", "delta", "B", "C", "z", "grad"),
        ("SOFTPLUS", "BIASED", "SKIP", "GATED", "FIXED_B", "FIXED_C", "REVERSE", "DIRECTIONS", "INNER"),
    )
    return [
        grad_u,
        grad_delta,
        pulls.sum((1, 2)),  # where the kernel left A's
        walk.whole("B", parts_B),
        walk.whole("C", parts_C),
        None if D is None else parts_D.sum((1, 2)),
        grad_z,
        None if delta_bias is None else parts_bias.sum((1, 2)),
        grad_initial,
    ]


class _Walk:
    """The arguments as the kernels want them: tensors, distances, sizes and constants."""

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        delta_softplus: bool,
        reverse: bool,
    ) -> None:
        self.directions, self.batch, self.steps, self.channels = u.shape
        self.states = A.shape[-1]
        self.groups = max(x.shape[3] if x.dim() == 5 else 1 for x in (B, C))
        self.per_group = self.channels // self.groups
        self.blocks = self.groups * _parts(self.per_group, CHANNELS)
        self.constants = {
            "SOFTPLUS": delta_softplus,
            "BIASED": delta_bias is not None,
            "SKIP": D is not None,
            "GATED": z is not None,
            "FIXED_B": B.dim() == 3,
            "FIXED_C": C.dim() == 3,
            "REVERSE": reverse,
            "DIRECTIONS": self.directions,
            "INNER": INNER,
        }
        given = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "bias": delta_bias}
        whole = ("A", "D", "bias")  # and fixed B and C: read without distances
        self.tensors: dict[str, Tensor] = {}
        for name, x in given.items():
            if x is None:
                x = u  # the kernels do not read it
            elif x.stride(-1) != 1 or name in whole or (x.dim() == 3 and name in ("B", "C")):
                x = x.contiguous()
            self.tensors[name] = x

    def given(self, *names: str) -> list[Tensor]:
        return [self.tensors[name] for name in names]

    def strides(self, *names: str) -> list[int]:
        """Numbers from one direction, sequence, step and group to the next."""
        found: list[int] = []
        for name in names:
            axes = {"u": 3, "delta": 3, "B": 4, "C": 4, "z": 2, "grad": 2}[name]
            x = self.tensors[name]
            found += x.stride()[:axes] if x.dim() == axes + 1 else [0] * axes
        return found

    def launch(
        self,
        kernel: Any,
        sequences: int,
        given: tuple[Tensor, ...],
        strides: list[int],
        flags: tuple[str, ...],
    ) -> None:
        """Run a kernel on all tiles and blocks of channels."""
        sizes = (self.steps, self.channels, self.states, self.per_group, self.batch)
        constants = {name: self.constants[name] for name in flags}
        with _on(given[0].device):
            kernel[(_parts(self.steps, TILE), self.blocks, sequences)](
                *given, *sizes, *strides, **constants, TILE=TILE, **self._blocks(), num_warps=WARPS
            )

    def carry(self, ends: Tensor, totals: Tensor, start: Tensor | None, *, backwards: bool) -> Tensor:
        """Take the state from tile to tile in place of `ends`, and return the last one."""
        last = ends.new_empty(*ends.shape[:2], *ends.shape[3:])
        kernel: Any = kernels.carry
        with _on(ends.device):
            kernel[(_parts(self.channels, CHANNELS), self.directions * self.batch)](
                *(ends, totals, self.tensors["A"], last if start is None else start.contiguous(), last),
                *(self.channels, self.states, self.batch, ends.shape[2]),
                STARTED=start is not None,
                REVERSE=self.constants["REVERSE"] != backwards,
                **self._blocks(),
                num_warps=WARPS,
            )
        return last

    def partial(self) -> Tensor:
        """Memory for the answer of the first of two directions."""
        shape = (self.batch, self.steps, self.channels) if self.directions > 1 else (0,)
        return torch.empty(shape, dtype=torch.float32, device=self.tensors["u"].device)

    def inner(self) -> Tensor:
        """Memory for every INNER-th state."""
        number = _parts(self.steps, TILE) * TILE // INNER
        shape = (self.directions, self.batch, number, self.channels, self.states)
        return torch.empty(shape, dtype=torch.float32, device=self.tensors["u"].device)

    def parts(self, name: str, kept: Tensor) -> Tensor:
        """Memory for the gradient of B or C by blocks of channels, or by tiles where it is fixed."""
        if self.constants[f"FIXED_{name}"]:
            return torch.empty_like(kept)
        return kept.new_empty(self.directions, self.blocks, self.batch, self.steps, self.states)

    def whole(self, name: str, parts: Tensor) -> Tensor:
        """The gradient of B or C, from its parts."""
        if self.constants[f"FIXED_{name}"]:
            return parts.sum((1, 2))
        return parts.unflatten(1, (self.groups, -1)).sum(2).permute(0, 2, 3, 1, 4)

    def _blocks(self) -> dict[str, int]:
        return {"CHANNELS": CHANNELS, "STATES": _power_of_2(self.states)}


def _on(device: torch.device) -> Any:
    """Triton launches on the current GPU, which need not be the tensors' one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _parts(number: int, size: int) -> int:
    return -(-number // size)


def _power_of_2(number: int) -> int:
    """The smallest one that is not smaller: sizes of blocks have to be powers of two."""
    return 1 << (number - 1).bit_length()
