"""Latency and throughput: warm, median of repeated runs, wall-clock beside CPU time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from framecast.profile.energy import EnergyMeter

FEWEST, MOST = 3, 1000  # measured runs


@dataclass(frozen=True)
class Timing:
    """Times of one call with a whole batch."""

    batch: int
    threads: int  # of torch's operators on the CPU
    device: str
    runs: int
    wall_ms: float  # median
    wall_ms_range: tuple[float, float]  # 10th and 90th percentile
    cpu_ms: float  # median, of all threads of the process together
    joules: float | None = None  # mean per input

    @property
    def per_second(self) -> float:
        """Inputs per second."""
        return 1e3 * self.batch / self.wall_ms


def measure(
    call: Callable[[], Any],
    *,
    batch: int = 1,
    device: torch.device | str = "cpu",
    seconds: float = 2.0,
    meter: EnergyMeter | None = None,
) -> Timing:
    """Time a call over and over for about so many seconds, after a warm-up of a quarter of that.

    At least 3 runs are measured, whatever they take. Energy is read around all of them together.
    """
    device = torch.device(device)
    start = time.perf_counter()
    _timed(call, device)
    while time.perf_counter() - start < seconds / 4:
        _timed(call, device)
    runs: list[tuple[float, float]] = []
    energy_before = meter.read() if meter else 0.0
    start = time.perf_counter()
    while len(runs) < FEWEST or (len(runs) < MOST and time.perf_counter() - start < seconds):
        runs.append(_timed(call, device))
    joules = meter.spent_since(energy_before) / (len(runs) * batch) if meter else None
    wall = sorted(ms for ms, _ in runs)
    return Timing(
        batch=batch,
        threads=torch.get_num_threads(),
        device=str(device),
        runs=len(runs),
        wall_ms=statistics.median(wall),
        wall_ms_range=(wall[int(0.1 * (len(wall) - 1))], wall[-1 - int(0.1 * (len(wall) - 1))]),
        cpu_ms=statistics.median(ms for _, ms in runs),
        joules=joules,
    )


def _timed(call: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """(wall, CPU) milliseconds of one call; on a GPU until it has finished."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


@contextmanager
def num_threads(threads: int | None) -> Generator[int]:
    """Torch's operators on so many threads, None = as it is; the number before comes back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
