"""Maps of wildfire danger: every cell of a region, for regions of any size.

Each cell is judged by the window round it. "per-patch" cuts one window per cell, which is the definition;
"dense" computes what windows share once (`models/loan_dense.py`) and gives the same numbers. Cells less than
half a window from the border of the region have no whole window and stay nan, as does the sea.
Shapes: V dynamic and S static variables, T days with the latest first, H and W cells, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from framecast.models.loan import LOAN, check_days
from framecast.models.loan_dense import DenseLOAN, is_exact

Impl = Literal["auto", "dense", "per-patch"]


@dataclass(frozen=True)
class DangerMap:
    """Probability of fire in every cell, and how far the members of an ensemble disagree."""

    probability: (
        np.ndarray
    )  # (H, W) float32, mean over members; nan where there is no whole window, and at sea
    spread: np.ndarray | None = None  # (H, W) standard deviation over members, None for a single one
    members: np.ndarray | None = None  # (N, H, W)


class DangerMapper:
    """Applies a model that judges windows to whole regions, tile by tile, on several threads.

    tile: side of a tile in cells that are judged; larger ones repeat less at their borders and take more
    memory. threads: tiles at a time. impl: "auto" is "dense" where that is exact.
    """

    def __init__(
        self, model: nn.Module, *, tile: int = 256, threads: int = 1, impl: Impl = "auto", batch: int = 32
    ) -> None:
        if tile < 1 or threads < 1 or batch < 1:
            raise ValueError(f"tile={tile}, threads={threads} and batch={batch} must be at least 1")
        exact = isinstance(model, LOAN) and is_exact(model)
        self.impl = ("dense" if exact else "per-patch") if impl == "auto" else impl
        if self.impl == "dense" and not isinstance(model, LOAN):
            raise ValueError(f"one pass over a region is for LOAN's CNN, not {type(model).__name__}")
        self.model: Any = model.eval()
        self.tile, self.threads, self.batch = tile, threads, batch
        self.window = self.model.config.window_cells

    def log_prob(
        self, dynamic: Any, static: Any, *, day: int | None = None, land: np.ndarray | None = None
    ) -> Tensor:
        """dynamic (V, T, H, W), static (S, H, W), land (H, W) bool -> log-probabilities (C, H, W).

        Arrays may be memory-mapped: a tile at a time is read. day: 1..366.
        """
        c, margin = self.model.config, self.window // 2
        height, width = dynamic.shape[-2:]
        if tuple(dynamic.shape[:2]) != (c.num_dynamic, c.num_days) or tuple(static.shape) != (
            c.num_static, height, width
        ):  # fmt: skip
            raise ValueError(
                f"maps have shapes {tuple(dynamic.shape)} and {tuple(static.shape)}; this model reads "
                f"({c.num_dynamic}, {c.num_days}, H, W) and ({c.num_static}, H, W)"
            )
        if height < self.window or width < self.window:
            raise ValueError(f"a region of {height}x{width} cells holds no window of {self.window}")
        if land is not None and land.shape != (height, width):
            raise ValueError(f"the land mask has shape {land.shape}, but the region {(height, width)}")
        when = None if day is None else torch.tensor([day])
        if when is not None:
            check_days(when)
        out = torch.full((c.num_classes, height, width), torch.nan)
        dense = DenseLOAN(self.model) if self.impl == "dense" else None

        def judge(box: tuple[int, int, int, int]) -> None:
            top, left, rows, columns = box
            part = slice(top, top + rows + self.window - 1), slice(left, left + columns + self.window - 1)
            maps = [_as_tensor(x[(..., *part)]) for x in (dynamic, static)]
            inner = slice(top + margin, top + margin + rows), slice(left + margin, left + margin + columns)
            if dense is None:
                scores = self._per_patch(maps[0], maps[1], when, None if land is None else land[inner])
            else:
                scores = torch.cat([block for _, block in dense.rows(maps[0], maps[1], when)])
            out[:, inner[0], inner[1]] = scores.permute(2, 0, 1)

        boxes = list(self._tiles(height, width, land))
        before = torch.get_num_threads()
        if self.threads == 1:
            for box in boxes:
                judge(box)
        else:
            with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                list(pool.map(judge, boxes))
            torch.set_num_threads(before)
        if land is not None:
            out[:, ~torch.from_numpy(np.asarray(land, dtype=bool))] = torch.nan
        return out

    def probability(
        self, dynamic: Any, static: Any, *, day: int | None = None, land: np.ndarray | None = None
    ) -> np.ndarray:
        """P(fire) of every cell (H, W), the last class of the model."""
        return self.log_prob(dynamic, static, day=day, land=land)[-1].exp().numpy()

    def _tiles(self, height: int, width: int, land: np.ndarray | None) -> Iterator[tuple[int, int, int, int]]:
        """First row and column, rows and columns of each tile's windows; close round its land."""
        rows, columns, margin = height - self.window + 1, width - self.window + 1, self.window // 2
        for top in range(0, rows, self.tile):
            for left in range(0, columns, self.tile):
                h, w = min(self.tile, rows - top), min(self.tile, columns - left)
                if land is None:
                    yield top, left, h, w
                    continue
                y, x = np.nonzero(land[top + margin : top + margin + h, left + margin : left + margin + w])
                if len(y):
                    yield top + y.min(), left + x.min(), int(np.ptp(y)) + 1, int(np.ptp(x)) + 1

    @torch.inference_mode()
    def _per_patch(
        self, dynamic: Tensor, static: Tensor, day: Tensor | None, land: np.ndarray | None
    ) -> Tensor:
        """One window per cell, -> (rows, columns, C)."""
        side = self.window
        rows, columns = (n - side + 1 for n in dynamic.shape[-2:])
        chosen = np.ones((rows, columns), bool) if land is None else np.asarray(land, dtype=bool)
        places = np.argwhere(chosen)
        out = torch.full((rows, columns, self.model.config.num_classes), torch.nan)
        for first in range(0, len(places), self.batch):
            group = places[first : first + self.batch]
            windows = [
                torch.stack([maps[..., y : y + side, x : x + side] for y, x in group])
                for maps in (dynamic, static)
            ]
            days = () if day is None else (day.expand(len(group)),)
            out[group[:, 0], group[:, 1]] = self.model(*windows, *days)
        return out


def ensemble(
    models: Sequence[nn.Module],
    dynamic: Any,
    static: Any,
    *,
    day: int | None = None,
    land: Any = None,
    **options: Any,
) -> DangerMap:
    """Maps of several checkpoints, their mean and spread; options are those of `DangerMapper`."""
    if not models:
        raise ValueError("an ensemble needs at least one model")
    maps = [DangerMapper(m, **options).probability(dynamic, static, day=day, land=land) for m in models]
    members = np.stack(maps)
    return DangerMap(members.mean(0), members.std(0) if len(maps) > 1 else None, members)


def _as_tensor(maps: Any) -> Tensor:
    return maps.float() if isinstance(maps, Tensor) else torch.from_numpy(np.array(maps, dtype=np.float32))
