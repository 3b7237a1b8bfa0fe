"""Holds back a part of a data set that has no test side: by class, by group, the same on every machine.

The data is cut into shares of the wanted size (and what is left of the whole), so that share 1, 2, … are
disjoint and a study can hold back each once. Order comes from SHA-256 of the names, not from a generator
whose stream might change.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

SWEEPS = 4  # over the groups: one to place, the others to move them
GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, are spread evenly


def num_shares(holdout: float) -> int:
    """How many disjoint shares of that size there are."""
    if not 0 < holdout < 1:
        raise ValueError(f"holdout is {holdout}; it is the share that is held back, between 0 and 1")
    return max(1, int(1 / holdout + 1e-9))


def assign_shares(
    names: Sequence[str], labels: Sequence[int], groups: Sequence[str], holdout: float, seed: int = 0
) -> np.ndarray:
    """(N,) share of every item: 1 … num_shares, 0 = in none. Classes are spread evenly over the shares.

    names tell items apart, whole groups go to one share ("" = an item is its own group); with large groups
    shares come out only about as large as wanted. What is all that there is of a class is in no share: it
    cannot be both learned and tested.
    """
    count = num_shares(holdout)
    sizes = np.array([holdout] * count + ([1 - holdout * count] if holdout * count < 1 - 1e-9 else []))
    if any(groups):
        shares = _by_group(names, labels, groups, sizes, seed)
    else:
        shares = _by_class(names, labels, sizes, seed)
    return np.where(shares < count, shares + 1, 0)


def _by_class(names: Sequence[str], labels: Sequence[int], sizes: np.ndarray, seed: int) -> np.ndarray:
    """Every class is dealt by itself, in the order of the hashes."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, label in enumerate(labels):
        members[label].append(i)
    limits = np.cumsum(sizes)
    shares = np.full(len(names), len(sizes), dtype=np.int64)
    for rank, own in enumerate(members.values()):
        if len(own) == 1:
            continue
        own.sort(key=lambda i: _hash(names[i], seed))
        # Another start in every class, else all small classes would leave out the same shares.
        places = (np.arange(len(own)) + (0.5 + rank * GOLDEN) % 1) / len(own)
        shares[own] = np.minimum(np.searchsorted(limits, places, side="right"), len(sizes) - 1)
    return shares


def _by_group(
    names: Sequence[str], labels: Sequence[int], groups: Sequence[str], sizes: np.ndarray, seed: int
) -> np.ndarray:
    """Large groups first, each to the share that then is nearest to its size in every class and in all.

    Minimises the sum over shares and classes of n² / (N² size), and the same over all classes together with
    the weight of them all; it is least where every share has its part of everything. Afterwards groups are
    moved as long as that helps.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[f"group {group}" if group else f"item {names[i]}"].append(i)
    classes, ids = np.unique(np.asarray(labels), return_inverse=True)
    counts = {
        group: np.append(np.bincount(ids[own], minlength=len(classes)), len(own))
        for group, own in members.items()
    }
    totals = np.sum(list(counts.values()), axis=0)
    movable = [
        group for group in counts if (counts[group] < totals)[:-1].all()
    ]  # else a class is not learned
    weights = np.append(np.ones(len(classes)), len(classes)) / totals**2

    placed = np.zeros((len(sizes), len(totals)))
    place: dict[str, int] = {}
    for sweep in range(SWEEPS):
        moved = False
        for group in sorted(movable, key=lambda g: (-int(np.log2(len(members[g]))), _hash(g, seed))):
            if sweep:
                placed[place[group]] -= counts[group]
            growth = ((2 * placed + counts[group]) * counts[group] * weights).sum(1) / sizes
            best = int(growth.argmin())
            if sweep and growth[best] > growth[place[group]] - 1e-12:
                best = place[group]
            moved |= place.get(group) != best
            place[group] = best
            placed[best] += counts[group]
        if not moved:
            break
    shares = np.full(len(names), len(sizes), dtype=np.int64)
    for group, share in place.items():
        shares[members[group]] = share
    return shares


def _hash(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
