"""LOAN: a danger map of every cell, one window per cell against one pass over the region.

    python benchmarks/danger_map.py [--quick] [--json FILE] [--sides 64 128 280]

CPU time of one thread per judged cell, in turn; windows go through the network in batches of 32, of large
regions so many as are spread over it. Both use the same weights and their answers are compared. Two threads
against one by wall time, on a machine that is otherwise idle. Extra peak memory of one call from fresh
processes, beside model, maps and result. Greece at 1 km (700 x 562 cells, one day) is extrapolated from the
time of a cell in tiles of 256.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch
from pairing import in_fresh_process, peak_memory, report, reset_peak_memory, row
from torch import Tensor

import framecast as fc
from framecast.infer.danger_map import DangerMapper, DayMaps, Impl

SIDES, QUICK_SIDES = (64, 128, 280), (48, 88)
GREECE = (700, 562)
WINDOW, DAY = 25, 200
MOST_WINDOWS = 2048  # that are judged one by one


def region(side: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(shape, generator=generator) for shape in ((10, 10, side, side), (15, side, side)))


def build() -> Any:
    torch.manual_seed(0)
    return fc.create_model("loan_cnn").eval()


def chosen_cells(side: int, most: int) -> np.ndarray:
    """(side, side) bool: cells with a whole window, at most so many, spread evenly."""
    places = np.argwhere(np.ones((side - WINDOW + 1, side - WINDOW + 1), bool)) + WINDOW // 2
    land = np.zeros((side, side), bool)
    land[tuple(places[:: max(1, len(places) // most)][:most].T)] = True
    return land


def milliseconds(run: Any, clock: Any = time.process_time) -> tuple[Any, float]:
    start = clock()
    answer = run()
    return answer, 1e3 * (clock() - start)


def speed_rows(model: Any, sides: list[int], rounds: int, most: int) -> tuple[list[dict], dict[str, float]]:
    """A row per region, and milliseconds per cell of the largest one."""
    rows, cell = [], {}
    for side in sides:
        maps, land = region(side), chosen_cells(side, most)
        inner, alone = (side - WINDOW + 1) ** 2, int(land.sum())
        dense, patch = DangerMapper(model), DangerMapper(model, impl="per-patch")
        dense.log_prob(*maps, day=DAY)
        ours, theirs = [], []
        for _ in range(rounds):
            whole, spent = milliseconds(lambda: dense.log_prob(*maps, day=DAY))  # noqa: B023
            ours.append(spent / inner)
            single, spent = milliseconds(lambda: patch.log_prob(*maps, day=DAY, land=land))  # noqa: B023
            theirs.append(spent / alone)
        speed = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        error = float((whole - single)[:, torch.from_numpy(land)].abs().max())
        goal = ">= 32" if side >= 128 else ""
        rows.append(row(f"{side} x {side} cells, times faster", min(ours), min(theirs), "ms", speed, goal))
        rows.append(row(f"{side} x {side} cells, largest difference", error, 1.0, "", error, "<= 1e-05"))
        cell = {"ours": min(ours), "reference": min(theirs)}
    return rows, cell


def thread_row(model: Any, side: int, rounds: int) -> dict:
    """One thread against two on the same tiles, wall time."""
    maps = region(side)
    tile = -(-(side - WINDOW + 1) // 2)
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for threads, found in times.items():
            mapper = DangerMapper(model, tile=tile, threads=threads)
            found.append(milliseconds(lambda: mapper.log_prob(*maps, day=DAY), time.perf_counter)[1])  # noqa: B023
    ratios = [a / b for a, b in zip(times[1], times[2], strict=True)]
    name = f"two threads, {side} x {side} cells, four tiles"
    return row(name, min(times[2]), min(times[1]), "ms", statistics.median(ratios), ">= 1.7")


def reuse_row(model: Any, side: int, days: int = 5) -> dict:
    """Several days one by one, and with the static maps understood once."""
    dynamic, static = region(side)
    mapper = DangerMapper(model)
    _, alone = milliseconds(lambda: [mapper.probability(dynamic, static, day=DAY) for _ in range(days)])
    _, together = milliseconds(lambda: mapper.maps([DayMaps(dynamic, DAY)] * days, static))
    return row(
        f"{days} days, {side} x {side} cells: static maps once", together, alone, "ms", alone / together
    )


def members_row(model: Any, side: int, samples: int = 20) -> dict:
    """Members by MC dropout: the head repeated, against the whole pass repeated."""
    dynamic, static = region(side)
    mapper = DangerMapper(model)
    _, once = milliseconds(lambda: mapper.probability(dynamic, static, day=DAY))
    _, spent = milliseconds(lambda: mapper.maps([DayMaps(dynamic, DAY)], static, samples=samples))
    name = f"{samples} members, {side} x {side} cells: head repeated"
    return row(name, spent, samples * once, "ms", samples * once / spent)


def extra_memory(impl: Impl, side: int) -> int:
    """Bytes that one call takes beyond model and maps, at its peak."""
    model, maps = build(), region(side)
    mapper = DangerMapper(model, impl=impl)
    mapper.log_prob(*(x[..., :30, :30] for x in maps), day=DAY)
    land = None if impl == "dense" else chosen_cells(side, 128)
    before = reset_peak_memory()
    mapper.log_prob(*maps, day=DAY, land=land)
    return peak_memory() - before


def greece_row(cell: dict[str, float]) -> dict:
    """Minutes for one day of Greece, from the time of a cell of the largest region measured."""
    cells = (GREECE[0] - WINDOW + 1) * (GREECE[1] - WINDOW + 1)
    ours, theirs = (cells * cell[name] / 6e4 for name in ("ours", "reference"))
    name = "Greece, {} x {} cells, extrapolated".format(*GREECE)
    return row(name, ours, theirs, "min", theirs / ours)


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="small regions, within a minute")
    parser.add_argument("--json", help="write the rows there")
    parser.add_argument("--sides", type=int, nargs="+", help="of the square regions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", choices=("dense", "per-patch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sides = list(arguments.sides or (QUICK_SIDES if arguments.quick else SIDES))
    if arguments.memory_of:
        return print(extra_memory(arguments.memory_of, sides[-1]))
    model, most = build(), 512 if arguments.quick else MOST_WINDOWS
    rows, cell = speed_rows(model, sides, arguments.rounds, most)
    largest = sides[-1]
    rows += [thread_row(model, largest, arguments.rounds), reuse_row(model, largest)]
    rows += [members_row(model, largest), greece_row(cell)]
    used = {
        impl: json.loads(in_fresh_process(__file__, "--memory-of", impl, "--sides", str(largest))) / 2**20
        for impl in ("dense", "per-patch")
    }
    name = f"extra peak memory, a tile of {largest} x {largest} cells"
    ratio = used["per-patch"] / used["dense"]
    rows.append(row(name, used["dense"], used["per-patch"], "MB", ratio))
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
