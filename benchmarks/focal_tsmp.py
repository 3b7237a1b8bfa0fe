"""Focal-TSMP: one map of Europe by our forward pass against the equations written straight down.

    python benchmarks/focal_tsmp.py [--quick] [--json FILE] [--rounds 1] [--grid 397 409]

CPU time of one thread in turn, whole and by part, with multiply-adds of each part; extra peak memory of one
call from fresh processes. Both models hold the same weights, and their answers are compared. The goals are
those of the whole map: of a small one, a cache holds what the reference moves through memory.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections import defaultdict

import torch
from pairing import in_fresh_process, peak_memory, report, reset_peak_memory, row
from reference_focal_tsmp import ReferenceFocalTSMP
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import framecast as fc

GRID, QUICK_GRID = (397, 409), (100, 103)
LARGEST_ERROR = 1e-5  # of the answer, relative to its largest number
PARTS = {  # name in the report -> modules of ours or the reference
    "encoder, level {}": r"encoder\.(?:levels\.(\d)\.\d|layers\.(\d)\.blocks\.\d)",
    "decoder, level {}": r"decoder\.(?:levels\.(\d)\.\d|layers\.(\d)\.blocks\.\d)",
    "up-sampling": r"decoder\.(?:up\.\d|layers\.\d\.upsample)",
    "heads": r"heads|decoder\.(?:BT|NDVI)_block",
}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    reference = ReferenceFocalTSMP().eval()
    if name == "reference":
        return reference
    return fc.import_checkpoint("focal_tsmp", reference.state_dict())


def part_of(module: str) -> str | None:
    for part, pattern in PARTS.items():
        found = re.fullmatch(pattern, module)
        if found:
            return part.format(*(level for level in found.groups() if level))
    return None


class PartTimes:
    """CPU seconds that a model spends in each part, by hooks."""

    def __init__(self, model: nn.Module) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        for name, module in model.named_modules():
            part = part_of(name)
            if part:
                module.register_forward_pre_hook(lambda *_, p=part: self.add(p, -time.process_time()))
                module.register_forward_hook(lambda *_, p=part: self.add(p, time.process_time()))

    def add(self, part: str, seconds: float) -> None:
        self.seconds[part] += seconds


def multiply_adds(name: str, grid: tuple[int, int]) -> dict[str, float]:
    """Giga multiply-adds by part and in all, counted without computing anything."""
    with torch.device("meta"):
        model = ReferenceFocalTSMP() if name == "reference" else fc.create_model("focal_tsmp")
        counter = FlopCounterMode(display=False)
        with counter:
            model.eval()(torch.empty(1, 71, *grid))
    counts: dict[str, float] = defaultdict(float)
    for module, flops in counter.get_flop_counts().items():
        part = "all" if module == "Global" else part_of(module.partition(".")[2])
        if part:
            counts[part] += sum(flops.values()) / 2e9
    return counts


def timed(model: nn.Module, x: Tensor) -> tuple[Tensor, float]:
    start = time.process_time()
    answer = model(x)
    return answer, time.process_time() - start


@torch.inference_mode()
def time_rows(grid: tuple[int, int], rounds: int) -> list[dict]:
    x = torch.randn(1, 71, *grid)
    models = {name: build(name) for name in ("reference", "ours")}
    for model in models.values():
        model(x[..., :40, :44])
    parts = {name: PartTimes(model) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    answers = {}
    for _ in range(rounds):
        for name, model in models.items():
            answers[name], seconds = timed(model, x)
            times[name].append(seconds)
    error = (answers["ours"] - answers["reference"]).abs().max() / answers["reference"].abs().max()
    speed = statistics.median(a / b for a, b in zip(times["reference"], times["ours"], strict=True))
    ours, theirs = min(times["ours"]), min(times["reference"])
    size, gmac = "{}x{}".format(*grid), {name: multiply_adds(name, grid) for name in models}
    goal = ">= 1.5" if grid == GRID else ""
    rows = [
        row(f"map of {size}, times faster", ours, theirs, "s", speed, goal),
        row("largest relative error", float(error), 1.0, "", float(error), f"<= {LARGEST_ERROR}"),
    ]
    for part in gmac["reference"]:
        a, b = (parts[name].seconds[part] / rounds for name in ("ours", "reference"))
        a, b = (a, b) if part != "all" else (ours, theirs)
        rows.append(row(f"{part}: CPU time", a, b, "s", b / a))
        a, b = (gmac[name][part] for name in ("ours", "reference"))
        rows.append(row(f"{part}: multiply-adds", a, b, "GMAC", b / a))
    return rows


@torch.inference_mode()
def extra_memory(name: str, grid: tuple[int, int]) -> int:
    """Bytes that one call takes beyond model and input, at its peak."""
    model, x = build(name), torch.randn(1, 71, *grid)
    model(x[..., :40, :44])
    before = reset_peak_memory()
    model(x)
    return peak_memory() - before


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the map, within a minute")
    parser.add_argument("--json", help="write the rows there")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--grid", type=int, nargs=2, metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--memory-of", choices=("ours", "reference"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    grid = tuple(arguments.grid or (QUICK_GRID if arguments.quick else GRID))
    if arguments.memory_of:
        return print(extra_memory(arguments.memory_of, grid))
    rows = time_rows(grid, 3 if arguments.quick else arguments.rounds)
    used = {
        name: json.loads(in_fresh_process(__file__, "--memory-of", name, "--grid", *map(str, grid))) / 2**20
        for name in ("ours", "reference")
    }
    less = used["reference"] / used["ours"]
    goal = ">= 2" if grid == GRID else ""
    rows.insert(1, row("extra peak memory, times less", used["ours"], used["reference"], "MB", less, goal))
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
