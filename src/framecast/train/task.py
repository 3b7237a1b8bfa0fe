"""What the training loop asks of a task: samples, a model, a loss, metrics."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


class Samples(Protocol):
    """A map-style data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


class Task(Protocol):
    """One file per task in `framecast.tasks` implements this.

    The model may be wrapped for several processes: call it, `model(...)`, rather than one of its other
    methods. Randomness in `train_data[i]` may use python, numpy or torch: it is seeded per sample.
    Optional: `product(model)`, see below; `prepare(device)`, work before the first step, which all processes
    enter together and which leaves the number of samples as it is; and `metric_names`, what `evaluate` will
    give, so that a mistyped `select` is told before the training.
    """

    @property
    def train_data(self) -> Samples: ...

    @property
    def eval_data(self) -> Samples | None: ...

    def build_model(self) -> nn.Module:
        """The model with fresh random weights, on the CPU."""
        ...

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch: tensors are moved to the device, anything else is left as it is."""
        ...

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Mean loss over the samples of the batch, and its parts for the log (also means)."""
        ...

    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Metrics on `eval_data`, the same on all processes, which may share the work.

        The model is plain and in evaluation mode, gradients are off.
        """
        ...

    def card(self) -> dict[str, Any]:
        """What is stored beside the model: task, classes, feature provenance."""
        ...


def prepare(task: Task, device: torch.device) -> None:
    """What a task does once before the first step of a session, on all processes."""
    getattr(task, "prepare", lambda device: None)(device)


def product(task: Task, model: nn.Module) -> nn.Module:
    """The part of a trained module that is saved: a task may train more than that."""
    return getattr(task, "product", lambda whole: whole)(model)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def sample_lengths(task: Task) -> np.ndarray:
    """(N,) `train_data.lengths`: about how long each sample is, in a unit of its own."""
    lengths = getattr(task.train_data, "lengths", None)
    if lengths is None:
        raise ValueError("the samples of this task have no lengths; set group_lengths=false")
    return np.asarray(lengths)
