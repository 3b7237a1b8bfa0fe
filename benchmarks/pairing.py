"""Honest ratios on noisy machines: CPU time of one thread in turn, peak memory of fresh processes."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from framecast.ops import native_library


def paired_times(competitors: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of each competitor per round; every round runs each once, after one warm-up."""
    for run in competitors.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, run in competitors.items():
            start = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - start))
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """Median over rounds of slow / fast."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def reset_peak_memory() -> int:
    """Forget the process's high-water mark; gives the memory in use now, in bytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_memory() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}; peak memory is measured on Linux only")


def in_fresh_process(script: str, *arguments: str) -> str:
    """Last line that `python script arguments` prints."""
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def row(name: str, ours: float, theirs: float, unit: str, value: float, goal: str = "") -> dict[str, Any]:
    """One line of the report; the goal is "<= number" or ">= number"."""
    bound = float(goal[3:]) if goal else 0.0
    holds = (value <= bound if goal.startswith("<") else value >= bound) if goal else None
    figures = {"ours": ours, "reference": theirs, "unit": unit, "ratio": value}
    return {"name": name, **figures, "goal": goal, "holds": holds}


def report(rows: list[dict[str, Any]], path: str | None) -> None:
    """Print rows with name, ours, reference, unit, ratio, goal and holds; with a path, write them as JSON."""
    widths = (44, 12, 12, 6, 8, 10)
    titles = ("name", "ours", "reference", "unit", "ratio", "goal", "")
    print("".join(title.ljust(w) for title, w in zip(titles, (*widths, 0), strict=True)))
    for row in rows:
        ours, reference, value = (_figure(row[key]) for key in ("ours", "reference", "ratio"))
        cells = (row["name"], ours, reference, row["unit"], value, row["goal"])
        mark = {True: "holds", False: "MISSED", None: ""}[row["holds"]]
        print("".join(str(cell).ljust(w) for cell, w in zip(cells, widths, strict=True)) + mark)
    if path:
        Path(path).write_text(json.dumps({"rows": rows, "machine": machine()}, indent=2) + "\n")


def _figure(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 0.01 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def machine() -> dict[str, str]:
    """The processor and the versions that the figures were taken with."""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "native kernels": native_library.available(),
    }
