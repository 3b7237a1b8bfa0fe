"""LTContext: our forward pass against the equations written straight down, and against MS-TCN.

    python benchmarks/ltcontext.py [--quick] [--json FILE] [--frames 2000 10000 20000 50000]

CPU time of one thread, median of paired rounds, each length in a fresh process; extra peak memory of one call
likewise. Both models hold the same weights, and their outputs are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from itertools import pairwise
from typing import Any

import torch
from pairing import in_fresh_process, paired_times, peak_memory, ratio, report, reset_peak_memory
from reference_ltcontext import ReferenceLTContext, ReferenceMSTCN

import framecast as fc

SPEED_GOALS = {2_000: 3.0, 10_000: 3.2, 20_000: 5.0, 50_000: 8.0}  # times the reference's speed
LARGEST_ERROR = 2e-6  # of the logits, relative to the largest
CLASSES, CHANNELS, STRIDE = 48, 2048, 64


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    reference = ReferenceLTContext(CLASSES, CHANNELS, stride=STRIDE).eval()
    if name == "reference":
        return reference
    if name == "ours":
        return fc.import_checkpoint("ltcontext", reference.state_dict(), window=64, stride=STRIDE)
    if name == "mstcn":
        return ReferenceMSTCN(CLASSES, CHANNELS).eval()
    return fc.create_model("mstcn", num_classes=CLASSES, feature_dim=CHANNELS).eval()


def call(name: str, model: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    if name in ("reference", "mstcn"):
        return model(features, torch.ones(1, 1, features.shape[-1], dtype=torch.bool))
    return model(features)


def row(name: str, ours: float, theirs: float, unit: str, value: float, goal: str = "") -> dict:
    """One line of the report; the goal is "<= number" or ">= number"."""
    bound = float(goal[3:]) if goal else 0.0
    holds = (value <= bound if goal.startswith("<") else value >= bound) if goal else None
    figures = {"ours": ours, "reference": theirs, "unit": unit, "ratio": value}
    return {"name": name, **figures, "goal": goal, "holds": holds}


@torch.inference_mode()
def time_rows(frames: int, rounds: int) -> list[dict]:
    features = torch.randn(1, CHANNELS, frames)
    models = {name: build(name) for name in ("reference", "ours", "mstcn", "our mstcn")}
    logits, expected = (call(name, models[name], features) for name in ("ours", "reference"))
    error = float((logits - expected).abs().max() / expected.abs().max())
    if not error < LARGEST_ERROR:
        raise SystemExit(f"outputs differ by {error:.1e} at T = {frames}; timing would mean nothing")
    times = paired_times({name: lambda n=name: call(n, models[n], features) for name in models}, rounds)
    best = {name: min(values) for name, values in times.items()}
    speed, against = ratio(times, "reference", "ours"), 1 / ratio(times, "mstcn", "ours")
    goal = f">= {SPEED_GOALS[frames]}" if frames in SPEED_GOALS else ""
    limit = "<= 1.3" if frames == 10_000 else ""
    theirs, mstcn = ratio(times, "mstcn", "our mstcn"), f"our MS-TCN T={frames}, times faster"
    return [
        row(f"forward T={frames}, times faster", best["ours"], best["reference"], "ms", speed, goal),
        row(f"against MS-TCN T={frames}, times its time", best["ours"], best["mstcn"], "ms", against, limit),
        row(mstcn, best["our mstcn"], best["mstcn"], "ms", theirs),
        row(f"largest relative error T={frames}", error, 1.0, "", error, f"<= {LARGEST_ERROR}"),
    ]


@torch.inference_mode()
def thread_rows(frames: int, rounds: int) -> list[dict]:
    """Wall-clock time of one and of two threads; means something on an idle machine only."""
    model, features = build("ours"), torch.randn(1, CHANNELS, frames)
    best = {1: math.inf, 2: math.inf}
    for _ in range(rounds):
        for threads in best:
            torch.set_num_threads(threads)
            start = time.perf_counter()
            model(features)
            best[threads] = min(best[threads], 1e3 * (time.perf_counter() - start))
    return [row(f"two threads T={frames}, times faster", best[2], best[1], "ms", best[1] / best[2])]


@torch.inference_mode()
def extra_memory(name: str, frames: int) -> int:
    """Bytes that one call takes beyond model and features, at its peak."""
    model = build(name)
    call(name, model, torch.randn(1, CHANNELS, 256))
    features = torch.randn(1, CHANNELS, frames)
    before = reset_peak_memory()
    call(name, model, features)
    return peak_memory() - before


def memory_rows(sizes: list[int]) -> list[dict]:
    rows, ours = [], {}
    for frames in sizes:
        names = ("ours", "reference", "mstcn")
        used = {name: max(alone("memory", frames, name) / 2**20, 0.1) for name in names}
        ours[frames] = used["ours"]
        goal = ">= 6" if frames == 50_000 else ""
        less, against = used["reference"] / used["ours"], used["ours"] / used["mstcn"]
        title = f"extra peak memory T={frames}, times less"
        rows.append(row(title, used["ours"], used["reference"], "MB", less, goal))
        rows.append(row(f"memory against MS-TCN T={frames}", used["ours"], used["mstcn"], "MB", against))
    for small, large in pairwise(sizes):
        growth = math.log(ours[large] / ours[small]) / math.log(large / small)
        goal = "<= 1.1" if small >= 20_000 else ""  # smaller ones drown in what the allocator holds anyway
        rows.append(row(f"memory exponent {small} -> {large}", growth, 1.0, "", growth, goal))
    return rows


def alone(part: str, *arguments: object) -> Any:
    """A part of the benchmark in a fresh process, since what malloc learns from one size changes the next."""
    return json.loads(in_fresh_process(__file__, "--part", part, *map(str, arguments)))


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="the two smaller sizes, within a minute")
    parser.add_argument("--json", help="write the rows there")
    parser.add_argument("--frames", type=int, nargs="+", help="lengths of the videos")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    match arguments.part:
        case ["time", frames, rounds]:
            return print(json.dumps(time_rows(int(frames), int(rounds))))
        case ["threads", frames, rounds]:
            return print(json.dumps(thread_rows(int(frames), int(rounds))))
        case ["memory", frames, name]:
            return print(extra_memory(name, int(frames)))
    sizes = arguments.frames or ([2_000, 10_000] if arguments.quick else list(SPEED_GOALS))
    rows = []
    for frames in sizes:
        rows += alone("time", frames, 3 if arguments.quick or frames > 10_000 else 7)
    rows += alone("threads", min(sizes[-1], 10_000), 5 if arguments.quick else 20)
    report(rows + memory_rows(sizes), arguments.json)


if __name__ == "__main__":
    main()
