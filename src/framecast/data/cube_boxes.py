"""Boxes of a cube that fit into memory, and what reading windows from a store's chunks costs.

Shapes are (time steps, rows, columns).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from framecast.data.cube_variables import StoredMap

Shape = tuple[int, ...]
Box = tuple[slice, slice, slice]
BYTES = 40  # per value while a box is read, converted, judged and written
WASTE = 50  # times what a window needs: a layout is called bad from here on


def plan_box(size: Shape, chunk: Shape | None, unit: Shape, memory_mb: float) -> Shape:
    """A box of whole `unit`s that holds whole chunks of the store as far as memory allows.

    Chunks that are larger than the box are read several times, once for each box that they reach into.
    """
    budget = max(1, int(memory_mb * 2**20) // BYTES)
    box = [min(u, s) for u, s in zip(unit, size, strict=True)]
    for axis in (1, 2, 0):  # memory that is too small even for one unit
        while prod(box) > budget and box[axis] > 1:
            box[axis] = (box[axis] + 1) // 2
    goal = size if chunk is None else chunk
    goal = [min(s, -(-g // u) * u) for g, u, s in zip(goal, unit, size, strict=True)]
    if chunk is None:  # in one piece: rows lie together
        goal[0] = box[0]
    while True:
        wider = [
            (goal[axis] / box[axis], axis)
            for axis in range(3)
            if box[axis] < goal[axis] and prod(box) // box[axis] * min(2 * box[axis], goal[axis]) <= budget
        ]
        if not wider:
            return tuple(box)
        axis = max(wider)[1]
        box[axis] = min(2 * box[axis], goal[axis])


def boxes(size: Shape, box: Shape) -> Iterator[Box]:
    """Boxes in order of time, rows and columns that cover all of it."""
    for t in range(0, size[0], box[0]):
        for y in range(0, size[1], box[1]):
            for x in range(0, size[2], box[2]):
                yield (
                    slice(t, min(t + box[0], size[0])),
                    slice(y, min(y + box[1], size[1])),
                    slice(x, min(x + box[2], size[2])),
                )


def chunk_of(stored: StoredMap) -> Shape | None:
    """Chunk of a variable as (time, y, x), None where it is in one piece."""
    axes, found = stored.axes, stored.stored.chunks
    if found is None:
        return None
    of = dict(zip(stored.stored.dims, found, strict=True))
    return of.get(axes.time, 1), of.get(axes.y_name, 1), of.get(axes.x_name, 1)


def chunk_bytes(stored: StoredMap) -> int:
    chunks = stored.stored.chunks
    return prod(chunks) * max(stored.stored.dtype.itemsize, 4) if chunks else 0


def waste(chunk: Shape | None, size: Shape, window: Shape) -> float:
    """How many times more is read than is needed for a window that lies anywhere."""
    if chunk is None:
        return 1.0
    touched = [
        min(-(-s // c), (w - 1) / c + 1) * c
        for c, s, w in zip(chunk, size, (min(w, s) for w, s in zip(window, size, strict=True)), strict=True)
    ]
    return float(np.prod(touched) / prod(min(w, s) for w, s in zip(window, size, strict=True)))
