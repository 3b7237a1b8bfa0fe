"""Random numbers: seeded by rule, saved and restored bit by bit."""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# Second number of a key: what is seeded. Streams of different purpose never coincide.
WEIGHTS, TRAINING, SAMPLES, EVALUATION = range(4)


def seed_everything(*key: int, cuda: bool = True) -> None:
    """Seed python, numpy and torch from a few numbers, for example (seed, rank)."""
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  tasks may use the old interface
    seed = int(words[2]) << 32 | int(words[3])
    torch.default_generator.manual_seed(seed)
    if cuda:
        torch.cuda.manual_seed(seed)  # remembered until the GPU is used, ignored where there is none


def rng_state(*, cuda: bool = True) -> dict[str, Any]:
    """State of all generators of this process, made of what `torch.load(weights_only=True)` admits."""
    on_gpu = cuda and torch.cuda.is_initialized()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if on_gpu else None,
    }


def restore_rng(state: dict[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def rng_untouched(*, cuda: bool = True) -> Generator[None]:
    """Whatever happens inside leaves the generators as they were."""
    state = rng_state(cuda=cuda)
    try:
        yield
    finally:
        restore_rng(state)


@contextmanager
def deterministic_algorithms(wanted: bool) -> Generator[None]:
    """Inside, operations without a deterministic form raise; put back afterwards."""
    former = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(former)
