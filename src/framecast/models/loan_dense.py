"""LOAN on every window of a region in one pass, with the numbers that each window alone would give.

Strides become distances: what a window pools or convolves in steps of 2 or 4 cells is computed at every
cell, once for all windows that share it. Only the zeros that pad γ and β depend on where a window begins. So
four variants of every map are kept: of an inner cell (0), of one in a window's first row (1), first column
(2), in its first corner (3); a step over a window takes its first row and column from those. The last
rows and columns of windows are dropped by pooling when the side is 4 k + 1, as in the release (25).

Products that variants share are computed once: a 3 x 3 convolution of four variants takes 16 products of
taps, not 36. Rows slide through the layers, so that little is in work at a time and none is computed twice.
Shapes: M cells of a block of rows, side by side, with all days of a cell in one row of numbers; n = columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from framecast.models.loan import LOAN
from framecast.nn.location_norm import LocationAwareNorm

BLOCK_CELLS = 600  # in work at a time: more leave the cache, fewer make matrix products small
Maps = list[Tensor]  # of four variants, each (M, numbers)
Places = tuple[Maps, Maps, Tensor]


def is_exact(model: LOAN) -> bool:
    """Whether the one pass gives the numbers of single windows."""
    return model.config.window_cells % 4 == 1 and model.config.location_aware


class Rows:
    """The latest rows of maps: new ones come at the end, those no longer needed leave at the front."""

    def __init__(self, columns: int) -> None:
        self.columns, self.maps = columns, []

    def add(self, maps: Maps) -> None:
        self.maps = [torch.cat(pair) for pair in zip(self.maps, maps, strict=True)] if self.maps else maps

    def __len__(self) -> int:
        return len(self.maps[0]) // self.columns if self.maps else 0

    def drop(self, rows: int) -> None:
        self.maps = [x[rows * self.columns :] for x in self.maps]


class DenseLOAN:
    """The weights of a LOAN as matrices, for regions of any size."""

    def __init__(self, model: LOAN) -> None:
        if not is_exact(model):
            raise ValueError(
                "one pass over a region is exact for location-aware models with windows of 4 k + 1 cells; "
                f"this one has window_cells={model.config.window_cells}; use impl='per-patch'"
            )
        self.model, self.config = model, model.config
        first, second = model.modulate1, model.modulate2
        assert isinstance(first, LocationAwareNorm)
        assert isinstance(second, LocationAwareNorm)
        assert isinstance(first.norm, torch.nn.BatchNorm3d)
        mean, variance = first.norm.running_mean, first.norm.running_var
        biases = model.dynamic1.bias, model.dynamic2.bias, model.dynamic3.bias
        assert mean is not None and variance is not None  # noqa: PT018
        scale = (variance + first.norm.eps).rsqrt()  # folded into the convolution before it
        weight = model.dynamic1.weight * scale[:, None, None, None, None]
        bias = ((0 if biases[0] is None else biases[0]) - mean) * scale
        self.conv1 = weight.permute(3, 2, 4, 1, 0).flatten(1, 3).contiguous(), bias  # (3, 3 * 3 * V, 32)
        self.conv2 = _taps(model.dynamic2.weight), biases[1]
        self.conv3 = _taps(model.dynamic3.weight), biases[2]
        self.layers = (first, second)
        self.modulations = [_joined(first), _joined(second)]
        self.num_means = 2 * ((((model.config.window_cells - 2) // 2 - 2) // 2) // 2)

    @torch.inference_mode()
    def rows(self, dynamic: Tensor, static: Tensor, day: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """dynamic (V, T, H, W), static (S, H, W) -> first row and log-probabilities (rows, W - w + 1, C)."""
        for row, events, place in self.features(dynamic, self.places(static)):
            days = None if day is None else day.expand(events.shape[0] * events.shape[1])
            scores = self.model.forward_head(events.flatten(0, 1), place.flatten(0, 1), days)
            yield row, scores.unflatten(0, events.shape[:2])

    @torch.inference_mode()
    def features(self, dynamic: Tensor, places: Places) -> Iterator[tuple[int, Tensor, Tensor]]:
        """dynamic (V, T, H, W) -> first row and what the head reads of both branches, (rows, W - w + 1, 256)
        and (rows, W - w + 1, 128); places: what `places` made of the static maps, good for all days."""
        height, width = dynamic.shape[-2:]
        days = self._unfolded(dynamic)
        step = max(1, BLOCK_CELLS // width)
        pooled1, pooled2, means = Rows(width), Rows(width), Rows(width)
        before1, before2 = Rows(width), Rows(width)
        done2 = out_row = 0
        reach = self.num_means // 2 - 1
        margin = self.config.window_cells - 1
        for row in range(0, height - 2, step):
            last = min(row + step, height - 2)
            before1.add(self._first(days, places[0], row, last, width))
            count = len(before1) - 1
            if count < 1:
                continue
            pooled1.add(_pooled_rows(before1, count, 1))
            before1.drop(count)
            count = len(pooled1) - 4
            if count < 1:
                continue
            before2.add(self._second(pooled1, places[1], done2, count, width))
            pooled1.drop(count)
            done2 += count
            count = len(before2) - 2
            if count < 1:
                continue
            pooled2.add(_pooled_rows(before2, count, 2))
            before2.drop(count)
            count = len(pooled2) - 4
            if count < 1:
                continue
            means.add(self._third(pooled2, count, width))
            pooled2.drop(count)
            count = min(len(means) - 8 * reach, height - margin - out_row)
            if count < 1:
                continue
            events = self._means(means, count, width)
            yield out_row, events, places[2][out_row : out_row + count, : events.shape[1]]
            means.drop(count)
            out_row += count

    @torch.inference_mode()
    def places(self, static: Tensor) -> Places:
        """Factors 1 + γ and β of each variant for both depths, (h, w, 2 C), and the static features."""
        m = self.model
        at = m.static1(static[None])
        first = self._modulation(0, at, 1)
        at = F.max_pool2d(F.relu(m.static_norm(at)), 2, stride=1)
        at = F.conv2d(at, m.static2.weight, m.static2.bias, dilation=2)
        second = self._modulation(1, at, 2)
        at = F.max_pool2d(F.relu(at), 2, stride=1, dilation=2)
        at = F.relu(F.conv2d(at, m.static3.weight, m.static3.bias, dilation=4))
        side = self.num_means // 2
        height, width = at.shape[-2] - 8 * (side - 1), at.shape[-1] - 8 * (side - 1)
        corners = [(8 * y, 8 * x) for y in range(side) for x in range(side)]
        parts = [at[0, :, y : y + height, x : x + width] for y, x in corners]
        place = torch.stack(parts).mean(0)
        return first, second, place.permute(1, 2, 0)

    def _modulation(self, which: int, at: Tensor, distance: int) -> list[Tensor]:
        seen = F.relu(self.layers[which].condition_norm(at))
        weight, bias = self.modulations[which]
        out = []
        for cut_row, cut_column in ((0, 0), (1, 0), (0, 1), (1, 1)):
            kept = weight.clone()
            kept[:, :, :cut_row], kept[:, :, :, :cut_column] = 0, 0
            out.append(F.conv2d(seen, kept, bias, padding=distance, dilation=distance)[0].permute(1, 2, 0))
        return out

    def _unfolded(self, dynamic: Tensor) -> Tensor:
        """(H W, T, 3 V): each cell with its next two to the right."""
        cells = dynamic.permute(2, 3, 1, 0).flatten(0, 1)  # (H W, T, V)
        cells = F.pad(cells, (0, 0, 0, 0, 0, 2))
        count = len(cells) - 2
        return torch.cat([cells[i : i + count] for i in range(3)], dim=2)

    def _first(self, days: Tensor, places: list[Tensor], row: int, last: int, width: int) -> Maps:
        """Convolution, modulation and the greater of two neighbours in a row, (M, T' 32) of each variant."""
        weight, bias = self.conv1
        cells, steps, depth = (last - row) * width, days.shape[1] - 2, days.shape[2]
        flat = days.flatten(1)
        factors = [_flat_rows(x, row, last, width) for x in places]
        out = [flat.new_empty(cells, steps * 32) for _ in range(4)]
        for t in range(steps):
            x = flat.new_empty(cells, 32)
            for dy in range(3):
                first = (row + dy) * width
                seen = flat[first : first + cells, t * depth : (t + 3) * depth]
                torch.addmm(x if dy else bias, seen, weight[dy], out=x)
            variants = [torch.addcmul(g[:, 32:], x, g[:, :32]) for g in factors]
            _pool_columns(variants, [o[:, t * 32 : (t + 1) * 32] for o in out], 1)
        return out

    def _second(self, given: Rows, places: list[Tensor], row: int, count: int, width: int) -> Maps:
        """As the first one, then the greater of two days."""
        steps, cells = given.maps[0].shape[1] // 32 - 2, count * width
        factors = [_flat_rows(x, row, row + count, width) for x in places]
        out = [given.maps[0].new_empty(cells, (steps // 2) * 64) for _ in range(4)]
        for t in range(steps // 2 * 2):
            seen = [x[:, t * 32 : (t + 3) * 32] for x in given.maps]
            maps = _four(seen, *self.conv2, 2, cells, width)
            maps = [torch.addcmul(g[:, 64:], x, g[:, :64], out=x) for x, g in zip(maps, factors, strict=True)]
            if t % 2 == 0:
                even = maps
                continue
            latest = [torch.maximum(a, b, out=b) for a, b in zip(even, maps, strict=True)]
            _pool_columns(latest, [o[:, t // 2 * 64 : (t // 2 + 1) * 64] for o in out], 2)
        return out

    def _third(self, given: Rows, count: int, width: int) -> Maps:
        """Two steps of 128 features, halves of a window's days averaged; (M, 256) of each variant."""
        steps, cells = given.maps[0].shape[1] // 64 - 1, count * width
        parts = []
        for t in range(steps):
            seen = [x[:, t * 64 : (t + 2) * 64] for x in given.maps]
            parts.append([x.relu_() for x in _four(seen, *self.conv3, 4, cells, width)])
        spans = [(i * steps // 2, -(-(i + 1) * steps // 2)) for i in range(2)]  # as adaptive pooling cuts
        return [
            torch.cat([torch.stack([p[v] for p in parts[a:b]]).mean(0) for a, b in spans], dim=1)
            for v in range(4)
        ]

    def _means(self, given: Rows, count: int, width: int) -> Tensor:
        """The mean over a window's last maps, (count, W - w + 1, 256)."""
        side = self.num_means // 2
        columns = width - self.config.window_cells + 1
        events = torch.zeros(count, columns, 256)
        for y in range(side):
            for x in range(side):
                maps = given.maps[(y == 0) + 2 * (x == 0)].unflatten(0, (-1, width))
                events = events + maps[8 * y : 8 * y + count, 8 * x : 8 * x + columns]
        return (events / side**2).unflatten(2, (2, 128)).mT.flatten(2)


def _taps(weight: Tensor) -> Tensor:
    """(out, in, T, k, k) -> (k, k, T in, out)."""
    return weight.permute(3, 4, 2, 1, 0).flatten(2, 3).contiguous()


def _joined(layer: LocationAwareNorm) -> tuple[Tensor, Tensor]:
    """Kernels and biases that give 1 + γ and β at once."""
    assert layer.gamma.bias is not None
    assert layer.beta.bias is not None
    bias = torch.cat([1 + layer.gamma.bias, layer.beta.bias])
    return torch.cat([layer.gamma.weight, layer.beta.weight]), bias


def _flat_rows(maps: Tensor, row: int, last: int, width: int) -> Tensor:
    """(h, w, C) -> rows of `width` cells, (M, C); cells beyond the map hold zeros."""
    part = maps[row:last]
    return F.pad(part, (0, 0, 0, width - part.shape[1], 0, last - row - part.shape[0])).flatten(0, 1)


def _four(maps: Maps, weight: Tensor, bias: Tensor | None, distance: int, cells: int, width: int) -> Maps:
    """A convolution of `cells` cells whose first row and column of taps read the other variants."""
    side, offset = weight.shape[0], distance * width

    def add(total: Tensor, variant: int, taps: list[tuple[int, int]], start: Tensor | None = None) -> Tensor:
        for y, x in taps:
            seen = maps[variant][y * offset + x * distance :][:cells]
            whole = len(seen)  # the last cells have no neighbours; no window begins there
            begin = total if start is None else start
            part = begin if begin.ndim == 1 else begin[:whole]
            torch.addmm(part, seen, weight[y, x], out=total[:whole])
            start = None
        return total

    def new() -> Tensor:
        return torch.zeros(cells, weight.shape[-1])

    later = range(1, side)
    inner, left = [(y, x) for y in later for x in later], [(y, 0) for y in later]
    top = [(0, x) for x in later]
    rest = add(new(), 0, inner, torch.zeros(weight.shape[-1]) if bias is None else bias)
    below = add(rest.clone(), 0, left), add(rest, 2, left)
    beside = add(new(), 0, top), add(new(), 1, top)
    return [
        add(below[column] + beside[row], row + 2 * column, [(0, 0)]) for column in (0, 1) for row in (0, 1)
    ]


def _pool_columns(maps: Maps, out: Maps, distance: int) -> None:
    """The greater of a cell and the one `distance` to its right, and zero: what ReLU and pooling leave."""
    for variant, (x, y) in enumerate(zip(maps, out, strict=True)):
        right = maps[variant % 2]  # no longer in the first column
        torch.maximum(x[:-distance], right[distance:], out=y[:-distance])
        y[-distance:] = x[-distance:]
        y.clamp_min_(0)


def _pooled_rows(given: Rows, count: int, distance: int) -> Maps:
    """The greater of a cell and the one `distance` below it, which is no longer in the first row."""
    cells, below = count * given.columns, distance * given.columns
    return [
        torch.maximum(x[:cells], given.maps[variant // 2 * 2][below : below + cells])
        for variant, x in enumerate(given.maps)
    ]
