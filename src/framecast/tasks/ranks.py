"""What several training processes share: each takes some items, then all know all results, or all stop."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol, Self, TypeVar

import torch.distributed as dist


class Mergeable(Protocol):
    """Metrics that take in those of another rank."""

    def merge(self, other: Self, /) -> Self: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


Metrics = TypeVar("Metrics", bound=Mergeable)


def own_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def own_items(count: int) -> range:
    """Indices of the items that this process looks at; all of them where it is the only one."""
    return range(own_rank(), count, dist.get_world_size() if dist.is_initialized() else 1)


def gather_over_ranks(value: Any) -> list[Any]:
    """The value of every process, in the order of ranks, on every process."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def together() -> Generator[None]:
    """All processes enter, and an error of one inside is raised on all: none waits for one that is gone.

    What is inside must not communicate itself. The others raise a ValueError that names process and error.
    """
    error = None
    try:
        yield
    except Exception as own:
        error = own
    everywhere = gather_over_ranks(error and f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for rank, text in enumerate(everywhere):
        if text is not None:
            raise ValueError(f"process {rank} of {len(everywhere)} failed ({text})")


def merge_over_ranks(metrics: Metrics, empty: Callable[[], Metrics]) -> Metrics:
    """What all processes have collected, on every process; `empty` makes metrics like these."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return metrics
    merged = empty()
    for state in gather_over_ranks(metrics.state_dict()):
        part = empty()
        part.load_state_dict(state)
        merged.merge(part)
    return merged
