"""Scores of predicted maps of any variable, pooled over cells and times, by group.

    mae = mean |e|     rmse = √mean e²     bias = mean e     r2 = 1 - Σ e² / Σ (t - mean t)²
    correlation = Pearson's over all cells and times
    skill = 1 - Σ e² / Σ e_ref²            1 = perfect, 0 = as good as the reference, below = worse
    anomaly_correlation: Pearson's of the departures from the reference (a climatology)

A group is a season, a region, or everything. Only sums are kept, so any number of maps can be scored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

MAP_MEASURES = ("mae", "rmse", "bias", "r2", "correlation", "skill", "anomaly_correlation")
# n, e, |e|, e², t, t², p, p², pt; with a reference: n, e_ref², departures: t, t², p, p², pt
NUM_SUMS = 9 + 7


class MapMetrics:
    """Collects maps; names are those of variables, groups beside them are free.

    metrics = MapMetrics()
    metrics.update("ndvi+1", predicted, target, reference, groups={"JJA": None, "north": mask})
    metrics.compute()["ndvi+1, JJA: rmse"]
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._sums)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._sums))

    def update(
        self,
        name: str,
        predicted: Any,
        target: Any,
        reference: Any = None,
        groups: dict[str, np.ndarray | None] | None = None,
    ) -> None:
        """Add maps of one shape; cells with NaN in one of them do not count.

        groups: name -> mask of the cells in it, None = all; everything together always counts. Raises
        ValueError where shapes differ.
        """
        p, t = (np.asarray(x, dtype=np.float64) for x in (predicted, target))
        r = np.full_like(t, np.nan) if reference is None else np.asarray(reference, dtype=np.float64)
        if p.shape != t.shape or r.shape != t.shape:
            raise ValueError(f"{name}: predicted {p.shape}, target {t.shape} and reference {r.shape} differ")
        known = np.isfinite(p) & np.isfinite(t)
        for group, mask in {"": None, **(groups or {})}.items():
            chosen = known if mask is None else known & mask
            sums = self._sums.setdefault((name, group), np.zeros(NUM_SUMS))
            sums += map_sums(p[chosen], t[chosen], r[chosen])

    def merge(self, other: MapMetrics) -> MapMetrics:
        """Take in other maps, for example those of another rank; returns self."""
        for key, sums in other._sums.items():
            self._sums[key] = self._sums.get(key, np.zeros(NUM_SUMS)) + sums
        return self

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self._sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums = dict(state["sums"])

    def compute(self, groups: Iterable[str] | None = None) -> dict[str, float]:
        """ "name: measure" and "name, group: measure"; nan where nothing is known. groups: only these."""
        wanted = None if groups is None else {"", *groups}
        out: dict[str, float] = {}
        for (name, group), sums in self._sums.items():
            if wanted is None or group in wanted:
                title = f"{name}, {group}" if group else name
                out |= {f"{title}: {key}": value for key, value in scores(sums).items()}
        return out


def map_sums(p: np.ndarray, t: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Of known cells (N,); see NUM_SUMS."""
    e = p - t
    plain = [len(e), e.sum(), np.abs(e).sum(), e @ e, t.sum(), t @ t, p.sum(), p @ p, p @ t]
    has = np.isfinite(r)
    a, b, gap = (t - r)[has], (p - r)[has], (r - t)[has]
    return np.array([*plain, len(a), gap @ gap, a.sum(), a @ a, b.sum(), b @ b, a @ b])


def scores(sums: np.ndarray) -> dict[str, float]:
    """All measures from the sums; those of the reference only where there is one for all cells."""
    n, e, absolute, squared, t, tt, p, pp, pt, n_ref, ref, a, aa, b, bb, ab = sums
    if not n:
        return dict.fromkeys(MAP_MEASURES[:5], float("nan"))
    spread = tt - t * t / n
    out = {
        "mae": absolute / n,
        "rmse": float(np.sqrt(squared / n)),
        "bias": e / n,
        "r2": 1 - squared / spread if spread > 0 else float("nan"),
        "correlation": pearson(n, t, tt, p, pp, pt),
    }
    if n_ref == n:
        out["skill"] = 1 - squared / ref if ref > 0 else float("nan")
        out["anomaly_correlation"] = pearson(n, a, aa, b, bb, ab)
    return {key: float(value) for key, value in out.items()}


def pearson(n: float, x: float, xx: float, y: float, yy: float, xy: float) -> float:
    """From sums; nan where one of them does not vary (but for rounding)."""
    vx, vy = xx - x * x / n, yy - y * y / n
    if vx <= 1e-12 * xx or vy <= 1e-12 * yy:
        return float("nan")
    return float((xy - x * y / n) / np.sqrt(vx * vy))
