"""Token sampling obeys its laws; the definition here is the sheet's, one sample and one point at a time."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from framecast.nn.token_sampling import choose_tokens, sample_tokens, significance

GRIDS = ("release", "paper")


def kept_by_definition(scores: list[float], num_points: int, grid: str, from_zero: bool) -> set[int]:
    """Indices that stay, without any vector arithmetic."""
    ranked = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    summed = list(itertools.accumulate(scores[i] for i in ranked))
    origin = 0.0 if from_zero or grid == "paper" else summed[0]
    if summed[-1] - origin <= 0:
        return set(ranked[-num_points:])
    cdf = [(c - origin) / (summed[-1] - origin) for c in summed]
    if grid == "paper":
        heights = [(2 * k + 1) / (2 * num_points) for k in range(num_points)]
    else:
        first = min(c for c in cdf if c > 0)
        heights = [first + k * (1 - first) / (num_points - 1) for k in range(num_points)]
    candidates = range(max(len(cdf) - num_points, 0), len(cdf))
    return {ranked[min(candidates, key=lambda i: (abs(y - cdf[i]), i))] for y in heights}


def shares(units: int, slots: int, sharpness: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(units, slots, generator=generator)).softmax(-1)


def kept_ids(order: Tensor, kept: Tensor) -> list[list[int]]:
    return [row[keep].tolist() for row, keep in zip(order, kept, strict=True)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("from_zero", [False, True])
@pytest.mark.parametrize(("slots", "points"), [(20, 20), (20, 60), (20, 9), (2, 2), (1, 5)])
def test_the_definition(grid: str, from_zero: bool, slots: int, points: int) -> None:
    scores = torch.cat([shares(20, slots, sharpness) for sharpness in (0.1, 1.0, 4.0)])
    flags = torch.full((60,), from_zero)
    got = kept_ids(*sample_tokens(scores, points, grid=grid, from_zero=flags))  # ty: ignore[invalid-argument-type]
    for row, ids in zip(scores.double().tolist(), got, strict=True):
        assert set(ids) == kept_by_definition(row, points, grid, from_zero)
        assert len(set(ids)) == len(ids)
        assert [row[i] for i in ids] == sorted(row[i] for i in ids)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_single_patch_stays(grid: str, full: bool) -> None:
    for score in (0.3, 0.0, float("nan")):
        order, kept = sample_tokens(torch.tensor([[score]]), 4, full=full, grid=grid)
        assert kept_ids(order, kept) == [[0]]


@pytest.mark.parametrize("grid", GRIDS)
def test_dead_slots_change_nothing_and_never_stay(grid: str) -> None:
    scores = shares(8, 16)
    alone = kept_ids(*sample_tokens(scores, 30, grid=grid))  # ty: ignore[invalid-argument-type]
    padded = torch.full((8, 24), -1.0)
    padded[:, 5:21] = scores
    beside = kept_ids(*sample_tokens(padded, 30, grid=grid))  # ty: ignore[invalid-argument-type]
    assert [[i - 5 for i in row] for row in beside] == alone


def test_the_least_significant_patch_leaves_at_the_first_stage_and_stays_once_others_have_left() -> None:
    scores = shares(10, 30, sharpness=0.3)
    least = scores.argmin(-1).tolist()
    first, later = (
        kept_ids(*sample_tokens(scores, 30, from_zero=torch.full((10,), zero))) for zero in (False, True)
    )
    assert all(i not in row for i, row in zip(least, first, strict=True))
    assert all(i in row for i, row in zip(least, later, strict=True))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("full", [True, False])
def test_permuting_the_batch_permutes_the_choice(grid: str, full: bool) -> None:
    scores, order = shares(9, 25), torch.randperm(9, generator=torch.Generator().manual_seed(1))
    options = {"grid": grid, "full": full}
    plain = kept_ids(*sample_tokens(scores, 25, **options))  # ty: ignore[invalid-argument-type]
    moved = kept_ids(*sample_tokens(scores[order], 25, **options))  # ty: ignore[invalid-argument-type]
    assert moved == [plain[i] for i in order.tolist()]


def test_of_equal_scores_the_first_is_the_least_significant() -> None:
    order, _ = sample_tokens(torch.tensor([[0.25, 0.125, 0.25, 0.125, 0.25]]), 5)
    assert order.tolist() == [[1, 3, 0, 2, 4]]
    uniform = kept_ids(*sample_tokens(torch.full((1, 8), 0.125), 8))
    assert uniform == [[1, 2, 3, 4, 5, 6, 7]]  # the sheet: the first sorted slot is lost


class TestDegenerate:
    """What has no curve keeps all candidates that are alive."""

    @pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
    def test_scores_without_a_height(self, value: float) -> None:
        assert kept_ids(*sample_tokens(torch.full((1, 6), value), 6)) == [[0, 1, 2, 3, 4, 5]]
        assert kept_ids(*sample_tokens(torch.full((1, 6), value), 2)) == [[4, 5]]

    def test_no_attention_at_all(self) -> None:
        scores = significance(torch.zeros(1, 4, 2), torch.ones(1, 4))
        assert kept_ids(*sample_tokens(scores, 4)) == [[0, 1, 2, 3]]

    def test_one_patch_is_alive(self) -> None:
        scores = torch.tensor([[-1.0, 0.4, -1.0], [-1.0, -1.0, 0.7], [0.2, -1.0, -1.0]])
        assert kept_ids(*sample_tokens(scores, 3)) == [[1], [2], [0]]

    def test_none_is_alive(self) -> None:
        assert kept_ids(*sample_tokens(torch.full((2, 3), -1.0), 3)) == [[], []]
        assert kept_ids(*sample_tokens(torch.zeros(2, 0), 3)) == [[], []]

    def test_a_patch_that_is_not_used_at_all_is_not_picked(self) -> None:
        scores = torch.tensor([[0.0, 0.5, 0.0, 0.5]])
        assert kept_ids(*sample_tokens(scores, 4)) == [[1, 3]]

    def test_two_patches(self) -> None:
        assert kept_ids(*sample_tokens(torch.tensor([[0.4, 0.6]]), 2)) == [[1]]


class TestOtherSelections:
    """For comparison: as many tokens, chosen otherwise."""

    def scores(self) -> tuple[Tensor, Tensor]:
        scores = shares(12, 30)
        scores[:, 20:] = torch.where(torch.arange(12)[:, None] % 2 > 0, -1.0, scores[:, 20:])
        ids = torch.stack(
            [torch.randperm(100, generator=torch.Generator().manual_seed(i))[:30] for i in range(12)]
        )
        return scores, ids

    @pytest.mark.parametrize("select", ["top", "random", "stride"])
    def test_as_many_and_none_that_is_dead(self, select: str) -> None:
        scores, ids = self.scores()
        sampled = kept_ids(*choose_tokens(scores, ids, 30))
        chosen = kept_ids(*choose_tokens(scores, ids, 30, select=select))  # ty: ignore[invalid-argument-type]
        for row, ours, theirs in zip(scores, chosen, sampled, strict=True):
            assert len(set(ours)) == len(ours) == len(theirs)
            assert (row[ours] >= 0).all()
            assert row[ours].tolist() == row[ours].sort().values.tolist()

    def test_top_takes_the_highest_scores(self) -> None:
        scores, ids = self.scores()
        for row, kept in zip(scores, kept_ids(*choose_tokens(scores, ids, 30, select="top")), strict=True):
            assert set(kept) == set(row.topk(len(kept)).indices.tolist())

    def test_stride_leaves_no_wide_gap(self) -> None:
        scores, ids = self.scores()
        for row, places, kept in zip(
            scores, ids, kept_ids(*choose_tokens(scores, ids, 30, select="stride")), strict=True
        ):
            alive = [i for i in places.argsort().tolist() if row[i] >= 0]
            gaps = torch.tensor(sorted(alive.index(i) for i in kept)).diff()
            assert gaps.max() <= gaps.min() + 1

    def test_random_follows_its_generator(self) -> None:
        scores, ids = self.scores()
        draws = [
            kept_ids(
                *choose_tokens(
                    scores, ids, 30, select="random", generator=torch.Generator().manual_seed(seed)
                )
            )
            for seed in (0, 0, 1)
        ]
        assert draws[0] == draws[1] != draws[2]


def test_decisions_are_made_in_float32() -> None:
    attention, norms = torch.rand(2, 30, 4), torch.rand(2, 30)
    half = significance(attention.bfloat16(), norms.bfloat16())
    assert half.dtype == torch.float32
    assert torch.equal(half, significance(attention.bfloat16().float(), norms.bfloat16().float()))
