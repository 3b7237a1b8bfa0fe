"""A part is held back evenly by class, in whole groups, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framecast.data.holdout import assign_shares, num_shares


def test_number_of_shares() -> None:
    assert [num_shares(h) for h in (0.2, 0.25, 0.3, 0.5, 0.6, 0.1)] == [5, 4, 3, 2, 1, 10]
    for wrong in (0.0, 1.0, -0.2):
        with pytest.raises(ValueError, match="between 0 and 1"):
            num_shares(wrong)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(2, 40), st.sampled_from([0.1, 0.2, 0.3, 0.5]), st.integers(0, 3))
def test_every_class_has_its_part_in_every_share(classes: int, size: int, holdout: float, seed: int) -> None:
    labels = np.repeat(np.arange(classes), size)
    names = [f"item {i}" for i in range(len(labels))]
    shares = assign_shares(names, labels.tolist(), [""] * len(names), holdout, seed)
    for label in range(classes):
        counts = np.bincount(shares[labels == label], minlength=num_shares(holdout) + 1)[1:]
        assert np.abs(counts - holdout * size).max() <= 1
    order = np.random.default_rng(seed).permutation(len(names))  # the order of the files means nothing
    again = assign_shares([names[i] for i in order], labels[order].tolist(), [""] * len(names), holdout, seed)
    by_class = [sorted(s.tolist()) for s in (shares[labels == 0], again[labels[order] == 0])]
    assert len(by_class[0]) == len(by_class[1])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(4, 30), st.integers(0, 5))
def test_groups_stay_whole_and_no_class_is_only_tested(classes: int, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, 120)
    labels = rng.integers(0, classes, 120)
    names = [f"item {i}" for i in range(120)]
    shares = assign_shares(names, labels.tolist(), [f"g{g}" for g in group], 0.2, seed)
    assert all(len(set(shares[group == g])) == 1 for g in set(group))
    for share in range(1, 6):
        assert set(labels[shares == share]) <= set(labels[shares != share])
    if groups >= 20:
        sizes = np.bincount(shares, minlength=6)[1:]
        assert sizes.min() >= 14
        assert sizes.max() <= 36


def test_seeds_differ_and_repeat() -> None:
    names, labels = [f"{i}" for i in range(40)], [i % 2 for i in range(40)]
    groups = [f"{i // 4}" for i in range(40)]
    for given_groups in (groups, [""] * 40):
        first, again, other = (assign_shares(names, labels, given_groups, 0.2, seed) for seed in (0, 0, 1))
        assert first.tolist() == again.tolist() != other.tolist()
