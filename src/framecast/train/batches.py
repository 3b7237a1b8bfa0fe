"""Which samples each step sees.

The order is a permutation fixed by (seed, epoch), so the batch of a step is the same for any number of
processes and needs no saved state. Processes take slices of it and cut them into micro-batches.
Where samples of like lengths are to share a batch, so that little is padded, each group of batches is sorted.
Random augmentation is seeded by (seed, epoch, sample): it depends neither on the process nor on the
number of data-loading workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from framecast.train.rng import SAMPLES, rng_untouched, seed_everything
from framecast.train.task import Samples

GROUPED = 50  # batches whose samples are sorted by length before they are cut anew


@dataclass(frozen=True)
class MicroBatch:
    """Samples that go through the model together."""

    epoch: int
    indices: tuple[int, ...]
    weight: float  # its share of the step's samples; 0 = a stand-in, so that this process takes part


@dataclass(frozen=True)
class BatchPlan:
    """The steps of a run as lists of sample indices. The last batch of an epoch may be smaller."""

    num_samples: int
    batch_size: int  # over all processes
    seed: int
    lengths: np.ndarray | None = None  # (N,) of the samples, where batches of like lengths are wanted

    def __post_init__(self) -> None:
        if self.num_samples == 0:
            raise ValueError("the training set is empty; check the split and the data folder")

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_samples // self.batch_size)

    def epoch_of(self, step: int) -> int:
        return step // self.steps_per_epoch

    def batch(self, step: int) -> np.ndarray:
        """Indices of the samples of this step (counted from 0) over all processes."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def _order(self, epoch: int) -> np.ndarray:
        """All samples, at random; of every GROUPED batches the samples of like lengths come together."""
        order = _permutation(self.num_samples, self.seed, epoch)
        if self.lengths is None:
            return order
        order, size = order.copy(), self.batch_size
        for start in range(0, len(order), GROUPED * size):
            part = order[start : start + GROUPED * size]
            whole = len(part) // size * size  # the smaller batch stays the last
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches = part[:whole].reshape(-1, size)
            shuffled = np.random.default_rng([self.seed, epoch, start]).permutation(batches)
            order[start : start + len(part)] = np.append(shuffled.ravel(), part[whole:])
        return order

    def micro_batches(self, step: int, rank: int, world_size: int, accumulate: int) -> list[MicroBatch]:
        """This process's share, cut into micro-batches: as many on every process, some may be stand-ins.

        Sharded and replicated models communicate in every forward or backward pass, so a process without
        samples has to join in; it runs the batch's first sample with weight 0.
        """
        batch, epoch = self.batch(step), self.epoch_of(step)
        shares = np.array_split(batch, world_size)
        count = min(accumulate, len(shares[0]))  # the first share is the largest
        parts = []
        for part in np.array_split(shares[rank], count):
            chosen = part if len(part) else batch[:1]
            parts.append(MicroBatch(epoch, tuple(int(i) for i in chosen), len(part) / len(batch)))
        return parts


@lru_cache(maxsize=2)
def _permutation(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_samples)


class _SeededSamples(Dataset):
    """Sample (epoch, index) with the generators seeded by rule and put back afterwards."""

    def __init__(self, data: Samples, seed: int) -> None:
        self.data, self.seed = data, seed

    def __getitem__(self, index: tuple[int, int]) -> dict[str, Any]:
        epoch, sample = index
        with rng_untouched(cuda=False):
            seed_everything(self.seed, SAMPLES, epoch, sample, cuda=False)
            return self.data[sample]


def load_batches(
    data: Samples,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    micro_batches: list[MicroBatch] | Iterator[MicroBatch],
    *,
    seed: int,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[dict[str, Any]]:
    """Batches in the order of the micro-batches; workers run ahead over the limits of epochs."""
    loader = DataLoader(
        _SeededSamples(data, seed),
        batch_sampler=_Keys(micro_batches),
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_leave_process_group,
        generator=torch.Generator().manual_seed(seed),  # else the loader draws from the model's generator
    )
    return iter(loader)


def _leave_process_group(worker: int) -> None:
    """Ctrl-C and schedulers signal whole groups; the trainer still needs batches to finish its step."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()


class _Keys:
    """(epoch, index) of every sample of every micro-batch."""

    def __init__(self, micro_batches: list[MicroBatch] | Iterator[MicroBatch]) -> None:
        self.micro_batches = micro_batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for micro_batch in self.micro_batches:
            yield [(micro_batch.epoch, index) for index in micro_batch.indices]
