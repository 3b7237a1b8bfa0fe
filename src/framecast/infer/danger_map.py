"""Maps of wildfire danger: every cell of a region, for regions of any size.

Each cell is judged by the window round it. "per-patch" cuts one window per cell, which is the definition;
"dense" computes what windows share once (`models/loan_dense.py`) and gives the same numbers. Cells less than
half a window from the border of the region have no whole window and stay nan, as does the sea.

Members of an ensemble are checkpoints, or one LOAN with some hidden units of its head left out, as dropout
does in training (MC dropout). A member leaves out the same units in all cells, so that its map hangs together
and depends neither on tiles nor on threads. What stands before the head is computed once for all members,
and what the static maps say once for all days.
Shapes: V dynamic and S static variables, T days with the latest first, H and W cells, C classes, N members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from framecast.models.loan import LOAN, check_days
from framecast.models.loan_dense import DenseLOAN, is_exact

Impl = Literal["auto", "dense", "per-patch"]
Masks = tuple[Tensor, Tensor]  # (N, 256) and (N, 128)
Box = tuple[int, int, int, int]  # first row and column, rows and columns
LARGEST_TILE = 256


@dataclass(frozen=True)
class DangerMap:
    """Probability of fire in every cell, and how far the members of an ensemble disagree."""

    probability: (
        np.ndarray
    )  # (H, W) float32, mean over members; nan where there is no whole window, and at sea
    spread: np.ndarray | None = None  # (H, W) standard deviation over members, None for a single one
    members: np.ndarray | None = None  # (N, H, W)


@dataclass(frozen=True)
class DayMaps:
    """What a model reads of one day. Arrays may be memory-mapped, or read when they are cut."""

    dynamic: Any  # (V, T, H, W)
    day: int | None = None  # of the year, 1..366


class DangerMapper:
    """Applies a model that judges windows to whole regions, tile by tile, on several threads.

    tile: side of a tile in cells that are judged; larger ones repeat less at their borders and take more
    memory; None = the largest up to 256 that `memory_mb` allows. threads: tiles at a time. impl: "auto" is
    "dense" where that is exact.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        tile: int | None = None,
        threads: int = 1,
        impl: Impl = "auto",
        batch: int = 32,
        memory_mb: float | None = None,
    ) -> None:
        if (tile is not None and tile < 1) or threads < 1 or batch < 1:
            raise ValueError(f"tile={tile}, threads={threads} and batch={batch} must be at least 1")
        exact = isinstance(model, LOAN) and is_exact(model)
        self.impl = ("dense" if exact else "per-patch") if impl == "auto" else impl
        if self.impl == "dense" and not isinstance(model, LOAN):
            raise ValueError(f"one pass over a region is for LOAN's CNN, not {type(model).__name__}")
        self.model: Any = model.eval()
        self.threads, self.batch = threads, batch
        self.window = self.model.config.window_cells
        self.tile = tile or tile_for(self.model, self.impl, memory_mb, threads)

    def log_prob(
        self, dynamic: Any, static: Any, *, day: int | None = None, land: np.ndarray | None = None
    ) -> Tensor:
        """dynamic (V, T, H, W), static (S, H, W), land (H, W) bool -> log-probabilities (C, H, W).

        Arrays may be memory-mapped: a tile at a time is read. day: 1..366.
        """
        out = torch.full((self.model.config.num_classes, *dynamic.shape[-2:]), torch.nan)

        def store(_: int, part: tuple[slice, slice], scores: Tensor) -> None:
            out[(slice(None), *part)] = scores[0].permute(2, 0, 1)

        self.judge([DayMaps(dynamic, day)], static, store, land=land)
        return out

    def probability(
        self, dynamic: Any, static: Any, *, day: int | None = None, land: np.ndarray | None = None
    ) -> np.ndarray:
        """P(fire) of every cell (H, W), the last class of the model."""
        return self.log_prob(dynamic, static, day=day, land=land)[-1].exp().numpy()

    def maps(
        self,
        days: Sequence[DayMaps],
        static: Any,
        *,
        land: np.ndarray | None = None,
        samples: int = 1,
        seed: int = 0,
        keep: bool = False,
    ) -> list[DangerMap]:
        """Maps of several days with the same static maps; samples: members by MC dropout, 1 = none.

        keep: give every member as well, not only their mean and spread.
        """
        if samples < 1:
            raise ValueError(f"samples={samples} must be at least 1, which is the model without dropout")
        masks = dropout_masks(self.model, samples, seed) if samples > 1 else None
        shape = (len(days), *static.shape[-2:])
        mean = np.full(shape, np.nan, dtype=np.float32)
        spread = np.full(shape, np.nan, dtype=np.float32) if samples > 1 else None
        members = np.full((samples, *shape), np.nan, dtype=np.float32) if keep else None

        def store(d: int, part: tuple[slice, slice], scores: Tensor) -> None:
            fire = scores[..., -1].exp().numpy()
            mean[(d, *part)] = fire.mean(0, dtype=np.float64)
            if spread is not None:
                spread[(d, *part)] = fire.std(0, dtype=np.float64)
            if members is not None:
                members[(slice(None), d, *part)] = fire

        self.judge(days, static, store, land=land, masks=masks)
        return [
            DangerMap(
                mean[d],
                None if spread is None else spread[d],
                None if members is None else members[:, d],
            )
            for d in range(len(days))
        ]

    def judge(
        self,
        days: Sequence[DayMaps],
        static: Any,
        store: Callable[[int, tuple[slice, slice], Tensor], None],
        *,
        land: np.ndarray | None = None,
        masks: Masks | None = None,
    ) -> None:
        """store(day's place in `days`, cells, log-probabilities (N, rows, columns, C)), tile by tile."""
        margin = self.window // 2
        for one in days:
            self._check(one, static, land)
        height, width = static.shape[-2:]
        known = None if land is None else np.asarray(land, dtype=bool)
        dense = DenseLOAN(self.model) if self.impl == "dense" else None

        def judge_tile(tile: Box) -> None:
            top, left, rows, columns = tile
            part = slice(top, top + rows + self.window - 1), slice(left, left + columns + self.window - 1)
            inner = slice(top + margin, top + margin + rows), slice(left + margin, left + margin + columns)
            still = _as_tensor(static[(..., *part)])
            places = None if dense is None else dense.places(still)
            for d, one in enumerate(days):
                moving = _as_tensor(one.dynamic[(..., *part)])
                when = None if one.day is None else torch.tensor([one.day])
                if dense is None or places is None:
                    chosen = None if known is None else known[inner]
                    scores = self._per_patch(moving, still, when, chosen, masks)
                else:
                    blocks = dense.features(moving, places)
                    scores = torch.cat([self._head(e, p, when, masks) for _, e, p in blocks], dim=1)
                if known is not None:
                    at_sea = torch.from_numpy(~known[inner])[..., None]
                    scores = torch.where(at_sea, torch.nan, scores)
                store(d, inner, scores)

        tiles = list(self._tiles(height, width, known))
        before = torch.get_num_threads()
        if self.threads == 1:
            for tile in tiles:
                judge_tile(tile)
            return
        with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(judge_tile, tiles))
        torch.set_num_threads(before)

    def _check(self, one: DayMaps, static: Any, land: np.ndarray | None) -> None:
        c, dynamic = self.model.config, one.dynamic
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
        if one.day is not None:
            check_days(torch.tensor([one.day]))

    def _tiles(self, height: int, width: int, land: np.ndarray | None) -> Iterator[Box]:
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
                    yield top + int(y.min()), left + int(x.min()), int(np.ptp(y)) + 1, int(np.ptp(x)) + 1

    @torch.inference_mode()
    def _head(self, events: Tensor, place: Tensor, day: Tensor | None, masks: Masks | None) -> Tensor:
        """(rows, columns, 256) and (rows, columns, 128) -> (N, rows, columns, C)."""
        flat = events.flatten(0, 1), place.flatten(0, 1)
        days = None if day is None else day.expand(len(flat[0]))
        if masks is None:
            scores = self.model.forward_head(*flat, days)[None]
        else:
            scores = self.model.forward_heads(*flat, days, masks)
        return scores.unflatten(1, events.shape[:2])

    @torch.inference_mode()
    def _per_patch(
        self,
        dynamic: Tensor,
        static: Tensor,
        day: Tensor | None,
        land: np.ndarray | None,
        masks: Masks | None,
    ) -> Tensor:
        """One window per cell, -> (N, rows, columns, C)."""
        side = self.window
        rows, columns = (n - side + 1 for n in dynamic.shape[-2:])
        chosen = np.ones((rows, columns), bool) if land is None else land
        places = np.argwhere(chosen)
        count = 1 if masks is None else len(masks[0])
        out = torch.full((count, rows, columns, self.model.config.num_classes), torch.nan)
        for first in range(0, len(places), self.batch):
            group = places[first : first + self.batch]
            windows = [
                torch.stack([maps[..., y : y + side, x : x + side] for y, x in group])
                for maps in (dynamic, static)
            ]
            days = None if day is None else day.expand(len(group))
            if masks is None:
                scores = self.model(*windows, *(() if days is None else (days,)))[None]
            else:
                scores = self.model.forward_heads(*self.model.features(*windows), days, masks)
            out[:, group[:, 0], group[:, 1]] = scores
        return out


def dropout_masks(model: nn.Module, samples: int, seed: int = 0) -> Masks:
    """What each member keeps of the two hidden layers that dropout thins, 0 or 1 / (1 - p)."""
    if not isinstance(model, LOAN):
        raise ValueError(
            f"MC dropout is for LOAN's CNN, whose head has dropout, not {type(model).__name__}; "
            "pass several checkpoints for a spread"
        )
    rate = model.config.dropout
    if not rate:
        raise ValueError("this model was made without dropout, so all members would be alike")
    generator = torch.Generator().manual_seed(seed)
    masks = [
        (torch.rand(samples, layer.out_features, generator=generator) >= rate).float() / (1 - rate)
        for layer in (model.head[0], model.head[1])
        if isinstance(layer, nn.Linear)
    ]
    return masks[0], masks[1]


# Memory ---------------------------------------------------------------------------------------------

FIXED_MB = {"dense": 25.0, "per-patch": 80.0}  # of a thread, whatever the tile: what is in work at a time


def tile_for(model: Any, impl: str, memory_mb: float | None, threads: int = 1) -> int:
    """Side of the largest tile, up to 256, whose work fits into memory_mb beside model and result.

    ValueError where not even a single cell's window does.
    """
    if memory_mb is None:
        return LARGEST_TILE
    side = LARGEST_TILE
    while side > 1 and working_mb(model, impl, side, threads) > memory_mb:
        side = side * 7 // 8
    if working_mb(model, impl, side, threads) > memory_mb:
        least = working_mb(model, impl, 1, threads)
        raise ValueError(
            f"{memory_mb:g} MB are too few for a danger map on {threads} threads; give {least:.0f} MB"
        )
    return side


def working_mb(model: Any, impl: str, tile: int, threads: int = 1) -> float:
    """Memory that tiles take at most while they are judged, beside model and result; from measurements."""
    c = model.config
    cells = (tile + c.window_cells - 1) ** 2
    numbers = 2 * c.num_dynamic * c.num_days + 2 * c.num_static  # read, and brought to float32
    if impl == "dense":
        numbers += 3 * c.num_dynamic * c.num_days  # each cell with its neighbours
        numbers += 4 * 2 * (32 + 64) + 128  # γ and β in four variants, static features
        numbers += 300  # the static branch on its way
    return threads * (FIXED_MB[impl] + 4 * numbers * cells / 2**20)


def _as_tensor(maps: Any) -> Tensor:
    return maps.float() if isinstance(maps, Tensor) else torch.from_numpy(np.array(maps, dtype=np.float32))
