"""Frames with margins: which patches are valid, the box that a frame is cropped to, tokens by frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Crop = Literal["box", "release"]


@dataclass(frozen=True)
class Box:
    """Patches of a frame from (top, left), so many rows and columns."""

    top: int
    left: int
    rows: int
    columns: int

    @property
    def size(self) -> tuple[int, int]:
        return self.rows, self.columns


@dataclass(frozen=True)
class VisualTokens:
    """What a language model reads of a clip, frame by frame; frames may differ in length."""

    frames: tuple[Tensor, ...]  # (n, L) each: context, then rows with their ends; (0, L) = left out
    grids: tuple[tuple[int, int], ...]  # rows, columns of each frame's tokens; (0, 0) = left out

    @property
    def num_tokens(self) -> int:
        return sum(len(frame) for frame in self.frames)


def valid_patches(valid: Tensor, clips: Tensor, patch_size: int) -> Tensor:
    """(B, T, h, w) bool of pixels (B, T, H, W): patches with any valid pixel."""
    wanted = (clips.shape[0], *clips.shape[2:])
    if tuple(valid.shape) != wanted:
        raise ValueError(f"valid is {tuple(valid.shape)}; clips of {tuple(clips.shape)} need {wanted}")
    return F.max_pool2d((valid != 0).float(), patch_size) > 0


def boxes_of(patches: Tensor, crop: Crop) -> list[Box | None]:
    """The box round the valid patches of every frame (F, h, w), None for an empty one; one wait for a device.

    crop: "release" spans from the first to the last valid patch in reading order, the same for a rectangle.
    """
    boxes: list[Box | None] = []
    for frame in patches.cpu().numpy():
        rows, columns = frame.nonzero()
        if not len(rows):
            boxes.append(None)
            continue
        left, right = (columns[0], columns[-1]) if crop == "release" else (columns.min(), columns.max())
        boxes.append(Box(int(rows[0]), int(left), int(rows[-1] - rows[0]) + 1, max(int(right - left) + 1, 0)))
    return boxes


def same_size(boxes: Sequence[Box | None], *, alone: bool) -> Iterator[list[int]]:
    """Indices of frames whose boxes have one size, in groups; `alone` = every frame by itself."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, box in enumerate(boxes):
        if box is not None:
            groups[(*box.size, i) if alone else box.size].append(i)
    yield from groups.values()


def grid_positions(
    first: int, length: int, grid: tuple[int, int], *, context: bool = True, row_ends: bool = True
) -> Tensor:
    """Positions of a frame's grid, row by row, (rows * columns,), where its tokens start at `first`.

    Of the frame's `length` tokens the context in front and the ends of rows are passed over.
    """
    rows, columns = grid
    step = columns + row_ends
    if length != context + rows * step:
        raise ValueError(
            f"a frame of {rows} x {columns} tokens has {context + rows * step}, but got {length}"
        )
    starts = first + context + step * torch.arange(rows)
    return (starts[:, None] + torch.arange(columns)).flatten()
