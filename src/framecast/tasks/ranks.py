"""An evaluation that several training processes share: each takes some items, then all know all results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

import torch.distributed as dist


class Mergeable(Protocol):
    """Metrics that take in those of another rank."""

    def merge(self, other: Self, /) -> Self: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


Metrics = TypeVar("Metrics", bound=Mergeable)


def own_items(count: int) -> range:
    """Indices of the items that this process looks at; all of them where it is the only one."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    return range(rank, count, ranks)


def gather_over_ranks(value: Any) -> list[Any]:
    """The value of every process, in the order of ranks, on every process."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


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
