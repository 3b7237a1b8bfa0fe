"""LTContext: our forward pass against the equations written straight down, and against MS-TCN.

    python benchmarks/ltcontext.py [--quick] [--json FILE] [--frames 2000 10000 20000 50000]

CPU time of one thread, median of paired rounds; extra peak memory of one call in a fresh process.
Both models hold the same weights, and their outputs are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import math

import torch
from pairing import in_fresh_process, paired_times, peak_memory, ratio, report, reset_peak_memory
from reference_ltcontext import ReferenceLTContext, ReferenceMSTCN

import framecast as fc

SPEED_GOALS = {2_000: 3.0, 10_000: 3.2, 20_000: 5.0, 50_000: 8.0}
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


@torch.inference_mode()
def extra_memory(name: str, frames: int) -> int:
    model = build(name)
    call(name, model, torch.randn(1, CHANNELS, 256))
    features = torch.randn(1, CHANNELS, frames)
    before = reset_peak_memory()
    call(name, model, features)
    return peak_memory() - before


@torch.inference_mode()
def time_rows(frames: int, rounds: int) -> list[dict]:
    features = torch.randn(1, CHANNELS, frames)
    names = ["reference", "ours", "mstcn", "our mstcn"]
    models = {name: build(name) for name in names}
    logits = {name: call(name, models[name], features) for name in ("reference", "ours")}
    error = (logits["ours"] - logits["reference"]).abs().max() / logits["reference"].abs().max()
    if not error < 1e-5:
        raise SystemExit(f"outputs differ by {error:.1e} at T = {frames}; timing would mean nothing")
    times = paired_times({name: lambda n=name: call(n, models[n], features) for name in names}, rounds)
    median = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
    goal = SPEED_GOALS.get(frames)
    speed = ratio(times, "reference", "ours")
    against = 1 / ratio(times, "mstcn", "ours")
    print(f"T = {frames}: relative error {error:.1e}, our MS-TCN {median['our mstcn']:.0f} ms", flush=True)
    return [
        row(f"forward T={frames}, times faster", median["ours"], median["reference"], "ms", speed, goal and f">= {goal}", goal and speed >= goal),
        row(f"against MS-TCN T={frames}, times its time", median["ours"], median["mstcn"], "ms", against, "<= 1.3" if frames == 10_000 else "", against <= 1.3 if frames == 10_000 else None),
    ]


def row(name: str, ours: float, reference: float, unit: str, value: float, goal: str | None, holds: bool | None) -> dict:
    return {"name": name, "ours": ours, "reference": reference, "unit": unit, "ratio": value, "goal": goal or "", "holds": holds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, within a minute")
    parser.add_argument("--json", help="write the rows there")
    parser.add_argument("--frames", type=int, nargs="+")
    parser.add_argument("--memory-of", nargs=2, metavar=("NAME", "T"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        print(extra_memory(arguments.memory_of[0], int(arguments.memory_of[1])))
        return
    sizes = arguments.frames or ([2_000, 10_000] if arguments.quick else list(SPEED_GOALS))
    rows = []
    for frames in sizes:
        rows += time_rows(frames, rounds=5 if frames <= 10_000 else 3)
    memory = {}
    for frames in sizes:
        memory[frames] = {n: int(in_fresh_process(__file__, "--memory-of", n, str(frames))) / 2**20 for n in ("ours", "reference", "mstcn")}
        ours, theirs = memory[frames]["ours"], memory[frames]["reference"]
        goal = frames == 50_000
        rows.append(row(f"extra peak memory T={frames}, times less", ours, theirs, "MB", theirs / max(ours, 1e-3), ">= 6" if goal else "", theirs >= 6 * ours if goal else None))
        rows.append(row(f"memory against MS-TCN T={frames}", ours, memory[frames]["mstcn"], "MB", ours / max(memory[frames]["mstcn"], 1e-3), "", None))
    if len(sizes) > 1:
        small, large = sizes[-2], sizes[-1]
        growth = math.log(memory[large]["ours"] / memory[small]["ours"]) / math.log(large / small)
        rows.append(row(f"memory exponent {small} -> {large}", growth, 1.0, "", growth, "<= 1.1", growth <= 1.1))
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
