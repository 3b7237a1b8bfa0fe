"""Memory for large intermediate results of inference on the CPU: on huge pages, used again by later layers.

The rows of a wide matrix lie on different pages, more than a processor keeps the addresses of, and pages that
were given back must be cleared when they are taken again. With pages of 2 MB that stay while a model runs, a
Mamba layer takes a sixth less time.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import weakref
from collections.abc import Generator
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAGE = 2 << 20  # bytes of a huge page

_local = threading.local()  # .free: blocks that wait to be used again, None where nothing is


@contextlib.contextmanager
def reused() -> Generator[None]:
    """Inside, large tensors of this module are made in memory of earlier ones that are no longer in use.

    For inference on this thread, on systems that have huge pages; elsewhere it changes nothing. All is given
    back at the end, or with the last tensor in it.
    """
    if _blocks() is not None or not hasattr(mmap, "MADV_HUGEPAGE"):
        yield
        return
    _local.free = []
    try:
        yield
    finally:
        _local.free = None


def empty(*shape: int) -> Tensor:
    """Uninitialised float32 on the CPU.

    Outside `reused`, numpy asks malloc plainly, and what is given back fits the next request of that size.
    torch asks for an alignment, for which glibc needs a larger hole (its bug 30723), so that long videos
    would fray the heap.
    """
    free, numbers = _blocks(), prod(shape)
    if free is None or 4 * numbers < PAGE:
        return torch.from_numpy(np.empty(shape, dtype=np.float32))
    needed = PAGE + 4 * numbers  # it begins with a page
    block = min((b for b in free if needed <= len(b) <= 2 * needed), key=len, default=None)
    if block is None:
        block = _new_block(needed)
    else:
        free.remove(block)
    start = -np.frombuffer(block, dtype=np.uint8, count=1).ctypes.data % PAGE
    array = np.frombuffer(block, dtype=np.float32, count=numbers, offset=start).reshape(shape)
    weakref.finalize(array, free.append, block)  # torch holds the array as long as a tensor needs it
    return torch.from_numpy(array)


def room_for(*operands: Tensor) -> Tensor | None:
    """What to pass as `out` for an answer of the first operand's shape: None outside `reused`."""
    return empty(*operands[0].shape) if _writable(*operands) else None


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """layer(x), in memory of `empty` inside `reused`."""
    watched = layer._forward_hooks or layer._forward_pre_hooks
    if type(layer) is nn.Linear and layer.bias is None and not watched:
        return product(x, layer.weight)
    return layer(x)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., L, D) times weight (E, D) or (..., E, D) transposed, in memory of `empty` inside `reused`."""
    if not _writable(x, weight):
        return F.linear(x, weight) if weight.dim() == 2 else x @ weight.mT
    out = empty(*x.shape[:-1], weight.shape[-2])
    if weight.dim() == 2:
        torch.mm(x.flatten(0, -2), weight.t(), out=out.flatten(0, -2))
        return out
    return torch.matmul(x, weight.mT, out=out)


def _writable(*operands: Tensor) -> bool:
    """Whether an operator on these may be given memory of ours for its answer."""
    if _blocks() is None or torch.is_grad_enabled():
        return False
    return all(x.dtype == torch.float32 and x.device.type == "cpu" for x in operands)


def _blocks() -> list[mmap.mmap] | None:
    return getattr(_local, "free", None)


def _new_block(size: int) -> mmap.mmap:
    block = mmap.mmap(-1, -(-size // PAGE) * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        block.madvise(mmap.MADV_HUGEPAGE)
    return block
