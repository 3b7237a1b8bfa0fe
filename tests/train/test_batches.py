"""The order of samples: fixed by the seed, the same for any number of processes and workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framecast.train.batches import BatchPlan, load_batches

from .tiny_task import TinyTask


@given(
    samples=st.integers(1, 30),
    batch=st.integers(1, 12),
    world=st.integers(1, 5),
    accumulate=st.integers(1, 4),
    step=st.integers(0, 40),
)
def test_processes_share_the_batch_exactly(
    samples: int, batch: int, world: int, accumulate: int, step: int
) -> None:
    plan = BatchPlan(samples, batch, seed=3)
    cuts = [plan.micro_batches(step, rank, world, accumulate) for rank in range(world)]
    real = [i for parts in cuts for part in parts if part.weight > 0 for i in part.indices]
    assert real == plan.batch(step).tolist()
    assert len({len(parts) for parts in cuts}) == 1  # all take part equally often
    assert all(part.indices for parts in cuts for part in parts)
    assert sum(part.weight for parts in cuts for part in parts) == pytest.approx(1)


@given(samples=st.integers(1, 30), batch=st.integers(1, 12))
def test_an_epoch_sees_every_sample_once(samples: int, batch: int) -> None:
    plan = BatchPlan(samples, batch, seed=3)
    seen = np.concatenate([plan.batch(step) for step in range(plan.steps_per_epoch)])
    assert sorted(seen) == list(range(samples))


def test_epochs_and_seeds_have_their_own_order() -> None:
    plan = BatchPlan(50, 50, seed=0)
    assert plan.batch(0).tolist() != plan.batch(1).tolist()
    assert plan.batch(0).tolist() != BatchPlan(50, 50, seed=1).batch(0).tolist()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_augmented_samples(num_workers: int) -> None:
    task, plan = TinyTask(augment=True), BatchPlan(10, 4, seed=5)

    def epoch(workers: int) -> list[torch.Tensor]:
        parts = [part for step in range(3) for part in plan.micro_batches(step, 0, 1, 1)]
        loaded = load_batches(task.train_data, task.collate, parts, seed=5, num_workers=workers)
        return [batch["features"] for batch in loaded]

    for here, there in zip(epoch(0), epoch(num_workers), strict=True):
        assert torch.equal(here, there)


def test_loading_leaves_the_generators_alone() -> None:
    task, plan = TinyTask(augment=True), BatchPlan(10, 4, seed=5)
    before = torch.get_rng_state()
    list(load_batches(task.train_data, task.collate, plan.micro_batches(0, 0, 1, 1), seed=5))
    assert torch.equal(before, torch.get_rng_state())


def test_empty_training_set() -> None:
    with pytest.raises(ValueError, match="training set is empty"):
        BatchPlan(0, 4, seed=0)


def test_samples_of_like_lengths_share_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 330)
    plan, plain = BatchPlan(330, 16, seed=5, lengths=lengths), BatchPlan(330, 16, seed=5)
    steps = range(plan.steps_per_epoch)

    def padded(plan: BatchPlan) -> int:
        return sum(len(b) * lengths[b].max() - lengths[b].sum() for b in map(plan.batch, steps))

    assert sorted(np.concatenate([plan.batch(step) for step in steps])) == list(range(330))
    assert [len(plan.batch(step)) for step in steps] == [16] * 20 + [10]
    assert padded(plan) < 0.15 * padded(plain)
    means = [lengths[plan.batch(step)].mean() for step in steps]
    assert means != sorted(means)  # short and long batches alternate
    assert plan.batch(0).tolist() != plan.batch(len(steps)).tolist()  # another epoch, another order
